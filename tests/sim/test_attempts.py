"""Collection from the toy simulator: which attempts are made, and what is stored of them."""

import dataclasses
import types

import numpy as np
import pytest

from como_jax import errors, sim
from como_jax.observations import STATE
from como_jax.sim import base, collect
from tests.sim import toys

SETTINGS = collect.Settings(
  simulator="toy",
  cameras=("front", "side"),
  cameras_per_episode=0,
  image_size=6,
  scenes=(0, 1, 2),
  repeated=1,
  motions=2,
  stride=4,
  tail=6,
  noise=0.0,
  correlation=0.0,
  speed=(1.0, 1.0),
  wander=(0, 0),
  max_steps=150,
  attempts=3,
  seed=5,
)


class Toy(toys.Toy):
  """Of the task "line" a start is up to 0.9 from the goal; "far" takes 148 steps of 0.01 from a
  start of 0.01, 149 from 0. A scene's number is a step of brightness.
  """

  def __init__(self, task, cameras, image_size, **changes):
    super().__init__(task, cameras, image_size, 1.0, **{"move": (0,), "gripper": (1,), **changes})
    self.restarts, self.closed = [], 0

  def _restart(self, seed, scene):
    self.restarts.append((seed, scene))
    super()._restart(seed % (90 if self._task == "line" else 2), scene / 2)

  def _advance(self, action):
    self._position += 0.01 * float(action[0])
    return self._position >= (1 if self._task == "line" else 1.485) - 1e-6

  def close(self):
    self.closed += 1


@pytest.fixture
def built(monkeypatch):
  """Every simulator that was built."""
  found = []

  def build(task, *, cameras=(), image_size=8, speed=1.0, fixed=True):
    base.check("toy", task, toys.TASKS, cameras, toys.CAMERAS, 1)
    found.append(Toy(task, cameras, image_size, **({} if fixed else {"initial_states": 0})))
    found[-1].given = (cameras, image_size, speed)
    return found[-1]

  monkeypatch.setitem(
    sim.SIMULATORS, "toy", lambda: types.SimpleNamespace(build=build, TASKS=toys.TASKS)
  )
  return found


def change(**changes):
  return dataclasses.replace(SETTINGS, **changes)


def seeds(number, attempt):
  """(the simulator's seed, the generator that goes on) of an attempt."""
  draw = np.random.default_rng((SETTINGS.seed, number, attempt))
  return int(draw.integers(2**31)), draw


def test_episodes_and_their_facts(built):
  first, second, third, fourth, tally = collect.collect_task(SETTINGS, "line")
  assert tally == collect.Tally("line", attempts=2, successes=2)
  (one,) = built
  assert one.closed == 1 and one.given == (("front", "side"), 6, 1.0)
  (a, _), (b, _) = seeds(0, 0), seeds(0, 1)
  assert one.restarts == [(a, 0)] * 2 + [(a, 1)] * 2 + [(a, 2)] * 2 + [(b, 1)] * 2, (
    "each rehearsed blind, then seen"
  )
  assert [episode.metadata["scene"] for episode in (first, second, third, fourth)] == [0, 1, 2, 1]
  assert first.metadata == {
    "scene": 0,
    "motion": "line/00000",
    "simulator_task": "line",
    "simulator_seed": a,
    "speed": 1.0,
    "initial_state": a % 50,
    "camera/front": "front",
    "camera/side": "side",
  }
  assert fourth.metadata["motion"] == "line/00001" and fourth.instruction == "go to one"
  steps = 100 - a % 90  # to the goal; then 6 more, in frames of 4 steps
  length = -(-steps // 4) + 1
  assert len(first.action) == len(first.state) == len(first.success) == length and set(
    first.frames
  ) == {"front", "side"}
  assert first.action.dtype == first.state.dtype == np.float32
  np.testing.assert_allclose(first.action, [[1, 0]] * length)
  np.testing.assert_allclose(first.state[:, 0], a % 90 / 100 + 0.04 * np.arange(length), atol=1e-5)
  assert first.success.tolist() == [False] * (length - 2) + [True] * 2
  assert first.frames["front"].shape == (length, 6, 6, 3) and first.frames["front"][
    :, 0, 0, 0
  ].tolist() == list(range(0, 4 * length, 4))
  assert [episode.frames["front"][0, 1, 1, 0] for episode in (first, second, third)] == [
    100,
    125,
    150,
  ]


def test_a_seed_that_is_sampled_is_no_initial_state(built):
  first, _ = collect.collect_task(
    change(motions=1, repeated=0, build={"fixed": False, "speed": 2.0}), "line"
  )
  assert "initial_state" not in first.metadata and built[0].given[2] == 2.0


def test_a_task_that_has_another_name_in_the_table_counts_as_the_first(built, monkeypatch):
  module = sim.load("toy")
  monkeypatch.setitem(
    sim.SIMULATORS, "toy", lambda: types.SimpleNamespace(build=module.build, TASKS={"far": "go"})
  )
  first, _ = collect.collect_task(change(motions=1, repeated=0), "line")
  assert first.metadata["simulator_seed"] == seeds(0, 0)[0]


def test_disturbances_are_drawn_after_the_views(built):
  first, _ = collect.collect_task(change(motions=1, repeated=0, speed=(0.5, 1.0)), "line")
  _, draw = seeds(0, 0)
  draw.permutation(2)
  assert first.metadata["speed"] == np.random.default_rng(int(draw.integers(2**31))).uniform(
    0.5, 1.0
  )


def test_views_are_drawn_for_each_motion(built):
  *episodes, _ = collect.collect_task(
    change(cameras_per_episode=1, repeated=0, motions=6, scenes=(0,)), "line"
  )
  drawn = [SETTINGS.cameras[seeds(0, attempt)[1].permutation(2)[0]] for attempt in range(6)]
  assert [episode.metadata["camera/view0"] for episode in episodes] == drawn and set(drawn) == {
    "front",
    "side",
  }
  assert all(set(episode.frames) == {"view0"} for episode in episodes)
  assert [episode.frames["view0"][0, 1, 1, 0] for episode in episodes] == [
    {"front": 100, "side": 200}[camera] for camera in drawn
  ]


def test_what_fails_is_attempted_again_and_given_up(built):
  """The task "far", number 1, succeeds with odd seeds alone: 148 steps are 37 frames, and another
  frame would be too long.
  """
  settings = change(motions=2, repeated=2, scenes=(0, 1), attempts=2)
  *episodes, tally = collect.collect_task(settings, "far")
  good = [attempt for attempt in range(4) if seeds(1, attempt)[0] % 2]
  assert tally.attempts == (good[1] + 1 if len(good) > 1 else 4) and tally.successes == min(
    2, len(good)
  )
  assert [episode.metadata["motion"] for episode in episodes] == [
    f"far/{attempt:05d}" for attempt in good[:2] for _ in range(2)
  ]
  assert len(built[0].restarts) == 4 * tally.successes + (tally.attempts - tally.successes), (
    "failures are not repeated in other scenes"
  )
  assert list(collect.collect_task(change(motions=1, max_steps=4), "far")) == [
    collect.Tally("far", attempts=3, successes=0)
  ]


def test_motions_take_scenes_in_turn_where_they_are_not_repeated():
  one = change(repeated=2, motions=5)
  assert [collect._scenes(one, 0, motion) for motion in range(5)] == [
    (0, 1, 2),
    (0, 1, 2),
    (2,),
    (0,),
    (1,),
  ]
  assert [collect._scenes(one, 1, motion) for motion in (2, 3)] == [(1,), (2,)]


def test_frozen_pictures_name_simulator_seed_and_camera(built, monkeypatch):
  monkeypatch.setattr(Toy, "_frame", lambda self, camera: np.zeros((8, 8, 3), np.uint8))
  with pytest.raises(
    errors.UserError,
    match=rf"^toy/line seed {seeds(0, 0)[0]} camera front: frame 0 of \d+ is of a single color",
  ):
    list(collect.collect_task(SETTINGS, "line"))


# with and without time for the tail
@pytest.mark.parametrize("limit", [150, 4 * -(-(100 - seeds(0, 0)[0] % 90) // 4)])
def test_a_motion_that_succeeds_only_unseen_is_not_stored(built, monkeypatch, limit):
  observe = Toy.observe

  def disturb(self, cameras=None):
    if cameras:
      self._position -= 1
    return observe(self, cameras)

  monkeypatch.setattr(Toy, "observe", disturb)
  assert list(collect.collect_task(change(attempts=1, motions=1, max_steps=limit), "line")) == [
    collect.Tally("line", 1, 0)
  ]


@pytest.mark.parametrize("limit, steps", [(11, 8), (12, 12), (400, 200)])
def test_an_attempt_ends_when_another_frame_would_be_too_long(limit, steps):
  one, actions = Toy("far", (), 8), iter(range(1000))
  one.restart(0)
  rows = collect._play(
    change(max_steps=limit), one, lambda: np.float32([next(actions) / -1000, 1]), ()
  )
  assert one._steps == steps and len(rows) == steps // 4
  assert rows[1].action.tolist() == [np.float32(-5.5 / 1000), 1] and rows[1].observation[STATE][
    0
  ] == pytest.approx(-6e-5)


@pytest.mark.parametrize("tail, frames", [(3, 1), (4, 2), (8, 3)])
def test_a_tail_is_control_steps_after_success(tail, frames):
  one = Toy("line", (), 8)
  one.restart(89)
  rows = collect._play(change(tail=tail, stride=11), one, lambda: np.float32([1, 0]), ())
  assert len(rows) == 1
  one.restart(89)
  rows = collect._play(change(tail=tail), one, lambda: np.float32([1, 0]), ())
  assert [row.success for row in rows] == [False, False] + [True] * frames


def test_build_takes_what_the_simulator_has():
  """Beside what the collection gives itself."""
  monkey = pytest.MonkeyPatch()
  with monkey.context() as patch:
    patch.setitem(sim.SIMULATORS, "toy", lambda: toys)
    assert isinstance(collect.build(change(build={"speed": 2.0}), "line"), toys.Toy)
    for name in ("task", "cameras", "image_size", "sped"):
      with pytest.raises(errors.UserError) as caught:
        collect.build(change(build={name: 1}), "line")
      valid = ("cameras", "image_size", "stride", "scene", "speed")
      assert (
        str(caught.value) == f"collect.build: toy has no {name!r}: {errors.nearest(name, valid)}"
      )


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"cameras": ()}, "collect: at least one camera and one scene are needed"),
    ({"scenes": ()}, "collect: at least one camera and one scene are needed"),
    (
      {"cameras_per_episode": 3},
      "cameras_per_episode = 3: expected 0 (all) to 2, the cameras listed",
    ),
    (
      {"cameras_per_episode": -1},
      "cameras_per_episode = -1: expected 0 (all) to 2, the cameras listed",
    ),
    ({"motions": 0}, "motions = 0: expected at least 1"),
    ({"stride": 0}, "stride = 0: expected at least 1"),
    ({"max_steps": 3}, "max_steps = 3: expected at least 4"),
    ({"attempts": 0}, "attempts = 0: expected at least 1"),
  ],
)
def test_the_ends_of_settings(changes, message):
  with pytest.raises(errors.UserError) as caught:
    change(**changes)
  assert str(caught.value) == message
  least = change(cameras_per_episode=2, motions=1, stride=1, max_steps=1, attempts=1)
  assert (
    least.actions
    and least.build == {}
    and least.views == ("view0", "view1")
    and SETTINGS.views == ("front", "side")
  )
