"""Errors of pairs in groups of three."""

import numpy as np

from como_jax.exam import motion_score


def made(mean, count=600, seed=0, noise=0.3):
  """Errors [count, 2] of a mean, of groups of 3; a group's errors go together."""
  random = np.random.default_rng(seed)
  shared = random.normal(size=(count // 3, 2))
  return mean * (1 + noise * np.repeat(shared - shared.mean(axis=0), 3, axis=0))


GROUPS = np.arange(600) // 3
MOVES = motion_score.Moves(GROUPS)
