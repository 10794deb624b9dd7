"""Temporal ensembling: overlapping action chunks are averaged into the actions to execute.

Needs numpy alone, so that it also runs on robots.
"""

from __future__ import annotations  # Python 3.8: this file is in client/ too

import numpy as np

from como_jax import errors


class TemporalEnsemble:
  """Averages the predictions of all chunks so far for each policy step.

  The weight of the i-th oldest chunk is exp(-decay * i). With a positive decay, old chunks have
  more weight and new observations take effect slowly. With a negative decay, the newest chunk has
  the most weight. Use one object per episode, or call `reset` between episodes.

  Legend: K actions of a chunk, A action dimensions. Source: Zhao et al., arXiv 2304.13705.

  >>> blend = TemporalEnsemble(0.0)
  >>> blend(np.array([[1.0], [1.0], [1.0]]))  # the first chunk alone
  array([[1.]], dtype=float32)
  >>> blend(np.array([[3.0], [3.0], [3.0]]))  # the mean of both
  array([[2.]], dtype=float32)
  """

  def __init__(self, decay: float, *, execute: int = 1):
    """Starts with no chunks.

    Args:
      decay: decay rate of the weights; 0 gives all chunks the same weight.
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
    actions = np.zeros((min(self._execute, len(chunk)), chunk.shape[1]))
    for step in range(len(actions)):
      predictions = np.stack([old[step] for old in self._chunks if len(old) > step])
      weights = np.exp(-self._decay * np.arange(len(predictions)))
      actions[step] = weights @ predictions / weights.sum()
    return actions.astype(np.float32)

  def reset(self) -> None:
    """Removes all chunks, for the start of a new episode."""
    self._chunks = []
