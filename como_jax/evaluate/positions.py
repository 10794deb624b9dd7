"""Finds action dimensions that are target positions instead of motions.

Most teleoperated data sets (SO-101, ALOHA) record absolute joint targets: the action is the
position that the joint will have next. The motion between two pictures does not determine it. Such
a dimension is predicted by its own state, and the motion is the action minus the state.

Legend: N samples, A action dimensions.
"""

import dataclasses

import numpy as np

TRACKS = 0.8  # minimum share of an action's variance that the next state explains
MIN_SAMPLES = 20  # minimum number of samples


@dataclasses.dataclass(frozen=True)
class Positions:
  """Which action dimensions are positions, and how states map to actions.

  The state in the unit of the action is scale * state + offset.

  Attributes:
    dimensions: whether a dimension is a position, bool [A].
    scale: [A].
    offset: [A].
  """

  dimensions: np.ndarray
  scale: np.ndarray
  offset: np.ndarray

  def motion(self, action: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Subtracts the states from the actions in the dimensions that are positions.

    Args:
      action: [N, A].
      state: states at the same times [N, A].

    Returns:
      [N, A]; the other dimensions are unchanged.
    """
    return np.where(self.dimensions, action - (self.scale * state + self.offset), action)


def detect(action: np.ndarray, following: np.ndarray, change: np.ndarray) -> Positions:
  """Compares each action dimension with the state that follows the action.

  A dimension is a position if the following state explains at least `TRACKS` of its variance by a
  line with a positive slope (in any units), and more of it than the change of the state does. A
  controller that moves in steps to a fixed goal has a negative slope. A velocity is explained by
  the change.

  If more than half of the moving dimensions are positions, all of them are: the others (for example
  a gripper that stops at the object it holds) were recorded in the same way.

  Args:
    action: mean action of each sample [N, A].
    following: mean of the states one frame after each of these actions [N, A]; 0 if a dimension has
      no state.
    change: change of that state over the sample [N, A].
  """
  action, following, change = (
    np.asarray(values, np.float64) for values in (action, following, change)
  )
  size = action.shape[1]
  if len(action) < MIN_SAMPLES:
    return Positions(np.zeros(size, bool), np.ones(size), np.zeros(size))
  moving = (action.std(axis=0) > 1e-6) & (following.std(axis=0) > 1e-6)
  variance = np.where(moving, action.var(axis=0), 1.0)
  explained, scale = _line(following, action)
  tracks = moving & (scale > 0) & (explained >= TRACKS) & (explained > _line(change, action)[0])
  same_unit = 1 - ((action - following) ** 2).mean(axis=0) / variance >= TRACKS
  if 2 * tracks.sum() > moving.sum():
    same_unit = same_unit | (~tracks & (2 * (same_unit & tracks).sum() > tracks.sum()))
    tracks = moving
  scale = np.where(same_unit, 1.0, scale)
  offset = np.where(same_unit, 0.0, action.mean(axis=0) - scale * following.mean(axis=0))
  return Positions(tracks, scale, offset)


def _line(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Fits a line to each dimension: (share of the output's variance explained [A], slope [A])."""
  x, y = inputs - inputs.mean(axis=0), outputs - outputs.mean(axis=0)
  product, input_power, output_power = (x * y).sum(axis=0), (x**2).sum(axis=0), (y**2).sum(axis=0)
  power = input_power * output_power
  explained = np.divide(product**2, power, out=np.zeros_like(power), where=power > 0)
  return explained, np.divide(product, input_power, out=np.zeros_like(power), where=input_power > 0)
