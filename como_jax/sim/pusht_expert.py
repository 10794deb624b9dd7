"""Scripted expert for Push-T: tries pushes in a copy of the simulator and carries out the best one,
again and again.

A push starts at rest beside the block and goes straight on for some distance. Which is best is
decided by the mean distance of the block's corners to those of the goal. Between pushes the disc
goes around the block. Positions and distances are pixels of the 512 x 512 board.
"""

from collections.abc import Callable

import numpy as np

RADIUS = 15.0  # of the disc
_LOW, _HIGH = 22.0, 490.0  # where the disc's center can be
_GAP = 4.0  # between disc and block when a push starts
_CLEAR = RADIUS + 1.5  # distance kept from the block on the way
_ADVANCE = 14.0  # of the target each control step while pushing
_STRIDE = 36.0  # of the target each control step on the way
_SETTLE = 5  # control steps at the end of a push
_TRIED = 120  # pushes tried for each one carried out
# The T in its own frame: two rectangles as (x low, x high, y low, y high) around the origin of the
# body.
_BARS = np.array([(-60.0, 60.0, 0.0, 30.0), (-15.0, 15.0, 30.0, 120.0)])
# Sides that can be touched: start, end and outward normal.
_SIDES = (
  ((-60, 0), (60, 0), (0, -1)),
  ((60, 0), (60, 30), (1, 0)),
  ((60, 30), (15, 30), (0, 1)),
  ((15, 30), (15, 120), (1, 0)),
  ((15, 120), (-15, 120), (0, 1)),
  ((-15, 120), (-15, 30), (-1, 0)),
  ((-15, 30), (-60, 30), (0, 1)),
  ((-60, 30), (-60, 0), (-1, 0)),
)
_CORNERS = np.array([side[0] for side in _SIDES], np.float64)


class Pusher:
  """The expert of one episode. Its choices are a function of the seed and of what it is shown."""

  def __init__(
    self,
    push: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    goal: np.ndarray,
    seed: int,
  ):
    """Args:
    push: (disc [2], block pose [3], targets [N, 2]) -> block pose [3] after them.
    goal: x, y, angle.
    seed: of the pushes that are tried.
    """
    self._push, self._goal, self._rng = (
      push,
      np.asarray(goal, np.float64),
      np.random.default_rng([104729, seed]),
    )
    self._route: list[np.ndarray] = []
    self._targets: list[np.ndarray] = []
    self._waited = 0

  def __call__(self, disc: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Target [2] for a disc at [2] and a block at x, y, angle."""
    if not self._route and not self._targets:
      self._plan(disc, pose)
    if self._route:
      way = self._route[0] - disc
      distance, last = np.linalg.norm(way), len(self._route) == 1
      self._waited += 1
      if distance < (1.0 if last else 12.0) or self._waited > 25:
        self._route.pop(0)
        self._waited = 0
        return self(disc, pose)
      return disc + way * min(1.0, _STRIDE / distance)
    return self._targets.pop(0)

  def _plan(self, disc: np.ndarray, pose: np.ndarray) -> None:
    """Sets the route to the start of the best push that can be reached, and its targets."""
    now = self._cost(pose)
    tried = []
    for start, targets in self._candidates(pose, now):
      tried.append((self._cost(self._push(start, pose, targets)), len(tried), start, targets))
    tried.sort()
    for _, _, start, targets in tried:
      route = _route(disc, start, pose)
      if route is not None:
        self._route, self._targets, self._waited = route, list(targets), 0
        return
    center = np.full(2, 256.0)
    self._targets = [
      disc + (disc - pose[:2]) / max(np.linalg.norm(disc - pose[:2]), 1e-6) * 30,
      center,
    ]

  def _candidates(self, pose: np.ndarray, cost: float):
    """Starts [2] and targets [N, 2] of random pushes; long ones only while the block is far from
    the goal.
    """
    lengths = np.array([np.hypot(*np.subtract(side[1], side[0])) for side in _SIDES])
    found = 0
    while found < _TRIED:
      side = self._rng.choice(len(_SIDES), p=lengths / lengths.sum())
      first, last, normal = (np.array(part, np.float64) for part in _SIDES[side])
      point = first + self._rng.uniform(0.05, 0.95) * (last - first)
      tilt, depth = (
        self._rng.uniform(-0.6, 0.6),
        np.exp(self._rng.uniform(0, np.log(max(8.0, 2.5 * cost)))),
      )
      start = _to_board(point + normal * (RADIUS + _GAP), pose)
      found += 1
      if (
        (start < _LOW).any()
        or (start > _HIGH).any()
        or _clearance(start[None], pose)[0] < RADIUS + 1
      ):
        continue
      direction = _turn(-normal, pose[2] + tilt)
      length = _GAP + depth
      steps = np.append(np.arange(_ADVANCE, length, _ADVANCE), np.full(_SETTLE, length))
      yield start, np.clip(start + steps[:, None] * direction, 5, 507)

  def _cost(self, pose: np.ndarray) -> float:
    return float(
      np.linalg.norm(_to_board(_CORNERS, pose) - _to_board(_CORNERS, self._goal), axis=1).mean()
    )


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
  c, s = np.cos(angle), np.sin(angle)
  return points @ np.array([[c, s], [-s, c]])


def _to_board(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
  """[..., 2] from the frame of a block to the board."""
  return _turn(points, pose[2]) + pose[:2]


def _clearance(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
  """Distance [N] of points [N, 2] to the block; 0 inside."""
  local = _turn(points - pose[:2], -pose[2])
  low, high = _BARS[:, None, 0::2], _BARS[:, None, 1::2]
  outside = np.maximum(np.maximum(low - local[None], local[None] - high), 0)
  return np.linalg.norm(outside, axis=-1).min(axis=0)


def _free(start: np.ndarray, end: np.ndarray, pose: np.ndarray) -> bool:
  """Whether the disc can go straight; near its start it may be as close to the block as it is."""
  length = np.linalg.norm(end - start)
  along = np.linspace(0, length, max(2, int(length / 4)))
  clear = _clearance(start + along[:, None] * (end - start) / max(length, 1e-6), pose)
  return bool((clear >= np.minimum(_CLEAR, clear[0] - 1 + 0.5 * along)).all())


def _route(start: np.ndarray, end: np.ndarray, pose: np.ndarray) -> list[np.ndarray] | None:
  """Points from start (left out) to end around the block, shortest way (Dijkstra); None when there
  is none.
  """
  angles = np.arange(0, 2 * np.pi, np.pi / 10)
  rings = [
    pose[:2] + r * np.stack([np.cos(angles), np.sin(angles)], -1) for r in (70.0, 110.0, 150.0)
  ]
  middle = _to_board(np.array([0.0, 40.0]), pose)
  rings += [
    middle + r * np.stack([np.cos(angles), np.sin(angles)], -1) for r in (60.0, 100.0, 130.0)
  ]
  points = np.clip(np.concatenate(rings), _LOW, _HIGH)
  points = [start, end, *points[_clearance(points, pose) > _CLEAR + 1]]
  distance, before, todo = {0: 0.0}, {}, set(range(len(points)))
  while todo:
    here = min(todo, key=lambda i: distance.get(i, np.inf))
    if here not in distance or here == 1:
      break
    todo.remove(here)
    for other in todo:
      through = distance[here] + np.linalg.norm(points[other] - points[here])
      if through < distance.get(other, np.inf) and _free(points[here], points[other], pose):
        distance[other], before[other] = through, here
  if 1 not in distance:
    return None
  route = [1]
  while before[route[0]]:
    route.insert(0, before[route[0]])
  return [points[i] for i in route]
