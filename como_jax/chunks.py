"""From chunks of actions to the actions executed: overlapping chunks averaged over time (numpy
only, also for robots).
"""

import numpy as np

from como_jax import errors


class TemporalEnsemble:
  """Averages, for each policy step, what all chunks so far said about it (Zhao et al., arXiv
  2304.13705).

  The weight of the i-th oldest chunk is exp(-decay * i): with a positive decay old chunks count for
  more and new observations come in slowly, with a negative one the newest chunk leads. One object
  an episode. Legend: K chunk, A action.
  """

  def __init__(self, decay: float, *, execute: int = 1):
    """Args:
    decay: of the weights; 0 averages evenly.
    execute: policy steps between two chunks.

    Raises:
      errors.UserError: execute < 1.
    """
    if execute < 1:
      raise errors.UserError(
        f"execute = {execute}: expected at least one policy step between two chunks"
      )
    self._decay, self._execute, self._chunks = float(decay), execute, []

  def __call__(self, chunk: np.ndarray) -> np.ndarray:
    """Takes the newest chunk [K, A]; returns the next actions, float32 [min(execute, K), A]."""
    chunk = np.asarray(chunk, np.float64)
    self._chunks = [old[self._execute :] for old in self._chunks if len(old) > self._execute] + [
      chunk
    ]
    out = np.zeros((min(self._execute, len(chunk)), chunk.shape[1]))
    for step in range(len(out)):
      said = np.stack([old[step] for old in self._chunks if len(old) > step])
      weights = np.exp(-self._decay * np.arange(len(said)))
      out[step] = weights @ said / weights.sum()
    return out.astype(np.float32)

  def reset(self) -> None:
    """Forgets every chunk: a new episode begins."""
    self._chunks = []
