"""Collection from a simulator's experts: what is stored, and that it can be repeated."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from pyarrow import parquet

from como_jax import errors
from como_jax.observations import STATE
from como_jax.sim import actor, base, collect

SETTINGS = collect.Settings(
  simulator="metaworld",
  cameras=("corner4", "corner", "topview"),
  cameras_per_episode=2,
  image_size=32,
  scenes=(0, 1),
  repeated=1,
  motions=2,
  stride=4,
  tail=4,
  noise=0.1,
  correlation=0.8,
  speed=(0.8, 1.0),
  wander=(0, 8),
  max_steps=300,
  attempts=3,
  seed=0,
)


def needs_metaworld():
  if importlib.util.find_spec("metaworld") is None:
    pytest.skip("pip install -r requirements-sim.txt")


@pytest.mark.sim
def test_episodes_of_one_task():
  needs_metaworld()
  *episodes, tally = collect.collect_task(SETTINGS, "drawer-close")
  assert tally.successes == 2 and len(episodes) == 3, (
    "the first motion in both scenes, the second in one"
  )
  first, again, other = episodes
  np.testing.assert_array_equal(first.action, again.action)
  np.testing.assert_array_equal(first.state, again.state)
  assert first.metadata["motion"] == again.metadata["motion"] != other.metadata["motion"]
  assert [e.metadata["scene"] for e in episodes] == [0, 1, 1]
  for episode in episodes:
    length = len(episode.action)
    assert (
      set(episode.frames) == {"view0", "view1"} and episode.success[-1] and not episode.success[0]
    )
    assert all(frames.shape == (length, 32, 32, 3) for frames in episode.frames.values())
    assert episode.metadata["camera/view0"] != episode.metadata["camera/view1"]
    moved = episode.state[1:, :3] - episode.state[:-1, :3]
    assert np.corrcoef(np.ravel(episode.action[:-1, :3]), np.ravel(moved))[0, 1] > 0.5, (
      "actions belong to their frames"
    )
  assert np.abs(first.frames["view0"].astype(int) - again.frames["view0"]).mean() > 5, (
    "another scene looks different"
  )


@pytest.mark.sim
def test_what_never_succeeds_is_given_up():
  needs_metaworld()
  settings = dataclasses.replace(SETTINGS, max_steps=4, motions=1, attempts=2)
  assert list(collect.collect_task(settings, "reach")) == [
    collect.Tally("reach", attempts=2, successes=0)
  ]


@pytest.mark.sim
@pytest.mark.parametrize("workers", [1, 2])
def test_the_task_writes_a_data_set(tmp_path, workers):
  needs_metaworld()
  from como_jax import config as config_lib
  from como_jax.tasks import collect as task

  section = dataclasses.asdict(dataclasses.replace(SETTINGS, motions=1, repeated=0, stride=8))
  config = config_lib.ConfigDict(
    dict(
      task="collect",
      output="",
      tasks=("reach", "drawer-close"),
      workers=workers,
      collect=section,
      video=dict(crf=30, gop=4),
    )
  )
  path = task.collect_dataset(config, str(tmp_path))
  assert path == tmp_path / "dataset"
  info = json.loads((path / "meta/info.json").read_text())
  assert (info["fps"], info["total_episodes"], info["robot_type"]) == (10, 2, "sawyer")
  notes = json.loads((path / "meta/collection.json").read_text())
  assert list(notes["success"]) == ["reach", "drawer-close"] and str(tmp_path) not in json.dumps(
    notes
  )
  rows = parquet.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
  assert [row["simulator_task"] for row in rows] == ["reach", "drawer-close"], (
    "in order, whatever the number of processes"
  )
  with pytest.raises(errors.UserError, match="exists already"):
    task.collect_dataset(config, str(tmp_path))
  with pytest.raises(errors.UserError, match="did you mean 'reach'"):
    task.collect_dataset(_with_task(config, "reich"), str(tmp_path))


@pytest.mark.sim
def test_video_of_another_simulator_has_no_actions(tmp_path):
  if importlib.util.find_spec("gymnasium_robotics") is None:
    pytest.skip("pip install -r requirements-fetch.txt")
  from como_jax import config as config_lib
  from como_jax.data.sources import lerobot
  from como_jax.tasks import collect as task

  section = dataclasses.asdict(
    dataclasses.replace(
      SETTINGS,
      simulator="fetch",
      cameras=("front", "side", "top"),
      cameras_per_episode=0,
      motions=2,
      repeated=0,
      stride=1,
      wander=(4, 4),
      max_steps=100,
      actions=False,
    )
  )
  config = config_lib.ConfigDict(
    dict(
      task="collect",
      output="",
      tasks=("pick-and-place",),
      workers=1,
      collect=section,
      video=dict(crf=30, gop=4),
    )
  )
  path = task.collect_dataset(config, str(tmp_path))
  info = json.loads((path / "meta/info.json").read_text())
  assert (info["fps"], info["robot_type"], info["total_episodes"]) == (25, "fetch", 2)
  assert {f"observation.images.{camera}" for camera in ("front", "side", "top")} < set(
    info["features"]
  )
  assert not {"action", "observation.state", "next.success"} & set(info["features"])
  notes = json.loads((path / "meta/collection.json").read_text())
  assert "without actions" in notes["labeled_as"] and "scripted expert" in notes["labeled_as"]
  assert set(lerobot.LeRobot(str(path))[0].arrays) == {"timestamp"}


@pytest.mark.sim
def test_arguments_of_build_are_checked():
  needs_metaworld()
  with pytest.raises(
    errors.UserError, match="collect.build: metaworld has no 'strde': did you mean 'stride'"
  ):
    collect.build(dataclasses.replace(SETTINGS, build={"strde": 2}), "reach")


class Still:
  """A simulator that only has an expert: full speed ahead, gripper shut."""

  def __init__(self, **spec):
    low = np.array(spec.pop("low"), np.float32)
    self.spec = base.Spec(
      name="still",
      robot="none",
      instruction="",
      cameras={},
      state_names=(),
      action_names=(),
      action_low=low,
      action_high=np.array(spec.pop("high"), np.float32),
      fps=10.0,
      stride=1,
      max_steps=9,
      **spec,
    )

  def observe(self, cameras):
    assert cameras == ()
    return {STATE: np.array([100.0, 200.0], np.float32)}

  def expert(self):
    return self.spec.action_high.copy()


def test_disturbances_spare_rotation_and_gripper():
  simulator = Still(low=[-1] * 7, high=[1] * 7, move=(0, 1, 2), gripper=(6,))
  act = actor.Actor(
    dataclasses.replace(SETTINGS, noise=0.05, speed=(0.5, 0.5), wander=(3, 3)), simulator, seed=0
  )
  actions = np.stack([act() for _ in range(30)])
  np.testing.assert_array_equal(actions[:3, 3:], [[0, 0, 0, -1]] * 3)
  np.testing.assert_array_equal(actions[3:, 3:], 1)
  assert np.abs(actions[3:, :3].mean() - 0.5) < 0.05 and actions[3:, :3].std() > 0.01
  assert np.array_equal(act.actions, actions)


def test_disturbances_of_positions_start_where_the_hand_is():
  simulator = Still(low=[0, 0], high=[512, 512], move=(0, 1), absolute=True, gripper=())
  act = actor.Actor(
    dataclasses.replace(SETTINGS, noise=0.0, speed=(0.5, 0.5), wander=(1, 1)), simulator, seed=0
  )
  wander, ahead = act(), act()
  assert np.linalg.norm(wander - [100, 200]) == pytest.approx(0.5 * actor._REACH * 512, rel=1e-4)
  np.testing.assert_allclose(ahead, [306, 356])


def _with_task(config, name):
  changed = config.copy_and_resolve_references()
  changed.tasks = (name,)
  return changed


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(cameras=()), "at least one camera"),
    (dict(scenes=()), "scene"),
    (dict(cameras_per_episode=4), "cameras_per_episode = 4"),
    (dict(motions=0), "motions = 0"),
    (dict(max_steps=3), "max_steps = 3: expected at least 4"),
  ],
)
def test_impossible_settings_are_refused(change, message):
  with pytest.raises(errors.UserError, match=message):
    dataclasses.replace(SETTINGS, **change)
