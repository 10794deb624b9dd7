"""Requests of several clients in one call of the policy, on one worker thread beside the event
loop.

The event loop goes on answering pings and health checks while the policy computes. A lone client
never waits for others.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from como_jax import errors


@dataclasses.dataclass(frozen=True)
class Answer:
  """One client's share of a batch.

  Attributes:
    actions: float32 [K, A].
    infer_ms: milliseconds from the request to the answer, with waiting and batching.
    policy_ms: milliseconds of the policy's own call.
  """

  actions: np.ndarray
  infer_ms: float
  policy_ms: float


@dataclasses.dataclass(frozen=True)
class _Request:
  history: list
  seed: int
  future: asyncio.Future
  begin: float


class Batcher:
  """Collects requests and answers them together.

  A batch takes the seed of its oldest request: a client that is alone gets the same actions for the
  same history and seed.
  """

  def __init__(
    self, policy: Any, *, batch_size: int, wait_seconds: float, clients: Callable[[], int]
  ):
    """Args:
    policy: `infer(histories, seed=...)`, `warm_up()`, `chunk`, `action_dim` (serve/policy.py).
    batch_size: the most requests of one call.
    wait_seconds: how long the first request of a batch waits for others.
    clients: how many are connected; when all of them wait already, nobody waits longer.
    """
    self._policy, self._size, self._wait, self._clients = policy, batch_size, wait_seconds, clients
    self._waiting: collections.deque[_Request] = collections.deque()
    self._arrived, self._full = asyncio.Event(), asyncio.Event()
    self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="policy")

  async def warm_up(self) -> None:
    """Compiles every batch size, on the thread that will use them."""
    await asyncio.get_running_loop().run_in_executor(self._thread, self._policy.warm_up)

  async def submit(self, history: list, seed: int) -> Answer:
    """The actions for one history.

    Raises:
      errors.UserError: the policy refuses the observation.
      Exception: whatever else the policy raises.
    """
    request = _Request(
      history, seed, asyncio.get_running_loop().create_future(), time.perf_counter()
    )
    self._waiting.append(request)
    self._arrived.set()
    if self._enough():
      self._full.set()
    return await request.future

  async def run(self) -> None:
    """Answers until canceled."""
    while True:
      await self._arrived.wait()
      if self._wait and not self._enough():
        self._full.clear()
        with contextlib.suppress(TimeoutError):
          await asyncio.wait_for(self._full.wait(), self._wait)
      batch = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
      if not self._waiting:
        self._arrived.clear()
      await self._answer(batch)

  def close(self) -> None:
    """Lets the worker thread end after what it is doing."""
    self._thread.shutdown(wait=False, cancel_futures=True)

  def _enough(self) -> bool:
    return len(self._waiting) >= min(self._size, self._clients())

  async def _answer(self, batch: list[_Request]) -> None:
    try:
      actions, policy_ms = await asyncio.get_running_loop().run_in_executor(
        self._thread, self._infer, batch
      )
    except Exception as error:  # handed on to the client it concerns
      if len(batch) == 1:
        _finish(batch[0].future, error)
        return
      for request in batch:  # one client's bad observation must not fail the others
        await self._answer([request])
      return
    for request, chunk in zip(batch, actions, strict=False):
      _finish(request.future, Answer(chunk, 1e3 * (time.perf_counter() - request.begin), policy_ms))

  def _infer(self, batch: list[_Request]) -> tuple[np.ndarray, float]:
    begin = time.perf_counter()
    actions = np.asarray(
      self._policy.infer([request.history for request in batch], seed=batch[0].seed), np.float32
    )
    expected = (len(batch), self._policy.chunk, self._policy.action_dim)
    if actions.shape != expected:
      raise ValueError(f"the policy gave actions of shape {actions.shape}, expected {expected}")
    if not np.isfinite(actions).all():  # never to a robot
      raise errors.NonFinite("the policy gave actions that are not finite")
    return actions, 1e3 * (time.perf_counter() - begin)


def _finish(future: asyncio.Future, value: Any) -> None:
  if future.done():  # canceled with its task
    return
  if isinstance(value, Exception):
    future.set_exception(value)
  else:
    future.set_result(value)
