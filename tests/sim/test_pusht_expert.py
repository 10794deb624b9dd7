"""The search for pushes, rule by rule: the T, what is tried, what is chosen, and the way there.

Nothing is simulated.
"""

import numpy as np
import pytest

from como_jax.sim import pusht_expert as expert

POSE = np.array([256.0, 256.0, 0.7])
UPRIGHT = np.array([256.0, 256.0, 0.0])


def nothing(start, pose, targets):
  return pose


def test_the_sides_go_around_the_bars():
  assert expert._BARS.tolist() == [[-60, 60, 0, 30], [-15, 15, 30, 120]]
  ends = [side[1] for side in expert._SIDES]
  assert [side[0] for side in expert._SIDES] == ends[-1:] + ends[
    :-1
  ] and expert._CORNERS.tolist() == [list(side[0]) for side in expert._SIDES]
  lengths = [abs(side[1][0] - side[0][0]) + abs(side[1][1] - side[0][1]) for side in expert._SIDES]
  assert lengths == [120, 30, 45, 90, 30, 90, 45, 30]
  for first, last, normal in expert._SIDES:
    middle = np.add(first, last) / 2
    outside = expert._to_board(
      np.stack([middle + np.multiply(normal, step) for step in (-1.0, 0.0, 2.0)]), POSE
    )
    np.testing.assert_allclose(expert._clearance(outside, POSE), [0, 0, 2], atol=1e-9)


def test_angles_turn_from_x_to_y():
  np.testing.assert_allclose(
    expert._turn(np.array([[1.0, 0.0], [0.0, 2.0]]), np.pi / 2), [[0, 1], [-2, 0]], atol=1e-12
  )
  np.testing.assert_allclose(
    expert._to_board(np.array([1.0, 0.0]), np.array([10.0, 20.0, np.pi / 2])), [10, 21]
  )


def test_the_cost_is_the_mean_distance_of_corners():
  goal = np.array([200.0, 100.0, 0.3])
  pusher = expert.Pusher(nothing, goal, seed=0)
  assert pusher._cost(goal) == 0 and pusher._cost(goal + [3, 4, 0]) == pytest.approx(5.0)
  corners = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)]
  )
  assert pusher._cost(goal + [0, 0, 0.2]) == pytest.approx(
    2 * np.sin(0.1) * np.linalg.norm(corners, axis=1).mean()
  )


def aside(clearance, length):
  """Ends of a way along the bar of the upright T."""
  start = np.array([226.0, 256.0 - clearance])
  return start, start + [length, 0.0]


@pytest.mark.parametrize(
  "clearance, length, free",
  [(16.5, 60, True), (16.4, 60, False), (10, 2, True), (10, 2.2, False), (10, 0, True)],
)
def test_a_way_keeps_its_distance_but_for_its_beginning(clearance, length, free):
  assert expert._free(*aside(clearance, length), UPRIGHT) is free


def test_a_way_may_leave_the_block_and_not_come_near():
  near, far = np.array([256.0, 251.0]), np.array([256.0, 231.0])
  assert expert._free(near, far, UPRIGHT) and not expert._free(far, near, UPRIGHT)


def test_a_straight_way_is_the_route_where_it_is_free():
  start, end = aside(20, 60)
  route = expert._route(start, end, UPRIGHT)
  assert len(route) == 1 and (route[0] == end).all()
  near, far = np.array([256.0, 251.0]), np.array([256.0, 231.0])
  assert [point.tolist() for point in expert._route(near, far, UPRIGHT)] == [far.tolist()], (
    "away from a block that is touched, not back"
  )
  assert expert._route(start, np.array([256.0, 266.0]), UPRIGHT) is None, "inside of the block"
  wall = np.array([420.0, 400.0, 0.3])
  assert (
    expert._route(*expert._to_board(np.array([(-50.0, 60.0), (50.0, 60.0)]), wall), wall) is None
  ), "between the block and the walls"


# The shortest ways: points between start and end. In the third the disc keeps within the walls.
ROUTES = [
  (
    [151.0, 97.0, 1.4],
    (34, 131),
    (-51, -45),
    [[86.344, 185.992], [170.361, 184.7], [192.145, 153.631]],
  ),
  (
    [313.0, 261.0, 5.2],
    (41, 75),
    (-164, 60),
    [[405.402, 261.2], [455.658, 307.353], [429.24, 338.519], [379.24, 374.846]],
  ),
  (
    [194.0, 408.0, 4.5],
    (123, -120),
    (-34, 60),
    [[202.2, 490.0], [233.101, 490.0], [268.368, 448.109]],
  ),
  ([256.0, 256.0, 2.0], (-90, 15), (90, 15), [[312.631, 214.855], [256.0, 326.0]]),
]


@pytest.mark.parametrize("pose, start, end, between", ROUTES)
def test_the_shortest_way_around(pose, start, end, between):
  pose = np.array(pose)
  start, end = expert._to_board(np.array([start, end], np.float64), pose)
  route = expert._route(start, end, pose)
  assert (route[-1] == end).all()
  np.testing.assert_allclose(route[:-1], between, atol=1e-3)
  assert all(expert._free(a, b, pose) for a, b in zip([start, *route], route, strict=False))


def candidates(pose, cost, seed=0):
  return list(expert.Pusher(nothing, UPRIGHT, seed)._candidates(np.array(pose), cost))


def test_pushes_begin_beside_the_block_and_go_straight_on():
  lengths = []
  for start, targets in candidates(POSE, 40.0):
    assert 16 <= expert._clearance(start[None], POSE)[0] <= 19 + 1e-9
    along = np.linalg.norm(targets - start, axis=1)
    directions = (targets - start) / along[:, None]
    np.testing.assert_allclose(directions, directions[:1].repeat(len(along), 0), atol=1e-9)
    np.testing.assert_allclose(along[:-5], 14.0 * np.arange(1, len(along) - 4))
    np.testing.assert_allclose(along[-5:], along[-1])
    assert len(along) == 5 or 0 < along[-1] - along[-6] <= 14
    assert (
      min(
        np.abs(
          np.arccos(
            np.clip(directions[0] @ -expert._turn(np.array(side[2], np.float64), 0.7), -1, 1)
          )
        )
        for side in expert._SIDES
      )
      <= 0.6
    )
    lengths.append(along[-1])
  assert len(lengths) > 60 and min(lengths) >= 5 and 60 < max(lengths) <= 4 + 100


@pytest.mark.parametrize("cost, longest", [(40.0, 100.0), (0.1, 8.0)])
def test_long_pushes_are_tried_only_far_from_the_goal(cost, longest):
  found = [np.linalg.norm(targets[-1] - start) for start, targets in candidates(POSE, cost)]
  assert 0.93 * longest < max(found) - 4 <= longest


# The pushes tried are a function of the seed: how many there are, means of starts and of last
# targets, and the range of targets.
TRIED = [
  ([60.0, 256.0, 0.4], 1, 63, [80.7479, 283.5411], [65.1015, 295.1052], 5.0, 374.0689),
  ([450.0, 440.0, 2.5], 2, 92, [412.6569, 400.9056], [415.6448, 404.8075], 266.6813, 507.0),
  ([256.0, 256.0, 5.0], 3, 109, [291.4404, 267.7326], [294.014, 272.9283], 178.2232, 400.5383),
]


@pytest.mark.parametrize("pose, seed, count, start, last, low, high", TRIED)
def test_pushes_are_those_of_the_seed(pose, seed, count, start, last, low, high):
  found = candidates(pose, 60.0, seed)
  assert len(found) == count
  np.testing.assert_allclose(np.mean([one for one, _ in found], axis=0), start, atol=1e-3)
  np.testing.assert_allclose(
    np.mean([targets[-1] for _, targets in found], axis=0), last, atol=1e-3
  )
  every = np.concatenate([targets for _, targets in found])
  assert (every.min(), every.max()) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def planned(monkeypatch, routes, push=nothing):
  """A pusher that has planned, with the routes [..., None: there is none] of the pushes, best
  first.
  """
  goal, asked, given = POSE + [40, 0, 0], [], iter(routes)
  monkeypatch.setattr(
    expert, "_route", lambda disc, start, pose: asked.append(start) or next(given)
  )
  tried = []

  def see(start, pose, targets):
    tried.append((push(start, pose, targets), start, targets))
    return tried[-1][0]

  pusher = expert.Pusher(see, goal, seed=4)
  pusher._waited = 9
  pusher._plan(np.array([100.0, 180.0]), POSE)
  return pusher, tried, asked


def test_the_best_push_that_can_be_reached_is_chosen(monkeypatch):
  def push(start, pose, targets):
    return pose + [*(targets[-1] - start) * 0.2, 0.0]

  route = [np.zeros(2)]
  pusher, tried, asked = planned(monkeypatch, [None, None, route], push)
  order = sorted(tried, key=lambda one: pusher._cost(one[0]))
  np.testing.assert_array_equal(asked, [start for _, start, _ in order[:3]])
  assert pusher._route is route and pusher._waited == 0
  np.testing.assert_array_equal(pusher._targets, order[2][2])
  assert isinstance(pusher._targets, list)


def test_among_equal_pushes_the_first_is_taken(monkeypatch):
  pusher, tried, asked = planned(monkeypatch, [[np.zeros(2)]])
  np.testing.assert_array_equal(pusher._targets, tried[0][2])


def test_a_disc_that_cannot_reach_anything_leaves_the_block_and_then_for_the_middle(monkeypatch):
  pusher, _, _ = planned(monkeypatch, iter(lambda: None, 0))
  away = (np.array([100.0, 180.0]) - POSE[:2]) / np.linalg.norm(np.array([100.0, 180.0]) - POSE[:2])
  np.testing.assert_allclose(pusher._targets, [np.array([100.0, 180.0]) + 30 * away, [256, 256]])
  pusher._plan(POSE[:2].copy(), POSE)
  np.testing.assert_allclose(pusher._targets, [POSE[:2], [256, 256]])


def underway(route, targets=((9.0, 9.0),)):
  pusher = expert.Pusher(nothing, POSE, seed=0)
  pusher._route, pusher._targets = (
    [np.array(point, np.float64) for point in route],
    [np.array(target) for target in targets],
  )
  return pusher


def test_the_disc_goes_36_pixels_at_a_time_to_each_point_of_its_route():
  pusher = underway([(100.0, 0.0), (100.0, 50.0)])
  np.testing.assert_allclose(pusher(np.array([0.0, 0.0]), POSE), [36, 0])
  np.testing.assert_allclose(pusher(np.array([88.0, 0.0]), POSE), [100, 0])  # 12 is not near
  np.testing.assert_allclose(
    pusher(np.array([89.0, 0.0]), POSE),
    np.array([89, 0]) + 36 * np.array([11, 50]) / np.hypot(11, 50),
  )
  # 1 is not at the end
  np.testing.assert_allclose(pusher(np.array([100.0, 49.0]), POSE), [100, 50])
  np.testing.assert_allclose(pusher(np.array([100.0, 49.1]), POSE), [9, 9])


def test_a_point_that_is_not_reached_in_25_steps_is_passed_over():
  pusher = underway([(100.0, 0.0), (100.0, 50.0)])
  disc = np.array([0.0, 0.0])
  found = [pusher(disc, POSE) for _ in range(51)]
  np.testing.assert_allclose(found[:25], [[36, 0]] * 25)
  there = 36 * np.array([100, 50]) / np.hypot(100, 50)
  np.testing.assert_allclose(found[25:50], [there] * 25)
  np.testing.assert_allclose(found[50], [9, 9])


def test_a_new_push_is_planned_when_the_last_is_over():
  pusher, planned = underway([], [(1.0, 2.0), (3.0, 4.0)]), []

  def plan(disc, pose):
    planned.append((disc.tolist(), pose.tolist()))
    pusher._targets = [np.array([5.0, 6.0])]

  pusher._plan = plan
  disc = np.array([50.0, 60.0])
  assert [pusher(disc, POSE).tolist() for _ in range(3)] == [
    [1, 2],
    [3, 4],
    [5, 6],
  ] and planned == [([50, 60], POSE.tolist())]


def test_clearance_is_the_distance_to_the_block():
  local = np.array([(0, 15), (0, 119), (0, -20), (90, 15), (45, 60), (-15, 130)], np.float64)
  expected = [0, 0, 20, 30, 30, 10]
  np.testing.assert_allclose(
    expert._clearance(expert._to_board(local, POSE), POSE), expected, atol=1e-9
  )


def test_routes_go_around_the_block():
  start, end = expert._to_board(np.array([(0.0, -60.0), (60.0, 80.0)]), POSE)
  assert not expert._free(start, end, POSE)
  points = [start, *expert._route(start, end, POSE)]
  np.testing.assert_array_equal(points[-1], end)
  assert len(points) > 2 and all(
    expert._free(a, b, POSE) for a, b in zip(points, points[1:], strict=False)
  )


def test_pushes_touch_the_block_from_outside_and_only_helpful_ones_are_chosen():
  goal, seen = POSE + [30, -20, 0.3], []

  def push(start, pose, targets):
    seen.append((start, targets))
    return pose + [*(targets[-1] - start) * 0.2, 0.0]

  pusher = expert.Pusher(push, goal, seed=0)
  pusher(np.array([100.0, 100.0]), POSE)
  starts = np.stack([start for start, _ in seen])
  clearance = expert._clearance(starts, POSE)
  assert len(seen) > 20 and clearance.min() > 16 and clearance.max() < 19.1
  chosen = pusher._targets[-1] - pusher._route[-1]
  assert chosen @ (goal - POSE)[:2] > 0
