"""Scripted pick-and-place for LIBERO goals "on" and "in": proportional control to waypoints.

Ours, not LIBERO's: the package ships no expert, and its published demonstrations were given by
people. The expert knows where the objects are, which a policy does not. Goals about drawers, doors
and knobs are not covered.
"""

import numpy as np

from como_jax import errors

GAIN = 12.0  # action a meter; 1.0 asks the controller for 5 cm
OPEN, CLOSED = -1.0, 1.0
_ABOVE = 0.12  # meters over the grasp
_LIFTED = 0.20  # meters over the place where the object lay
_CLOSING_STEPS, _OPENING_STEPS = 12, 10
# Grasps that are not at the middle of the object, meters: wide things are held at the rim.
_GRASPS = {
  "bowl": (0.0, 0.045, 0.015),
  "ramekin": (0.0, 0.04, 0.01),
  "plate": (0.0, 0.07, 0.01),
  "mug": (0.0, 0.0, 0.02),
}


class PickAndPlace:
  """Acts on one list of goals after another; `reset` before every episode."""

  def __init__(self, name: str, goals: list[list[str]]):
    """Args:
    name: simulator and task, for messages.
    goals: of the task's bddl file, for example [["in", "milk_1", "basket_1_contain_region"]].
    """
    self._name, self._goals = name, [tuple(goal) for goal in goals]
    self.reset()

  def reset(self) -> None:
    """Forgets the phase."""
    self._number, self._phase, self._count, self._lay = 0, "above", 0, None

  def __call__(self, hand: np.ndarray, place, satisfied) -> np.ndarray:
    """Action [7] for a hand [3] (meters); place: name -> position [3]; satisfied: goal -> bool.

    Raises:
      UserError: the task has a goal other than "on" and "in" an object.
    """
    for goal in self._goals:
      if len(goal) != 3 or goal[0].lower() not in ("on", "in"):
        raise errors.UserError(
          f"{self._name}: no scripted expert for the goal {' '.join(goal)!r}: only objects on "
          "and in others are covered"
        )
    if self._phase == "above":  # pick what is still to be done
      waiting = [i for i, goal in enumerate(self._goals) if not satisfied(goal)]
      self._number = waiting[0] if waiting else self._number
    _, thing, target = self._goals[self._number]
    return self._act(
      np.asarray(hand), np.asarray(place(thing)), np.asarray(place(target)), _grasp(thing)
    )

  def _act(self, hand, thing, target, grasp) -> np.ndarray:
    point = thing + grasp
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
        self._lay = thing.copy()
        self._enter("lift")
      return self._counted(_towards(hand, hand, CLOSED))
    if self._phase in ("lift", "carry", "lower") and np.linalg.norm(thing - hand) > 0.15:  # lost it
      self._enter("above")
      return _towards(hand, hand + [0, 0, 0.05], OPEN)
    if self._phase == "lift":
      if thing[2] > self._lay[2] + _LIFTED - 0.03 or self._count > 60:
        self._enter("carry")
      return self._counted(_towards(hand, hand + [0, 0, self._lay[2] + _LIFTED - thing[2]], CLOSED))
    above = hand + np.append((target - thing)[:2], 0)
    if self._phase == "carry":
      if np.linalg.norm((target - thing)[:2]) < 0.012 or self._count > 120:
        self._enter("lower")
      return self._counted(_towards(hand, above, CLOSED))
    if self._phase == "lower":
      if thing[2] - target[2] < 0.035 or self._count > 45:
        self._enter("open")
      return self._counted(
        _towards(hand, above + [0, 0, min(target[2] + 0.02 - thing[2], -0.02)], CLOSED)
      )
    if self._count >= _OPENING_STEPS + 25:  # released and risen, yet not there: try again
      self._enter("above")
    rise = [0, 0, 0.06 if self._count > _OPENING_STEPS else 0.0]
    return self._counted(_towards(hand, hand + rise, OPEN))

  def _enter(self, phase: str) -> None:
    self._phase, self._count = phase, 0

  def _counted(self, action: np.ndarray) -> np.ndarray:
    self._count += 1
    return action


def _grasp(thing: str) -> np.ndarray:
  return np.array(
    next((offset for word, offset in _GRASPS.items() if word in thing), (0.0, 0.0, 0.0))
  )


def _towards(hand, target, gripper: float) -> np.ndarray:
  move = np.clip((np.asarray(target) - hand) * GAIN, -1, 1)
  return np.concatenate([move, np.zeros(3), [gripper]]).astype(np.float32)
