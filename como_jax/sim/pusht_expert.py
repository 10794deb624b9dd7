"""Scripted expert for Push-T: a search over pushes.

The expert repeats two steps: it tries pushes in a copy of the simulator, then it executes the best
one. A push starts at rest beside the block and moves the disc along a straight line. The best push
gives the smallest mean distance between the block's corners and those of the goal. Between pushes
the disc moves around the block. Positions and distances are pixels of the 512 x 512 board.
"""

from collections.abc import Callable

import numpy as np

RADIUS = 15.0  # of the disc
_LOW, _HIGH = 22.0, 490.0  # range of the disc's center
_GAP = 4.0  # between disc and block when a push starts
_CLEAR = RADIUS + 1.5  # minimum distance from the block along a route
_ADVANCE = 14.0  # step of the target per control step during a push
_STRIDE = 36.0  # step of the target per control step along a route
_SETTLE = 5  # control steps at the end of a push
_TRIED = 120  # pushes tried for each executed push
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
  """The expert of one episode; its actions depend on the seed and on its inputs only."""

  def __init__(
    self,
    push: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    goal: np.ndarray,
    seed: int,
  ):
    """Initializes the expert of one episode.

    Args:
      push: (disc [2], block pose [3], targets [N, 2]) -> block pose [3] after the push.
      goal: pose [3] of the goal: x, y, angle.
      seed: of the pushes to try.
    """
    self._push, self._goal = push, np.asarray(goal, np.float64)
    self._rng = np.random.default_rng([104729, seed])
    self._route: list[np.ndarray] = []
    self._targets: list[np.ndarray] = []
    self._waited = 0

  def __call__(self, disc: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Returns the next target [2].

    Args:
      disc: [2], position of the disc.
      pose: [3], x, y, angle of the block.
    """
    if not self._route and not self._targets:
      self._plan(disc, pose)
    if self._route:
      to_point = self._route[0] - disc
      distance, last = np.linalg.norm(to_point), len(self._route) == 1
      self._waited += 1
      if distance < (1.0 if last else 12.0) or self._waited > 25:
        self._route.pop(0)
        self._waited = 0
        return self(disc, pose)
      return disc + to_point * min(1.0, _STRIDE / distance)
    return self._targets.pop(0)

  def _plan(self, disc: np.ndarray, pose: np.ndarray) -> None:
    """Chooses the best push whose start can be reached; sets its route and its targets."""
    pushes = []
    for start, targets in self._candidates(pose, self._cost(pose)):
      pushes.append((self._cost(self._push(start, pose, targets)), len(pushes), start, targets))
    pushes.sort()
    for _, _, start, targets in pushes:
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
    """Yields starts [2] and targets [N, 2] of random pushes.

    The length of the pushes is limited by `cost`, the block's distance from the goal.
    """
    lengths = np.array([np.hypot(*np.subtract(side[1], side[0])) for side in _SIDES])
    count = 0
    while count < _TRIED:
      side = self._rng.choice(len(_SIDES), p=lengths / lengths.sum())
      first, last, normal = (np.array(part, np.float64) for part in _SIDES[side])
      point = first + self._rng.uniform(0.05, 0.95) * (last - first)
      tilt = self._rng.uniform(-0.6, 0.6)
      depth = np.exp(self._rng.uniform(0, np.log(max(8.0, 2.5 * cost))))
      start = _to_board(point + normal * (RADIUS + _GAP), pose)
      count += 1
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
  """Transforms points [..., 2] from the frame of a block at `pose` [3] to the board."""
  return _turn(points, pose[2]) + pose[:2]


def _clearance(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
  """Distance [N] of points [N, 2] to the block; 0 inside."""
  local = _turn(points - pose[:2], -pose[2])
  low, high = _BARS[:, None, 0::2], _BARS[:, None, 1::2]
  outside = np.maximum(np.maximum(low - local[None], local[None] - high), 0)
  return np.linalg.norm(outside, axis=-1).min(axis=0)


def _free(start: np.ndarray, end: np.ndarray, pose: np.ndarray) -> bool:
  """Whether the disc can move straight; near its start it may be closer to the block."""
  length = np.linalg.norm(end - start)
  along = np.linspace(0, length, max(2, int(length / 4)))
  clear = _clearance(start + along[:, None] * (end - start) / max(length, 1e-6), pose)
  return bool((clear >= np.minimum(_CLEAR, clear[0] - 1 + 0.5 * along)).all())


def _route(start: np.ndarray, end: np.ndarray, pose: np.ndarray) -> list[np.ndarray] | None:
  """Finds the shortest route around the block (Dijkstra's algorithm).

  Returns:
    Points [2] after `start`, up to and including `end`; None when there is no route.
  """
  angles = np.arange(0, 2 * np.pi, np.pi / 10)
  rings = [
    pose[:2] + r * np.stack([np.cos(angles), np.sin(angles)], -1) for r in (70.0, 110.0, 150.0)
  ]
  center = _to_board(np.array([0.0, 40.0]), pose)
  rings += [
    center + r * np.stack([np.cos(angles), np.sin(angles)], -1) for r in (60.0, 100.0, 130.0)
  ]
  points = np.clip(np.concatenate(rings), _LOW, _HIGH)
  points = [start, end, *points[_clearance(points, pose) > _CLEAR + 1]]
  distance, previous, unvisited = {0: 0.0}, {}, set(range(len(points)))
  while unvisited:
    node = min(unvisited, key=lambda i: distance.get(i, np.inf))
    if node not in distance or node == 1:
      break
    unvisited.remove(node)
    for neighbor in unvisited:
      through = distance[node] + float(np.linalg.norm(points[neighbor] - points[node]))
      if through < distance.get(neighbor, np.inf) and _free(points[node], points[neighbor], pose):
        distance[neighbor], previous[neighbor] = through, node
  if 1 not in distance:
    return None
  route = [1]
  while previous[route[0]]:
    route.insert(0, previous[route[0]])
  return [points[i] for i in route]
