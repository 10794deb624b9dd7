"""Columns of actions, and their statistics and transforms."""

import numpy as np

from como_jax.data import normalization, statistics


def of(rows):
  """Statistics of columns of numbers."""
  accumulator = statistics.Accumulator()
  accumulator.add(np.array(rows, float))
  return accumulator.finish()


def units(**robots):
  """Statistics from columns of numbers: {robot: action [N, A]}; the state has them reversed."""
  return normalization.MixtureStatistics(
    {
      name: {"action": of(rows), "state": of(np.array(rows)[:, ::-1])}
      for name, rows in robots.items()
    }
  )


def action_transforms(**robots):
  """Robot -> transforms of its actions."""
  return {
    name: parts["action"]
    for name, parts in units(**robots).normalization("standard").robots.items()
  }


T = np.arange(40.0)
MOVING, GRIPPER, STILL = np.sin(T), np.where(T % 2, 0.6, -1.0), np.full(40, 1.5)
ROWS = np.stack([MOVING, GRIPPER, STILL], 1)
