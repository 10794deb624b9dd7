"""Scripted pick-and-place for LIBERO goals "on" and "in": proportional control to waypoints.

This expert is ours. LIBERO ships no expert, and people recorded its published demonstrations. The
expert knows the positions of the objects; a policy does not. Goals about drawers, doors and knobs
are not covered.
"""

import numpy as np

from como_jax import errors

GAIN = 12.0  # action per meter; 1.0 commands a move of 5 cm
OPEN, CLOSED = -1.0, 1.0
_ABOVE = 0.12  # meters above the grasp point
_LIFTED = 0.20  # meters above the position where the object lay
_CLOSING_STEPS, _OPENING_STEPS = 12, 10
# Grasps that are not at the center of the object, meters: wide objects are held at the rim.
_GRASPS = {
  "bowl": (0.0, 0.045, 0.015),
  "ramekin": (0.0, 0.04, 0.01),
  "plate": (0.0, 0.07, 0.01),
  "mug": (0.0, 0.0, 0.02),
}


class PickAndPlace:
  """Reaches the goals of a task one after another; call `reset` before every episode."""

  def __init__(self, name: str, goals: list[list[str]]):
    """Initializes the expert of one task.

    Args:
      name: simulator and task, for messages.
      goals: of the task's bddl file, for example [["in", "milk_1", "basket_1_contain_region"]].
    """
    self._name, self._goals = name, [tuple(goal) for goal in goals]
    self.reset()

  def reset(self) -> None:
    """Starts again with the first phase of the first goal."""
    self._goal_index, self._phase, self._count = 0, "above", 0
    self._grasped_at = np.zeros(3)  # where the object lay; set before the phase "lift"

  def __call__(self, hand: np.ndarray, position, satisfied) -> np.ndarray:
    """Returns the next action [7].

    Args:
      hand: [3], position of the hand, meters.
      position: name of an object or a region -> its position [3], meters.
      satisfied: goal -> whether it is reached.

    Raises:
      UserError: the task has a goal other than "on" and "in" an object.
    """
    for goal in self._goals:
      if len(goal) != 3 or goal[0].lower() not in ("on", "in"):
        raise errors.UserError(
          f"{self._name}: no scripted expert for the goal {' '.join(goal)!r}: only objects on "
          "and in others are covered"
        )
    if self._phase == "above":  # choose a goal that is not yet reached
      open_goals = [i for i, goal in enumerate(self._goals) if not satisfied(goal)]
      self._goal_index = open_goals[0] if open_goals else self._goal_index
    _, item, target = self._goals[self._goal_index]
    return self._act(
      np.asarray(hand), np.asarray(position(item)), np.asarray(position(target)), _grasp(item)
    )

  def _act(self, hand, item, target, grasp) -> np.ndarray:
    """Action [7] of the current phase; all positions are [3], meters."""
    point = item + grasp
    across = np.linalg.norm((hand - point)[:2])
    if self._phase == "above":
      if across < 0.012 and hand[2] < point[2] + _ABOVE + 0.03:
        self._enter("descend")
      else:
        return _towards(hand, point + [0, 0, _ABOVE], OPEN)
    if self._phase == "descend":
      if across > 0.035:
        self._enter("above")
      elif hand[2] - point[2] < 0.008 or self._count > 40:
        self._enter("close")
      return self._counted(_towards(hand, point, OPEN))
    if self._phase == "close":
      if self._count >= _CLOSING_STEPS:
        self._grasped_at = item.copy()
        self._enter("lift")
      return self._counted(_towards(hand, hand, CLOSED))
    if self._phase in ("lift", "carry", "lower") and np.linalg.norm(item - hand) > 0.15:
      self._enter("above")  # the object was lost
      return _towards(hand, hand + [0, 0, 0.05], OPEN)
    if self._phase == "lift":
      if item[2] > self._grasped_at[2] + _LIFTED - 0.03 or self._count > 60:
        self._enter("carry")
      return self._counted(
        _towards(hand, hand + [0, 0, self._grasped_at[2] + _LIFTED - item[2]], CLOSED)
      )
    above = hand + np.append((target - item)[:2], 0)
    if self._phase == "carry":
      if np.linalg.norm((target - item)[:2]) < 0.012 or self._count > 120:
        self._enter("lower")
      return self._counted(_towards(hand, above, CLOSED))
    if self._phase == "lower":
      if item[2] - target[2] < 0.035 or self._count > 45:
        self._enter("open")
      return self._counted(
        _towards(hand, above + [0, 0, min(target[2] + 0.02 - item[2], -0.02)], CLOSED)
      )
    if self._count >= _OPENING_STEPS + 25:  # released and risen, but not at the target: try again
      self._enter("above")
    rise = [0, 0, 0.06 if self._count > _OPENING_STEPS else 0.0]
    return self._counted(_towards(hand, hand + rise, OPEN))

  def _enter(self, phase: str) -> None:
    self._phase, self._count = phase, 0

  def _counted(self, action: np.ndarray) -> np.ndarray:
    self._count += 1
    return action


def _grasp(item: str) -> np.ndarray:
  """Offset [3] of the grasp point from the object's position, meters."""
  return np.array(
    next((offset for word, offset in _GRASPS.items() if word in item), (0.0, 0.0, 0.0))
  )


def _towards(hand, target, gripper: float) -> np.ndarray:
  move = np.clip((np.asarray(target) - hand) * GAIN, -1, 1)
  return np.concatenate([move, np.zeros(3), [gripper]]).astype(np.float32)
