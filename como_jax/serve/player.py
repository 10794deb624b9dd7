"""Playing chunks of actions on a robot: a queue that requests chunks early and blends overlaps.

This file uses no network and no jax. ACT's temporal ensemble is in como_jax/chunks.py. Legend: K
chunk elements, A action dims; a step is one policy step, counted from the start of the episode.

The queue follows LeRobot's asynchronous inference (huggingface/lerobot,
src/lerobot/async_inference, Apache-2.0).
"""

from __future__ import annotations  # Python 3.8: this file is in client/ too

import concurrent.futures
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax import errors

# Functions that merge a queued action (old) with the action of the same step in a newer chunk
# (new).
MERGES = {
  "latest_only": lambda old, new: new,
  "average": lambda old, new: 0.5 * old + 0.5 * new,
  "weighted_average": lambda old, new: 0.3 * old + 0.7 * new,
  "conservative": lambda old, new: 0.7 * old + 0.3 * new,
}


class ChunkQueue:
  """Queue of future actions, by step.

  Attributes:
    step: the step whose action `pop` returns next.
  """

  def __init__(
    self,
    chunk: int,
    *,
    threshold: float = 0.5,
    merge: str = "weighted_average",
    similar: float = 0.0,
  ):
    """Creates an empty queue.

    Args:
      chunk: K.
      threshold: a new chunk is needed when the queue holds less than this fraction of a chunk; 1 =
        always, 0 = only when the queue is empty.
      merge: one of MERGES.
      similar: an observation counts as similar when its state is within this distance (Euclidean,
        in the state's units) of the last requested state. Similar observations are not sent unless
        the queue is empty. 0 = every observation is sent.

    Raises:
      errors.UserError: a value out of range, or an unknown merge.
    """
    if merge not in MERGES:
      raise errors.UserError(f"merge={merge!r} is unknown: {errors.nearest(merge, MERGES)}")
    if chunk < 1 or not 0 <= threshold <= 1 or similar < 0:
      raise errors.UserError(
        f"chunk={chunk}, threshold={threshold}, similar={similar}: expected at least 1, 0 to 1, "
        "at least 0"
      )
    self._chunk, self._threshold = chunk, threshold
    self._merge, self._similar = MERGES[merge], similar
    self.clear()

  def __len__(self) -> int:
    return len(self._actions)

  @property
  def must_go(self) -> bool:
    """Whether the queue is empty; the next observation is then sent even if it is similar."""
    return not self._actions

  def clear(self) -> None:
    """Empties the queue and starts a new episode."""
    self.step = 0
    self._actions: dict[int, np.ndarray] = {}
    self._requested_state: np.ndarray | None = None
    self._pending: int | None = None

  def needs_chunk(self, state: Any = None) -> bool:
    """Whether to request a chunk now.

    Args:
      state: of the current observation; None = do not test for similarity.
    """
    if self._pending is not None:
      return False
    if self.must_go:
      return True
    if len(self._actions) >= self._threshold * self._chunk:
      return False
    if state is None or self._requested_state is None or not self._similar:
      return True
    distance = np.linalg.norm(np.asarray(state, np.float64) - self._requested_state)
    return float(distance) > self._similar

  def start_request(self, state: Any = None) -> int:
    """Notes that a chunk has been requested; returns its first step, for `add`.

    Args:
      state: of the observation that was sent.
    """
    self._requested_state = None if state is None else np.array(state, np.float64)
    self._pending = self.step
    return self.step

  def fail_request(self) -> None:
    """Notes that the pending request has failed."""
    self._pending, self._requested_state = None, None

  def add(self, step: int, actions: np.ndarray) -> None:
    """Adds a chunk; elements of steps that have been played are dropped.

    Args:
      step: step of the chunk's first element.
      actions: [K, A].

    Raises:
      errors.UserError: the actions have another rank, are empty or not finite.
    """
    actions = _check_chunk(actions)
    self._pending = None
    for i, new in enumerate(actions):
      if step + i >= self.step:
        old = self._actions.get(step + i)
        self._actions[step + i] = new if old is None else self._merge(old, new)

  def pop(self) -> np.ndarray | None:
    """Returns the action [A] of this step and advances one step; None when there is no action."""
    action = self._actions.pop(self.step, None)
    if action is not None:
      self.step += 1
    return action


class Player:
  """Returns one action per call and requests chunks from the policy in the background.

  The requests run on a separate thread while the queue is played. A call waits only when the queue
  is empty. The player does not send every observation, so it does not suit a policy with a history
  (`history` above 1 in the server's metadata).
  """

  def __init__(self, policy: Any, queue: ChunkQueue, *, state_key: str = "observation.state"):
    """Creates the thread of the requests.

    Args:
      policy: has `infer(observation) -> {"actions": [K, A]}` and `reset()`, for example
        client.Client.
      queue: the queue to play.
      state_key: key of the observation's state, for the test of similarity.
    """
    self._policy, self._queue, self._state_key = policy, queue, state_key
    self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="chunks")
    self._request: tuple[int, concurrent.futures.Future] | None = None

  def __call__(self, observation: Mapping[str, Any]) -> np.ndarray:
    """Returns the action [A] for an observation.

    Raises:
      Exception: raised by the policy; the player can still be used.
    """
    if self._request and self._request[1].done():
      self._receive()
    if self._queue.needs_chunk(observation.get(self._state_key)):
      self._send(observation)
    while (action := self._queue.pop()) is None:
      if not self._request:
        self._send(observation)
      self._receive()
    return action

  def reset(self) -> None:
    """Starts a new episode; waits for a pending answer and drops it."""
    if self._request:
      concurrent.futures.wait([self._request[1]])
    self._request = None
    self._queue.clear()
    self._policy.reset()

  def close(self) -> None:
    """Ends the thread; the policy stays open."""
    self._thread.shutdown(wait=True)

  def _send(self, observation: Mapping[str, Any]) -> None:
    self._request = (
      self._queue.start_request(observation.get(self._state_key)),
      self._thread.submit(self._policy.infer, observation),
    )

  def _receive(self) -> None:
    """Waits for the pending answer, if there is one, and adds it to the queue."""
    if self._request is None:
      return
    step, future = self._request
    self._request = None
    try:
      self._queue.add(step, future.result()["actions"])
    except Exception:
      self._queue.fail_request()
      raise


def _check_chunk(actions: Any) -> np.ndarray:
  array = np.array(actions, np.float64)  # a copy, because the caller may reuse its array
  if array.ndim != 2 or not len(array) or not np.isfinite(array).all():
    raise errors.UserError(f"a chunk is {list(array.shape)}, finite actions [K, A] are expected")
  return array
