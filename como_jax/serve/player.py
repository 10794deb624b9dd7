"""Playing chunks of actions on a robot: a queue that asks in time and blends what overlaps.

(ACT's ensemble: como_jax/chunks.py.)

No network and no jax in here. Legend: K chunk elements, A action dims; a step is one policy step,
counted from the episode's beginning.

The queue's ideas are LeRobot's asynchronous inference (huggingface/lerobot,
src/lerobot/async_inference, Apache-2.0).
"""

import concurrent.futures
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax import errors

# How an element that is still queued (old) and the same step's element of a newer chunk (new)
# become one.
MERGES = {
  "latest_only": lambda old, new: new,
  "average": lambda old, new: 0.5 * old + 0.5 * new,
  "weighted_average": lambda old, new: 0.3 * old + 0.7 * new,
  "conservative": lambda old, new: 0.7 * old + 0.3 * new,
}


class ChunkQueue:
  """Actions to come, by step.

  Attributes:
    step: the step whose action `pop` gives next.
  """

  def __init__(
    self,
    chunk: int,
    *,
    threshold: float = 0.5,
    merge: str = "weighted_average",
    similar: float = 0.0,
  ):
    """Args:
      chunk: K.
      threshold: a new chunk is wanted when less than this share of a chunk is queued; 1 = all the
        time, 0 = only when empty.
      merge: one of MERGES.
      similar: an observation whose state is within this distance (Euclidean, in the state's units)
        of the last one asked with is not worth asking with again, unless the queue is empty. 0 =
        every observation is.

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
    self._chunk, self._threshold, self._merge, self._similar = (
      chunk,
      threshold,
      MERGES[merge],
      similar,
    )
    self.clear()

  def __len__(self) -> int:
    return len(self._actions)

  @property
  def must_go(self) -> bool:
    """Nothing is left to play: the next observation has to be asked with, however similar it is."""
    return not self._actions

  def clear(self) -> None:
    """Forgets everything: a new episode."""
    self.step = 0
    self._actions: dict[int, np.ndarray] = {}
    self._asked: np.ndarray | None = None
    self._pending: int | None = None

  def wants(self, state: Any = None) -> bool:
    """Whether to ask for a chunk now, with an observation of this state (None: similarity is not
    looked at).
    """
    if self._pending is not None:
      return False
    if self.must_go:
      return True
    if len(self._actions) >= self._threshold * self._chunk:
      return False
    if state is None or self._asked is None or not self._similar:
      return True
    return float(np.linalg.norm(np.asarray(state, np.float64) - self._asked)) > self._similar

  def asked(self, state: Any = None) -> int:
    """Notes that a request is on its way; returns the step its chunk will begin at, for `add`."""
    self._asked = None if state is None else np.array(state, np.float64)
    self._pending = self.step
    return self.step

  def failed(self) -> None:
    """The request on its way brought nothing."""
    self._pending, self._asked = None, None

  def add(self, step: int, actions: np.ndarray) -> None:
    """Takes in a chunk [K, A] whose first element belongs to `step`; elements of steps that have
    been played are dropped.
    """
    actions = _chunk_of(actions)
    self._pending = None
    for i, new in enumerate(actions):
      if step + i >= self.step:
        old = self._actions.get(step + i)
        self._actions[step + i] = new if old is None else self._merge(old, new)

  def pop(self) -> np.ndarray | None:
    """The action [A] of this step, and on to the next; None, and no step on, when there is none."""
    action = self._actions.pop(self.step, None)
    if action is not None:
      self.step += 1
    return action


class Player:
  """One action a call: asks the policy on a thread of its own while the queue is played, and waits
  only when it is empty.

  It does not ask at every step, so it is not for a policy that looks at a history (`history` of the
  server's metadata above 1).
  """

  def __init__(self, policy: Any, queue: ChunkQueue, *, state_key: str = "observation.state"):
    """Args:
    policy: `infer(observation) -> {"actions": [K, A]}` and `reset()`, for example client.Client.
    queue: what to play.
    state_key: of the observation, to tell similar observations by.
    """
    self._policy, self._queue, self._state_key = policy, queue, state_key
    self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="chunks")
    self._request: tuple[int, concurrent.futures.Future] | None = None

  def __call__(self, observation: Mapping[str, Any]) -> np.ndarray:
    """The action [A] to take now.

    Raises:
      Exception: what the policy raised; the queue can go on.
    """
    if self._request and self._request[1].done():
      self._take()
    if self._queue.wants(observation.get(self._state_key)):
      self._ask(observation)
    while self._queue.must_go:
      if not self._request:
        self._ask(observation)
      self._take()
    return self._queue.pop()

  def reset(self) -> None:
    """A new episode. An answer that is still on its way is waited for and dropped."""
    if self._request:
      concurrent.futures.wait([self._request[1]])
    self._request = None
    self._queue.clear()
    self._policy.reset()

  def close(self) -> None:
    """Ends the thread; the policy stays open."""
    self._thread.shutdown(wait=True)

  def _ask(self, observation: Mapping[str, Any]) -> None:
    self._request = (
      self._queue.asked(observation.get(self._state_key)),
      self._thread.submit(self._policy.infer, observation),
    )

  def _take(self) -> None:
    step, future = self._request
    self._request = None
    try:
      self._queue.add(step, future.result()["actions"])
    except Exception:
      self._queue.failed()
      raise


def _chunk_of(actions: Any) -> np.ndarray:
  array = np.array(actions, np.float64)  # a copy: the caller may reuse its own
  if array.ndim != 2 or not len(array) or not np.isfinite(array).all():
    raise errors.UserError(f"a chunk is {list(array.shape)}, finite actions [K, A] are expected")
  return array
