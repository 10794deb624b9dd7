"""Which action dimensions are positions to go to rather than motions.

Legend: N samples, A action dimensions.

Most teleoperated data sets (SO-101, ALOHA) record absolute joint targets: the action is where the
joint is about to be, and no motion between two pictures tells it. Such a dimension is known by its
own state, and what moves is the action minus the state.
"""

import dataclasses

import numpy as np

TRACKS = 0.8  # share of an action's variance that the next state has to explain
LEAST = 20  # samples, to judge by


@dataclasses.dataclass(frozen=True)
class Positions:
  """Which dimensions are positions, and the state in the action's unit: scale * state + offset,
  each [A].
  """

  dimensions: np.ndarray  # bool
  scale: np.ndarray
  offset: np.ndarray

  def motion(self, action: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Actions [N, A] minus the states [N, A] at the same times where they are positions; the others
    as they are.
    """
    return np.where(self.dimensions, action - (self.scale * state + self.offset), action)


def detect(action: np.ndarray, following: np.ndarray, change: np.ndarray) -> Positions:
  """Compares each action dimension with the state that it would lead to.

  A dimension is a position where the following state explains at least `TRACKS` of its variance, by
  a line that rises (whatever the units), and more of it than the state's change does: a controller
  that steps towards a fixed goal falls, a velocity is told by the change. Where more than half of
  the moving dimensions are positions, all of them are: the others (a gripper that stops at what it
  holds) were recorded in the
    same way.

  Args:
    action: mean action of each sample [N, A].
    following: mean of the states one frame after each of these actions [N, A], 0 where a dimension
      has no state.
    change: of that state over the sample [N, A].
  """
  action, following, change = (
    np.asarray(values, np.float64) for values in (action, following, change)
  )
  size = action.shape[1]
  if len(action) < LEAST:
    return Positions(np.zeros(size, bool), np.ones(size), np.zeros(size))
  moving = (action.std(axis=0) > 1e-6) & (following.std(axis=0) > 1e-6)
  spread = np.where(moving, action.var(axis=0), 1.0)
  explained, scale = _line(following, action)
  tracks = moving & (scale > 0) & (explained >= TRACKS) & (explained > _line(change, action)[0])
  same_unit = 1 - ((action - following) ** 2).mean(axis=0) / spread >= TRACKS
  if 2 * tracks.sum() > moving.sum():
    same_unit = same_unit | (~tracks & (2 * (same_unit & tracks).sum() > tracks.sum()))
    tracks = moving
  scale = np.where(same_unit, 1.0, scale)
  offset = np.where(same_unit, 0.0, action.mean(axis=0) - scale * following.mean(axis=0))
  return Positions(tracks, scale, offset)


def _line(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(share of each output's variance that a line through its input explains, the slope of that
  line), each [A].
  """
  x, y = inputs - inputs.mean(axis=0), outputs - outputs.mean(axis=0)
  product, inside, outside = (x * y).sum(axis=0), (x**2).sum(axis=0), (y**2).sum(axis=0)
  both = inside * outside
  explained = np.divide(product**2, both, out=np.zeros_like(both), where=both > 0)
  return explained, np.divide(product, inside, out=np.zeros_like(both), where=inside > 0)
