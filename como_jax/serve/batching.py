"""Batching: one call of the policy answers the requests of several clients.

The policy runs on a worker thread, so the event loop still answers pings and health checks while
the policy computes. A client that is alone never waits for others.
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
from como_jax.serve import interface


@dataclasses.dataclass(frozen=True)
class Answer:
  """The answer to one request.

  Attributes:
    actions: float32 [K, A].
    infer_ms: milliseconds from the request to the answer, including waiting and batching.
    policy_ms: milliseconds of the policy's call.
  """

  actions: np.ndarray
  infer_ms: float
  policy_ms: float


@dataclasses.dataclass(frozen=True)
class _Request:
  history: list
  seed: int
  future: asyncio.Future
  start: float


class Batcher:
  """Collects requests and answers them together.

  A batch uses the seed of its oldest request. A client that is alone therefore gets the same
  actions for the same history and seed.
  """

  def __init__(
    self,
    policy: interface.Policy,
    *,
    batch_size: int,
    wait_seconds: float,
    clients: Callable[[], int],
  ):
    """Creates the worker thread; `run` answers the requests.

    Args:
      policy: answers the requests.
      batch_size: maximum number of requests in one call.
      wait_seconds: time for which the first request of a batch waits for others.
      clients: returns the number of connected clients. When all of them have sent a request, the
        batch starts without further waiting.
    """
    self._policy, self._size, self._wait, self._clients = policy, batch_size, wait_seconds, clients
    self._requests: collections.deque[_Request] = collections.deque()
    self._arrived, self._full = asyncio.Event(), asyncio.Event()
    self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="policy")

  async def warm_up(self) -> None:
    """Compiles every batch size, on the thread that will run them."""
    await asyncio.get_running_loop().run_in_executor(self._thread, self._policy.warm_up)

  async def submit(self, history: list, seed: int) -> Answer:
    """Returns the actions for one history.

    Args:
      history: observations, oldest first.
      seed: of the policy's random numbers.

    Raises:
      errors.UserError: the policy refuses the observation.
      Exception: any other exception of the policy.
    """
    request = _Request(
      history, seed, asyncio.get_running_loop().create_future(), time.perf_counter()
    )
    self._requests.append(request)
    self._arrived.set()
    if self._is_full():
      self._full.set()
    return await request.future

  async def run(self) -> None:
    """Answers requests until canceled."""
    while True:
      await self._arrived.wait()
      if self._wait and not self._is_full():
        self._full.clear()
        with contextlib.suppress(TimeoutError):
          await asyncio.wait_for(self._full.wait(), self._wait)
      batch = [self._requests.popleft() for _ in range(min(self._size, len(self._requests)))]
      if not self._requests:
        self._arrived.clear()
      await self._answer(batch)

  def close(self) -> None:
    """Ends the worker thread after its current call."""
    self._thread.shutdown(wait=False, cancel_futures=True)

  def _is_full(self) -> bool:
    """Whether waiting longer cannot add a request to the batch."""
    return len(self._requests) >= min(self._size, self._clients())

  async def _answer(self, batch: list[_Request]) -> None:
    try:
      actions, policy_ms = await asyncio.get_running_loop().run_in_executor(
        self._thread, self._infer, batch
      )
    except Exception as error:  # passed on to the client of the failed request
      if len(batch) == 1:
        _finish(batch[0].future, error)
        return
      for request in batch:  # one client's bad observation must not fail the others
        await self._answer([request])
      return
    for request, chunk in zip(batch, actions, strict=False):
      _finish(request.future, Answer(chunk, 1e3 * (time.perf_counter() - request.start), policy_ms))

  def _infer(self, batch: list[_Request]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    actions = np.asarray(
      self._policy.infer([request.history for request in batch], seed=batch[0].seed), np.float32
    )
    expected = (len(batch), self._policy.action_horizon, self._policy.action_dim)
    if actions.shape != expected:
      raise ValueError(f"the policy gave actions of shape {actions.shape}, expected {expected}")
    if not np.isfinite(actions).all():  # such actions must never reach a robot
      raise errors.NonFiniteError("the policy gave actions that are not finite")
    return actions, 1e3 * (time.perf_counter() - start)


def _finish(future: asyncio.Future, value: Any) -> None:
  if future.done():  # canceled with its task
    return
  if isinstance(value, Exception):
    future.set_exception(value)
  else:
    future.set_result(value)
