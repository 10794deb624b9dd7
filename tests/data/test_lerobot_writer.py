"""LeRobot v3 writing, read back with pyarrow and PyAV only, as another program would."""

import json

import numpy as np
import pytest
from pyarrow import parquet

from como_jax import errors
from tests.data import lerobot_makers
from tests.data.written_sets import FPS, SIZE, moving_square, read_video, write_set


def test_round_trip(tmp_path):
  episodes = write_set(tmp_path / "set")
  root = tmp_path / "set"
  info = json.loads((root / "meta/info.json").read_text())
  assert (
    info["codebase_version"],
    info["total_episodes"],
    info["total_frames"],
    info["total_tasks"],
  ) == ("v3.0", 3, 21, 2)
  assert info["fps"] == FPS and info["splits"] == {"train": "0:3"}
  rows = parquet.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
  table = parquet.read_table(root / info["data_path"].format(chunk_index=0, file_index=0))
  assert table["index"].to_pylist() == list(range(21))
  assert set(table.column_names) == {
    k for k, v in info["features"].items() if v["dtype"] != "video"
  }
  for i, (row, episode) in enumerate(zip(rows, episodes, strict=True)):
    part = table.slice(row["dataset_from_index"], row["length"])
    assert (
      row["dataset_to_index"] - row["dataset_from_index"] == row["length"] == len(episode["action"])
    )
    np.testing.assert_array_equal(
      np.stack(part["action"].to_pylist()).astype(np.float32), episode["action"]
    )
    np.testing.assert_array_equal(
      np.stack(part["observation.state"].to_pylist()).astype(np.float32), episode["state"]
    )
    assert (
      set(part["episode_index"].to_pylist()) == {i}
      and row["tasks"] == [f"task {i % 2}"]
      and row["motion"] == f"m{i}"
    )
    np.testing.assert_array_equal(
      part["timestamp"].to_numpy(), (np.arange(row["length"]) / FPS).astype(np.float32)
    )
    assert part["next.done"].to_pylist() == [False] * (row["length"] - 1) + [True]
    assert sum(part["next.success"].to_pylist()) == 2
    for camera in ("left", "right"):
      key = f"observation.images.{camera}"
      where = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
      decoded, times, keys = read_video(root / info["video_path"].format(video_key=key, **where))
      start = round(row[f"videos/{key}/from_timestamp"] * FPS)
      assert row[f"videos/{key}/to_timestamp"] == (start + row["length"]) / FPS
      assert keys[start], "an episode starts with a key frame"
      assert times[start : start + row["length"]] == [
        pytest.approx((start + t) / FPS, abs=1e-9) for t in range(row["length"])
      ]
      error = decoded[start : start + row["length"]].astype(int) - episode["frames"][camera]
      assert np.abs(error).mean() < 4, camera
      wrong = np.abs(decoded[start].astype(int) - episode["frames"][camera][-1]).mean()
      assert np.abs(error[0]).mean() < wrong / 2, "frames in order"


def test_video_without_actions_has_neither_columns_nor_features_for_them(tmp_path):
  settings = dict(cameras={"a": (SIZE, SIZE)}, state_names=(), action_names=(), robot_type="test")
  with lerobot_makers.open_writer(tmp_path / "set", FPS, **settings) as writer:
    with pytest.raises(errors.UserError, match="action has shape"):
      writer.add_episode("watch", {"a": moving_square(4, 0)}, action=np.zeros((4, 3)))
    writer.add_episode("watch", {"a": moving_square(4, 0)})
    writer.finalize()
  info = json.loads((tmp_path / "set/meta/info.json").read_text())
  table = parquet.read_table(
    tmp_path / "set" / info["data_path"].format(chunk_index=0, file_index=0)
  )
  assert (
    not {"action", "observation.state"} & {*info["features"], *table.column_names}
    and table.num_rows == 4
  )


def test_tasks_table_has_the_instruction_as_pandas_index(tmp_path):
  write_set(tmp_path / "set")
  table = parquet.read_table(tmp_path / "set/meta/tasks.parquet")
  assert table.to_pydict() == {"task_index": [0, 1], "task": ["task 0", "task 1"]}
  assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_statistics_are_those_of_all_frames(tmp_path):
  episodes = write_set(tmp_path / "set")
  stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
  action = np.concatenate([e["action"] for e in episodes]).astype(np.float64)
  for name, value in {
    "mean": action.mean(0),
    "std": action.std(0),
    "min": action.min(0),
    "max": action.max(0),
  }.items():
    np.testing.assert_allclose(stats["action"][name], value, rtol=1e-9, atol=1e-12)
  assert stats["action"]["count"] == [21]
  left = np.concatenate([e["frames"]["left"] for e in episodes])[:, ::4, ::4] / 255
  np.testing.assert_allclose(
    np.ravel(stats["observation.images.left"]["mean"]), left.mean((0, 1, 2)), rtol=1e-9
  )
  assert np.shape(stats["observation.images.left"]["std"]) == (3, 1, 1)


def test_fractional_rate(tmp_path):
  with lerobot_makers.open_writer(
    tmp_path / "set",
    30000 / 1001,
    cameras={"a": (16, 16)},
    state_names=["x"],
    action_names=["u"],
    robot_type="t",
  ) as writer:
    writer.add_episode(
      "t",
      {"a": np.zeros((4, 16, 16, 3), np.uint8)},
      state=np.zeros((4, 1)),
      action=np.zeros((4, 1)),
    )
    writer.finalize()
  _, times, _ = read_video(next((tmp_path / "set").rglob("*.mp4")))
  np.testing.assert_allclose([float(t) for t in times], np.arange(4) * 1001 / 30000, atol=1e-5)


def test_refuses_what_exists_and_leaves_it_alone(tmp_path):
  write_set(tmp_path / "set")
  before = (tmp_path / "set/meta/info.json").read_bytes()
  with pytest.raises(errors.UserError, match="exists already"):
    write_set(tmp_path / "set")
  assert (tmp_path / "set/meta/info.json").read_bytes() == before


def test_nothing_appears_before_finalize_or_after_an_exception(tmp_path):
  with (
    pytest.raises(RuntimeError, match="stop"),
    lerobot_makers.open_writer(
      tmp_path / "set",
      FPS,
      cameras={"a": (16, 16)},
      state_names=["x"],
      action_names=["u"],
      robot_type="t",
    ),
  ):
    assert not (tmp_path / "set").exists()
    raise RuntimeError("stop")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(state=np.zeros((4, 2))), "state has shape"),
    (dict(action=np.full((4, 1), np.nan)), "finite"),
    (dict(frames={"b": np.zeros((4, 16, 16, 3), np.uint8)}), "expected \\['a'\\]"),
    (dict(frames={"a": np.zeros((3, 16, 16, 3), np.uint8)}), "camera 'a'"),
    (dict(frames={"a": np.zeros((4, 16, 16, 3), np.float32)}), "expected uint8"),
    (dict(success=None), "success"),
    (
      dict(
        frames={"a": np.zeros((0, 16, 16, 3), np.uint8)},
        state=np.zeros((0, 1)),
        action=np.zeros((0, 1)),
      ),
      "empty",
    ),
  ],
)
def test_bad_episodes_are_refused_by_name(tmp_path, change, message):
  good = dict(
    frames={"a": np.zeros((4, 16, 16, 3), np.uint8)},
    state=np.zeros((4, 1)),
    action=np.zeros((4, 1)),
    success=np.zeros(4, bool),
  )
  with lerobot_makers.open_writer(
    tmp_path / "set",
    FPS,
    cameras={"a": (16, 16)},
    state_names=["x"],
    action_names=["u"],
    robot_type="t",
    outcome=True,
  ) as writer:
    arguments = good | change
    with pytest.raises(errors.UserError, match=message):
      writer.add_episode("t", arguments.pop("frames"), **arguments)
    writer.abandon()


@pytest.mark.parametrize(
  "change, message",
  [(dict(cameras={"a": (15, 16)}), "even"), (dict(crf=60), "crf"), (dict(gop=0), "gop")],
)
def test_bad_settings_are_refused(tmp_path, change, message):
  with pytest.raises(errors.UserError, match=message):
    write_set(tmp_path / "set", **change)


def test_an_empty_data_set_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match="no episode"):
    write_set(tmp_path / "set", lengths=())
  assert list(tmp_path.iterdir()) == []
