"""Evaluation batches: actions, ids, padding, caps."""

import warnings

import numpy as np
import pytest

from como_jax import data, errors
from como_jax.data import evaluation, ingest
from tests.data import flat, makers, policy_walks

LENGTHS = (12, 9, 15, 7)


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
  return makers.shards(tmp_path_factory.mktemp("data") / "s", LENGTHS, clip_frames=10)


def build(path, **settings):
  settings = {"batch_size": 6, "image_size": 16, "split": "all", "threads": 0} | settings
  return flat.windows([data.DataSet(path, offset_seconds=0.2)], **settings)


def walk(found):
  with found.batches() as batches:
    parts = list(batches)
  return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def test_every_window_once_with_actions_and_ids(path):
  found = build(path)
  rows = walk(found)
  valid = rows["valid"]
  assert (
    valid.sum() == found.size == sum(length - 4 for length in LENGTHS)
    and len(valid) == 6 * found.num_batches
  )
  assert not valid[found.size :].any() and valid[: found.size].all()
  places = {
    (found.episodes[e], int(t))
    for e, t in zip(rows["episode"][valid], rows["time"][valid], strict=True)
  }
  assert places == {
    (f"episode_{i}", t) for i, length in enumerate(LENGTHS) for t in range(length - 4)
  }
  for i in range(found.size):
    t = rows["time"][i]
    episode = int(found.episodes[rows["episode"][i]][-1])
    assert [makers.number(image) for image in rows["frames"][i]] == [t, t + 2, t + 4]
    np.testing.assert_allclose(
      rows["action"][i], [[t + 0.5, episode, -t - 0.5], [t + 2.5, episode, -t - 2.5]]
    )
    np.testing.assert_allclose(rows["state_delta"][i], [[4, 2], [4, 2]])
    np.testing.assert_allclose(rows["state"][i][:, 0], [2 * t, 2 * t + 4, 2 * t + 8])
    # of frames t and t + 1, and of t + 2 and t + 3
    np.testing.assert_allclose(rows["state_mean"][i][:, 0], [2 * t + 1, 2 * t + 5])
    np.testing.assert_allclose(rows["seconds"][i], [0.2, 0.2])
    assert (rows["action_size"][i], rows["state_size"][i]) == (3, 2)
    assert found.tasks[rows["task"][i]] == f"task {episode % 2}" and rows["stride"][i] == 2
  assert found.cameras == ["camera"] and rows["has_action"][valid].all()


def test_processes_and_workers(path):
  whole = walk(build(path, batch_size=8))
  parts = []
  for process in range(2):
    with build(path, batch_size=8, process_index=process, process_count=2).batches() as batches:
      parts.append(list(batches))
  assert len(parts[0]) == len(parts[1])
  joined = {
    key: np.concatenate([part[key] for pair in zip(*parts, strict=True) for part in pair])
    for key in whole
  }
  for key in whole:
    np.testing.assert_array_equal(joined[key], whole[key])
  with_workers = walk(build(path, batch_size=8, workers=2))
  np.testing.assert_array_equal(with_workers["frames"], whole["frames"])


def test_cap_is_spread_evenly(path):
  found = build(path, max_windows=8)
  rows = walk(found)
  assert found.size == 8 and set(rows["episode"][rows["valid"]]) == {0, 1, 2, 3}
  assert build(path, max_windows=10**6).size == build(path).size


def test_pictures(path):
  pictures = build(path).pictures(4)
  assert (
    pictures["frames"].shape == (4, 3, 16, 16, 3)
    and len(pictures["task"]) == 4
    and pictures["camera"] == ["camera"] * 4
  )
  assert [makers.number(clip[0]) for clip in pictures["frames"]] == list(pictures["time"])


def test_data_sets_without_actions_beside_some_with(tmp_path, path):
  plain = str(tmp_path / "plain")
  videos = makers.video_folder(tmp_path / "videos", (8,))
  evaluation_sets = [
    data.DataSet(path, offset_seconds=0.2),
    data.DataSet(plain, offset_seconds=0.2),
  ]
  ingest.run(videos, plain, workers=0, progress=False)
  rows = walk(flat.windows(evaluation_sets, batch_size=4, image_size=16, split="all", threads=0))
  valid = rows["valid"]
  np.testing.assert_array_equal(rows["has_action"][valid], rows["dataset"][valid] == 0)
  assert not rows["action"][valid & (rows["dataset"] == 1)].any()
  np.testing.assert_array_equal(
    rows["action_size"][valid], np.where(rows["dataset"][valid] == 0, 3, 0)
  )
  only = flat.windows(evaluation_sets[1:], batch_size=4, image_size=16, split="all", threads=0)
  assert only.action_size == 0 and "action" not in walk(only)


def test_no_validation_episode_is_told(tmp_path):
  path = makers.shards(tmp_path / "s", (12,))
  with pytest.raises(errors.UserError, match="no episode in this split"):
    build(path, split="validation")


def test_what_cannot_be_read_is_left_out_and_counted(tmp_path):
  path = makers.shards(tmp_path / "s", LENGTHS, size=(64, 64))
  makers.damage(path, "episode_1", frame=5)
  with pytest.warns(UserWarning, match="left out of the evaluation.*shard-00000.shard clip 1"):
    rows = walk(build(path))
  damaged = rows["damaged"]
  assert {
    (int(e), int(t)) for e, t in zip(rows["episode"][damaged], rows["time"][damaged], strict=True)
  } == {(1, 1), (1, 3)}
  assert (
    rows["valid"].sum() == sum(length - 4 for length in LENGTHS) - 2
    and not (rows["valid"] & damaged).any()
  )
  assert not rows["frames"][damaged].any() and not rows["action"][damaged].any()


def test_what_is_damaged_is_left_out_of_statistics_and_evaluation(tmp_path):
  path = makers.shards(tmp_path / "s", (8, 5), size=(64, 64))
  makers.damage(path, "episode_0", frame=2)
  common = dict(
    policy_walks.SIZES,
    normalization=policy_walks.normalizer(),
    batch_size=13,
    split="all",
    threads=0,
  )
  found = flat.policy_windows([policy_walks.arm(path)], **common)
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
  assert (found.size, found.num_batches, found.datasets, found.episodes) == (
    13,
    1,
    ["s"],
    ["episode_0", "episode_1"],
  )
  assert (
    rows_["time"].tolist() == [*range(8), *range(5)]
    and rows_["episode"].tolist() == [0] * 8 + [1] * 5
  )


@pytest.mark.parametrize(
  "size, count, expected",
  [
    (10, None, range(10)),
    (10, 10, range(10)),
    (10, 12, range(10)),
    (10, 5, [1, 3, 5, 7, 9]),
    (10, 3, [1, 5, 8]),
    (7, 1, [3]),
  ],
)
def test_evenly_spread(size, count, expected):
  assert evaluation._even_indices(size, count).tolist() == list(expected)


def test_ids_of_held_out_windows(uneven_path, tmp_path):
  other = makers.shards(
    tmp_path / "o", (8, 8), task=lambda i: "task 1", cameras=("wrist", "camera"), group=["g", "g"]
  )
  sets = [
    data.DataSet(uneven_path, offset_seconds=0.1, name="first"),
    data.DataSet(other, offset_seconds=0.1, cameras=("wrist",)),
  ]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    found = flat.windows(
      sets, batch_size=50, image_size=16, frames=2, split="all", threads=0, validation_fraction=0.0
    )
  with found.batches() as batches:
    (rows,) = batches
  valid = rows["valid"]
  assert (
    found.datasets == ["first", "o"]
    and found.tasks == ["task 0", "task 1"]
    and found.cameras == ["camera", "wrist"]
  )
  assert found.episodes == ["episode_0", "episode_1"] * 2  # names are a data set's own
  assert (found.action_size, found.state_size, found.num_batches) == (
    3,
    2,
    1,
  ) and found.size == valid.sum() < 50
  second = valid & (rows["dataset"] == 1)
  assert (
    second.sum() == 14
    and set(rows["episode"][second]) == {2, 3}
    and set(rows["camera"][second]) == {1}
  )
  assert set(rows["task"][second]) == {1} and len(set(rows["group"][second])) == 1
  first = valid & (rows["dataset"] == 0)
  assert (
    set(rows["episode"][first]) == {0, 1}
    and set(rows["task"][first]) == {0, 1}
    and set(rows["camera"][first]) == {0}
  )
  assert len(set(rows["group"][valid])) == 3 and not set(rows["group"][first]) & set(
    rows["group"][second]
  )
  # of the episode; a cut
  assert (
    14 in rows["time"][first & (rows["episode"] == 0)]
    and 13 not in rows["time"][first & (rows["episode"] == 0)]
  )
  assert (
    set(rows["stride"][valid]) == {1}
    and not rows["damaged"].any()
    and not rows["seconds"][~valid].any()
  )
  pictures = found.pictures(3)
  assert (
    pictures["dataset"] == ["first", "first", "o"]
    and pictures["camera"][-1] == "wrist"
    and pictures["task"][-1] == "task 1"
  )
  assert pictures["stride"].tolist() == [1, 1, 1] and pictures["episode"][-1] in (
    "episode_0",
    "episode_1",
  )
  assert evaluation._sizes(uneven_path) == {"action": 3, "state": 2}


def test_sizes_of_arrays(monkeypatch):
  manifest = {"action": {"size": [3, 7]}, "state": {"size": None}}
  monkeypatch.setattr(evaluation.shards, "read_manifest", lambda path: manifest)
  assert evaluation._sizes("p") == {"action": 7, "state": 0}


def test_single_frames_to_evaluate(uneven_path):
  found = flat.windows(
    [data.DataSet(uneven_path)],
    batch_size=6,
    image_size=16,
    frames=1,
    split="all",
    threads=0,
    max_windows=6,
  )
  with found.batches() as batches:
    (rows,) = batches
  assert (
    rows["stride"].tolist() == [1] * 6
    and rows["seconds"].shape == (6, 0)
    and rows["state"].shape == (6, 1, 2)
  )
  assert rows["frames"].shape == (6, 1, 16, 16, 3) and found.size == 6
