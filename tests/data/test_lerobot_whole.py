"""A LeRobot data set as a source: what it says of itself, what it keeps, and rows that are cut."""

import dataclasses
import os
import pickle
import types

import numpy as np
import pyarrow as pa
import pytest

from como_jax import data, errors
from como_jax.data import labels, lerobot_labels, video
from como_jax.data.sources import lerobot, lerobot_meta
from tests.data import flat, test_policy_pipeline
from tests.data import lerobot_makers as makers
from tests.data import makers as plain_makers
from tests.data.lerobot_makers import TOP, WRIST, Folder, check, features, opened, refused, rows


def test_what_it_says_of_itself(tmp_path):
  def info(before):
    return before | {"robot_type": "panda"}

  path = Folder(images=(WRIST,), info=info).write(tmp_path / "set")
  source = lerobot.LeRobot(path)
  assert source.info == {
    "format": "lerobot",
    "robot_type": "panda",
    "action_names": ["a", "b", "c"],
    "state_names": ["x", "y"],
    "description": (
      "LeRobot v2.1 data set, robot panda, action from 'action', state from 'observation.state'"
    ),
  }
  plain = lerobot.LeRobot(
    Folder(info=lambda before: {k: v for k, v in before.items() if k != "robot_type"}).write(
      tmp_path / "plain"
    )
  )
  assert plain.info["description"].startswith("LeRobot v2.1 data set, robot unknown, ")
  again = pickle.loads(pickle.dumps(source))
  assert (
    again._files == []
    and again._probed == {}
    and again.fingerprint() == source.fingerprint()
    and source._files
  )
  assert (len(source), source.names, source.cameras) == (
    2,
    ("episode_000000", "episode_000001"),
    ("top", "wrist"),
  )
  check(again[1], 1, range(8))


def test_sizes_and_names_that_do_not_fit(tmp_path):
  # no shape: the first file tells
  folder = Folder(info=features(action={"dtype": "float32", "names": ["a", "b"]}))
  source = opened(folder.write(tmp_path / "set"))
  assert source.info["action_names"] is None and source.info["state_names"] == ["x", "y"]
  assert source.skipped == [
    {
      "name": "meta/info.json",
      "reason": "feature 'action' has 2 names for 3 numbers: the names are not used",
    }
  ]
  path = Folder(info=features(action={"dtype": "float32", "names": None}), lengths=(6,)).write(
    tmp_path / "unreadable"
  )
  os.remove(f"{path}/data/chunk-000/episode_000000.parquet")
  assert opened(path)._sizes == {"action": None, "state": 2}


def broken(*frames, column="action"):
  def change(e, columns):
    values = [list(map(float, row)) for row in columns[column].to_pylist()]
    for frame in frames:
      values[frame][0] = np.nan
    return {column: pa.array(values, pa.list_(pa.float64()))}

  return rows(change, only=1)


@pytest.mark.parametrize(
  "frames, kept", [((2,), 2), ((7,), 7), ((3, 5), 3), ((1,), None), ((0, 5), None)]
)
def test_rows_before_one_that_is_not_finite(tmp_path, frames, kept):
  path = Folder(rows=broken(*frames)).write(tmp_path / "set")
  refused(
    opened(path),
    1,
    f"is null or not finite at frame {frames[0]}, {len(frames)} of 8 rows; source option "
    "invalid_rows = 'cut_episode' keeps",
  )
  if kept is None:
    refused(
      opened(path, invalid_rows="cut_episode"),
      1,
      f"at frame {frames[0]}, {len(frames)} of 8 rows: nothing is left before it",
    )
  else:
    raw = opened(path, invalid_rows="cut_episode")[1]
    check(raw, 1, range(kept))
    assert raw.notes[0].endswith(f"{len(frames)} of 8 rows: cut before it")


def test_the_earlier_of_two_cuts(tmp_path):
  def both(e, columns):
    return broken(5)(e, columns) | {
      "observation.state": broken(3, column="observation.state")(e, columns)["observation.state"]
    }

  raw = opened(Folder(rows=both).write(tmp_path / "set"), invalid_rows="cut_episode")[1]
  check(raw, 1, range(3))


def test_depth_alone(tmp_path):
  depth = {"dtype": "image", "shape": [makers.HEIGHT, makers.WIDTH, 1], "is_depth_map": True}
  folder = Folder(videos=(), images=(WRIST,), info=features(**{WRIST: depth}))
  path = folder.write(tmp_path / "set")
  with pytest.raises(
    errors.UserError,
    match=(
      "the LeRobot data set has only depth cameras; source option depth_range = .nearest, "
      "farthest. scales"
    ),
  ):
    opened(path)
  assert opened(path, depth_range=(0, 9)).cameras == ("wrist",)
  with pytest.raises(
    errors.UserError,
    match=(
      r"source option camera_keys: 'wrist' \(observation.images.wrist\): its images are depth, "
      r"source option depth_range"
    ),
  ):
    opened(path, camera_keys=(WRIST,))


def task_of(listed, columns, *, tasks=None):
  tasks, notes = tasks or {0: "open", 1: "close"}, []
  return lerobot_meta.episode_task({"tasks": listed}, columns, tasks, notes), notes


@pytest.mark.parametrize(
  "listed, numbers, task, notes",
  [
    (["a"], None, "a", []),
    ("a", None, "a", []),
    (1, None, "close", []),
    (
      [1, 0],
      None,
      "close",
      ["2 instructions and no column 'task_index' that says where they change: 'close' is used"],
    ),
    (
      [1, 7],
      None,
      "close",
      ["column 'tasks' of meta/episodes lists 7, which is neither text nor a number of meta/tasks"],
    ),
    (None, None, "", []),
    ((), None, "", []),
    (["open"], [0, 0], "open", []),
    (["open", "close"], [0, 1], ["open", "close"], []),
    (
      ["a"],
      [0, 0],
      "open",
      ["task_index 0 of 2 rows is 'open' in meta/tasks and used, meta/episodes lists 'a'"],
    ),
    (
      ["a"],
      [5, 5, 3],
      "a",
      [
        "task_index 3 of 1 rows is not in meta/tasks: 'a' is used",
        "task_index 5 of 2 rows is not in meta/tasks: 'a' is used",
      ],
    ),
  ],
)
def test_instructions(listed, numbers, task, notes):
  assert task_of(listed, {} if numbers is None else {"task_index": np.array(numbers)}) == (
    task,
    notes,
  )


def test_pictures_that_end_early(tmp_path):
  def change(e, columns):
    return {WRIST: columns[WRIST]}

  path = Folder(videos=(), images=(WRIST,), rows=rows(change)).write(tmp_path / "set")
  source = opened(path)
  frames = source._images(
    f"{path}/data/chunk-000/episode_000000.parquet",
    0,
    source._cameras[0],
    np.arange(8) / 10,
    video.Geometry(),
  )
  with pytest.raises(
    video.Unreadable,
    match=(
      "^episode 0: camera 'wrist' in data/chunk-000/episode_000000.parquet has no frame 6 of 8$"
    ),
  ):
    list(frames)
  assert source._looks_deep(source._cameras[0], "") is False


def test_notes_name_the_camera_and_a_bad_picture_the_episode(tmp_path, monkeypatch):
  source = opened(Folder().write(tmp_path / "set"))
  raw = source[1]

  def read_at(path, place, geometry, *, notes, options):
    notes.append("said")
    yield plain_makers.picture(0)
    raise video.Unreadable("broken")

  monkeypatch.setattr(lerobot.video, "read_at", read_at)
  with pytest.raises(
    video.Unreadable,
    match=f"^episode 1: camera 'top', videos/chunk-000/{TOP}/episode_000001.mp4: broken$",
  ):
    list(raw.cameras["top"](video.Geometry()))
  assert raw.notes == [f"camera 'top', videos/chunk-000/{TOP}/episode_000001.mp4: said"]


def motions(z, valid):
  return labels.Motion(np.float32(z), np.array(valid), np.float32(valid))


def test_labels_find_their_rows():
  found = {"episode_000002": {"a": motions([[1, 1], [2, 2]], [True, False])}}
  stored = types.SimpleNamespace(
    episodes=["episode_000002"],
    frame_numbers=lambda name: np.array([1, 4]),
    episode=found.__getitem__,
  )
  find = lerobot_labels._by_index(stored)
  assert find(0) == {}
  motion = find(2)["a"]
  assert motion.z.tolist() == [
    [0, 0],
    [1, 1],
    [0, 0],
    [0, 0],
    [2, 2],
  ] and motion.valid.tolist() == [False, True, False, False, False]
  clips = {(0, 0): {"a": motions([[1, 1]], [True])}, (0, 1): {"a": motions([[2, 2]], [False])}}
  segments = types.SimpleNamespace(
    rows=lambda segment: {7: [3, 4]}[segment], place=lambda row: (0, row - 3)
  )
  find = lerobot_labels._by_segment(
    types.SimpleNamespace(clip=lambda *place: clips[place]), segments, [5, 7]
  )
  assert find(1)["a"].z.tolist() == [[1, 1], [2, 2]] and find(1)["a"].valid.tolist() == [
    True,
    False,
  ]
  assert find.cache_info().maxsize == lerobot_labels._by_index(stored).cache_info().maxsize == 4


@pytest.fixture(scope="module", name="arms")
def _arms(tmp_path_factory):
  return plain_makers.shards(tmp_path_factory.mktemp("arms") / "s", (6, 5))


def test_defaults_of_policy_statistics(arms):
  sets = [test_policy_pipeline.arm(arms)]
  found = flat.statistics(sets, validation_fraction=0.0)
  assert found.latent is None and found.robots["arm"]["action"].count == 11
  # every frame by itself
  np.testing.assert_allclose(found.robots["arm"]["action"].mean, [25 / 11, 5 / 11, -25 / 11])
  with pytest.raises(
    errors.UserError, match="^unknown reduction of actions 'maen': did you mean 'mean'"
  ):
    flat.statistics(sets, reduce="maen")
  two = flat.statistics(sets, validation_fraction=0.0, step_seconds=0.2, reduce="last")
  np.testing.assert_allclose(
    two.robots["arm"]["action"].mean[0], (1 + 2 + 3 + 4 + 5 + 5 + 1 + 2 + 3 + 4 + 4) / 11
  )
  assert flat.statistics(sets, validation_fraction=0.0, step_seconds=0.2).robots["arm"][
    "action"
  ].mean[0] == pytest.approx((0.5 + 1.5 + 2.5 + 3.5 + 4.5 + 5 + 0.5 + 1.5 + 2.5 + 3.5 + 4) / 11)
  (line,) = flat.describe(
    [dataclasses.replace(sets[0], name="n", weight=0.5)], validation_fraction=0.0
  )
  assert (
    line == "n: 11 examples (weight 0.5), 2 of 2 episodes, 2 tasks; actions of arm; cameras camera"
  )


def test_robots_of_several_sizes(arms, tmp_path):
  class Wide(plain_makers.Synthetic):
    def __getitem__(self, i):
      raw = super().__getitem__(i)
      return dataclasses.replace(raw, arrays={"action": np.tile(raw.arrays["action"], 2)})

  wide = plain_makers.shards(tmp_path / "w", source=Wide((5, 5)))
  sets = [test_policy_pipeline.arm(arms, name="one"), test_policy_pipeline.arm(wide, name="two")]
  with pytest.raises(
    errors.UserError,
    match=(
      r"^two: robot 'arm' has action and state of sizes \[6, None\], in one \[3, 2\]; expected "
      r"one size"
    ),
  ):
    flat.statistics(sets)


def test_what_is_damaged_is_left_out_of_statistics_and_evaluation(tmp_path):
  path = plain_makers.shards(tmp_path / "s", (8, 5), size=(64, 64))
  plain_makers.damage(path, "episode_0", frame=2)
  common = dict(
    test_policy_pipeline.SIZES,
    normalization=test_policy_pipeline.normalizer(),
    batch_size=13,
    split="all",
    threads=0,
  )
  found = flat.policy_windows([test_policy_pipeline.arm(path)], **common)
  with (
    pytest.warns(
      UserWarning,
      match=(
        "^s: an example cannot be read and is left out of the evaluation: .*clip 0 camera 'camera'"
      ),
    ),
    found.batches() as batches,
  ):
    (rows_,) = batches
  assert (
    np.flatnonzero(rows_["damaged"]).tolist() == [2]
    and rows_["valid"].sum() == 12
    and not rows_["images"][2].any()
    and not rows_["actions_mask"][2].any()
  )
  with pytest.warns(UserWarning):
    assert found._load(2)["damaged"]
  windows = flat.windows(
    [data.DataSet(path, offset_seconds=0.1)],
    batch_size=13,
    image_size=64,
    split="all",
    threads=0,
    validation_fraction=0.0,
  )
  with pytest.warns(
    UserWarning, match="^s: a window cannot be read and is left out of the evaluation: "
  ):
    sample = windows._load(0)
  assert (
    sample["damaged"]
    and not sample["valid"]
    and not sample["frames"].any()
    and not sample["has_action"]
  )
  assert (found.size, found.steps, found.datasets, found.episodes) == (
    13,
    1,
    ["s"],
    ["episode_0", "episode_1"],
  )
  assert (
    rows_["time"].tolist() == [*range(8), *range(5)]
    and rows_["episode"].tolist() == [0] * 8 + [1] * 5
  )
