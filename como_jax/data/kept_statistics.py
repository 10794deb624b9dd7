"""Statistics that ingest and labeling kept of whole data sets: a start reads no rows for them.

They are of all episodes, also of those set aside for validation. Quantiles are those of the shards,
merged (`summaries.merge_sketches`); all else is exact. Where they do not describe the examples,
there are none.
"""

from collections.abc import Sequence

import numpy as np

from como_jax.data import normalization, summaries
from como_jax.data.policy_sets import SplitSet
from como_jax.data.statistics import Statistics


def of_robots(sets: Sequence[SplitSet], step_seconds: float) -> dict[str, dict[str, Statistics]]:
  """Statistics of the actions and states of robots, of those whose data sets all have them.

  A data set has them when it has an index of frames, when the entry takes all of its episodes, and
  when a policy step is not longer than one of its frames.

  Args:
    sets: training examples.
    step_seconds: of an element of a chunk; 0 = one frame.

  Raises:
    errors.UserError: a value is not finite.
  """
  by_robot: dict[str, list[SplitSet]] = {}
  for opened in sets:
    if opened.robot:
      by_robot.setdefault(opened.robot, []).append(opened)
  return {
    robot: found
    for robot, own in by_robot.items()
    if all(_describes(opened, step_seconds) for opened in own)
    and "action" in (found := _merged(own))
  }


def _describes(opened: SplitSet, step_seconds: float) -> bool:
  table, entry = opened.table, opened.entry
  moving = table.interval[table.length > 1]
  one_frame = step_seconds == 0 or (table.uniform.all() and (moving >= step_seconds * 0.99).all())
  return bool(one_frame and not entry.episodes and not entry.tasks and opened.reader.shards.index)


def _merged(sets: Sequence[SplitSet]) -> dict[str, Statistics]:
  """Statistics of the arrays that some of the data sets have."""
  merged = {}
  for key in normalization.KEYS:
    found = [opened.reader.shards.index.sketches(key) for opened in sets]
    parts = [part for part in found if part is not None and len(part)]
    if parts:
      merged[key] = summaries.merge_sketches(np.concatenate(parts))
  return merged


def of_latents(sets: Sequence[SplitSet]) -> Statistics | None:
  """Statistics of latent motion: those of a label set, where it is the only one.

  Its entry must take all episodes and all labeled cameras. Otherwise None.
  """
  labeled = [opened for opened in sets if opened.motions]
  if len(labeled) != 1:
    return None
  (opened,) = labeled
  whole = not opened.entry.episodes and not opened.entry.tasks
  if not whole or not set(opened.labeled) <= set(opened.slots):
    return None
  return opened.motions.statistics if opened.motions else None
