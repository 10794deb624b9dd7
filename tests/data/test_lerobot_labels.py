"""LeRobot data sets with labels as columns: values, features, statistics, linked videos; copied or
written anew.
"""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from como_jax import errors
from como_jax.data import clip_plan, labels, lerobot_labels, shards, sources, video
from tests.data import lerobot_folders, makers
from tests.data.labeled_sets import SIZE, label, read

LENGTHS = (8, 11, 6)


def check(root, cameras, lengths, *, numbers=None):
  """Every value, feature and statistic of the new columns."""
  data, episodes, info, stats = read(root)
  numbers = numbers or range(len(lengths))
  for i, camera in enumerate(cameras):
    key = f"latent_motion.{camera}"
    assert (
      data.schema.field(key).type == pa.list_(pa.float32(), SIZE)
      and data.schema.field(f"{key}.valid").type == pa.bool_()
    )
    assert info["features"][key] == {"dtype": "float32", "shape": [SIZE], "names": None}
    assert info["features"][f"{key}.valid"] == {"dtype": "bool", "shape": [1], "names": None}
    z, valid = np.array(data[key].to_pylist()), np.array(data[f"{key}.valid"].to_pylist())
    expected = [
      (t, number, i, t + 2 < length)
      for number, length in zip(numbers, lengths, strict=True)
      for t in range(length)
    ]
    assert valid.tolist() == [bool(one[3]) for one in expected]
    np.testing.assert_array_equal(z, [np.array(one[:3]) * one[3] for one in expected])
    assert data.schema.field(f"{key}.difference").type == pa.float32()
    assert info["features"][f"{key}.difference"] == {
      "dtype": "float32",
      "shape": [1],
      "names": None,
    }
    difference = np.array(data[f"{key}.difference"].to_pylist())
    np.testing.assert_allclose(difference, [one[0] / 100 * one[3] for one in expected], rtol=1e-6)
    np.testing.assert_allclose(
      stats[f"{key}.difference"]["mean"], difference[valid].mean(), rtol=1e-9
    )
    whole = {
      "min": z[valid].min(0),
      "max": z[valid].max(0),
      "mean": z[valid].mean(0),
      "std": z[valid].std(0),
    }
    for name, value in whole.items():
      np.testing.assert_allclose(stats[key][name], value, rtol=1e-9, atol=1e-12)
    assert stats[key]["count"] == [int(valid.sum())] and stats[f"{key}.valid"]["mean"] == [
      pytest.approx(valid.mean())
    ]
    if any(name.startswith("stats/") for name in episodes.column_names):
      assert episodes[f"stats/{key}/max"].to_pylist() == [
        [length - 3, number, i] for number, length in zip(numbers, lengths, strict=False)
      ]
      assert episodes[f"stats/{key}.valid/count"].to_pylist() == [[length] for length in lengths]


def test_a_v3_data_set_is_copied_with_linked_videos(tmp_path):
  source = lerobot_folders.lerobot_v30(tmp_path / "lerobot", LENGTHS)
  (pathlib.Path(source) / "meta" / "stats.json").write_text("{}")
  # some editors begin a file with a byte order mark
  for file in pathlib.Path(source, "meta").glob("*.json"):
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
  data = makers.shards(
    tmp_path / "s", source=sources.open_source(source), clip_frames=5, episodes_per_shard=2
  )
  folder, output = label(data, tmp_path / "l", source=source), tmp_path / "out"
  lerobot_labels.check(str(output), source=source, shards_path=data, resume=False)
  line = lerobot_labels.export(folder, str(output), source=source, shards_path=data)
  assert "3 episodes, 25 rows, 38 motions" in line
  assert line.endswith(
    f"2 files of videos and images are those of {source} (hard links): what edits one in place "
    "edits both"
  )
  check(output, ("top", "wrist"), LENGTHS)
  before, after = read_source(source), read(output)[0]
  assert after.select(before.column_names).equals(before)
  # as in the source
  assert parquet.ParquetFile(next(output.rglob("data/*/*.parquet"))).num_row_groups == 4
  film = pathlib.Path("videos/observation.images.top/chunk-000/file-000.mp4")
  assert os.path.samefile(pathlib.Path(source) / film, output / film)
  info = read(output)[2]
  assert info["unknown_key"] == 1 and info["total_frames"] == 25
  assert sorted(path.name for path in tmp_path.iterdir()) == ["l", "lerobot", "out", "s"]
  opened = sources.open_source(str(output))  # still a data set that our own reader takes
  assert len(opened) == 3 and opened[1].arrays["action"].shape == (11, 3)
  note = json.loads((output / lerobot_labels.NOTE).read_text())
  assert (
    note["fingerprint"] == labels.fingerprint(folder)
    and note["offset_seconds"] == 0.2
    and note["version"] == 2
  )


def read_source(source):
  return parquet.read_table(next(pathlib.Path(source, "data").rglob("*.parquet")))


def test_episodes_without_labels_get_none(tmp_path):
  """An episode that ingest put into quarantine is in the source still."""
  source = lerobot_folders.lerobot_v30(tmp_path / "lerobot", LENGTHS)

  class Broken(type(sources.open_source(source))):
    def __getitem__(self, i):
      if i == 1:
        raise sources.UnreadableError("broken")
      return super().__getitem__(i)

  data = makers.shards(tmp_path / "s", source=Broken(source, sources.SourceOptions()))
  lerobot_labels.export(
    label(data, tmp_path / "l"), str(tmp_path / "out"), source=source, shards_path=data
  )
  table, episodes, _, stats = read(tmp_path / "out")
  valid = np.array(table["latent_motion.top.valid"].to_pylist())
  number = np.array(table["episode_index"].to_pylist())
  assert (
    valid[number == 0].sum() == 6 and not valid[number == 1].any() and valid[number == 2].sum() == 4
  )
  assert episodes["stats/latent_motion.top/count"].to_pylist() == [[6], [0], [4]] and stats[
    "latent_motion.top"
  ]["count"] == [10]


def test_rows_that_the_data_left_out_are_not_valid(tmp_path, monkeypatch):
  """Frames 4 and 5 of the second episode are in no clip, and neither are its last three."""
  source = lerobot_folders.lerobot_v30(tmp_path / "lerobot", LENGTHS)
  cut_clips = clip_plan.cut_clips

  def with_gaps(keep, *rest):
    if len(keep) == 11:
      keep[[4, 5, 8, 9, 10]] = False
    return cut_clips(keep, *rest)

  monkeypatch.setattr(clip_plan, "cut_clips", with_gaps)
  data = makers.shards(tmp_path / "s", source=sources.open_source(source), clip_frames=3)
  lerobot_labels.export(
    label(data, tmp_path / "l"), str(tmp_path / "out"), source=source, shards_path=data
  )
  table = read(tmp_path / "out")[0]
  number, valid = (
    np.array(table["episode_index"].to_pylist()),
    np.array(table["latent_motion.top.valid"].to_pylist()),
  )
  # segments of frames 0 to 3 and 6 to 7
  assert len(valid) == 25 and np.flatnonzero(valid[number == 1]).tolist() == [0, 1]
  z = np.array(table["latent_motion.top"].to_pylist())
  assert z[number == 1][:, 0].tolist() == [0, 1, *[0] * 9] and valid[number == 2].sum() == 4


@pytest.mark.parametrize("kind", ["v2.1", "videos", "shards"])
def test_anything_else_is_written_anew(tmp_path, kind):
  if kind == "v2.1":
    source = lerobot_folders.lerobot_v21(tmp_path / "source", LENGTHS)
  elif kind == "videos":
    source = makers.video_folder(tmp_path / "source", LENGTHS)
  else:
    source = makers.shards(
      tmp_path / "source", LENGTHS, clip_frames=5, image_size=32, episodes_per_shard=2
    )
  opened = sources.open_source(source)
  data = (
    source
    if kind == "shards"
    else makers.shards(
      tmp_path / "s", source=opened, clip_frames=5, image_size=32, episodes_per_shard=2
    )
  )
  cameras = ["top"] if kind == "v2.1" else ["camera"]  # one of two cameras labeled
  folder = label(data, tmp_path / "l", cameras=cameras)
  lerobot_labels.check(str(tmp_path / "out"), source=source, shards_path=data, resume=False)
  lerobot_labels.export(folder, str(tmp_path / "out"), source=source, shards_path=data)
  names = sorted(opened.names)
  table = shards.read_table(data)
  lengths = {
    name: int((table.start + table.length)[table.episode == table.episodes.index(name)].max())
    for name in names
  }
  first_rows = sorted(
    np.unique(table.episode, return_index=True)[1],
    key=lambda row: (table.shard[row], table.clip[row]),
  )
  order = [table.episodes[table.episode[row]] for row in first_rows]
  check(
    tmp_path / "out",
    cameras,
    [lengths[name] for name in order],
    numbers=[names.index(name) for name in order],
  )
  again = sources.open_source(str(tmp_path / "out"))
  assert again.cameras == (("top", "wrist") if kind == "v2.1" else ("camera",)) and len(again) == 3
  assert again.info["robot_type"] == ("toy" if kind == "v2.1" else "unknown")
  first, before = again[0], opened[list(opened.names).index(order[0])]
  assert first.task == before.task and ("action" in first.arrays) == (kind != "videos")
  if kind != "videos":
    np.testing.assert_array_equal(first.arrays["action"], before.arrays["action"])
    assert again.info["action_names"] == ["a", "b", "c"]
  frames, stored = (
    [image.mean() for _, image in one.cameras[cameras[0]](video.Geometry(32))]
    for one in (first, before)
  )
  np.testing.assert_allclose(frames, stored, atol=2)  # gray levels, 6 from frame to frame


def test_the_robot_survives_ingest(tmp_path):
  data = makers.shards(
    tmp_path / "s",
    source=sources.open_source(lerobot_folders.lerobot_v21(tmp_path / "lerobot", LENGTHS)),
  )
  again = makers.shards(tmp_path / "again", source=sources.open_source(data))
  lerobot_labels.export(
    label(again, tmp_path / "l", cameras=["top"]),
    str(tmp_path / "out"),
    source=again,
    shards_path=again,
  )
  assert read(tmp_path / "out")[2]["robot_type"] == "toy"


def test_groups_and_instructions_survive_and_segments_become_episodes_of_one_group(tmp_path):
  """Two episodes of one group; the third is cut after 4 frames; its instruction changes after 6."""
  tasks = ["lift"] * 6 + ["drop"] * 5
  data = makers.shards(
    tmp_path / "s",
    source=makers.Synthetic(
      (8, 6, 11),
      group=["g", "g", ""],
      cuts=[(), (), (4,)],
      task=lambda i: tasks if i == 2 else "push",
    ),
    clip_frames=5,
  )
  folder = label(data, tmp_path / "l")
  line = lerobot_labels.export(folder, str(tmp_path / "out"), source=data, shards_path=data)
  assert "4 episodes, 25 rows, 17 motions" in line and "hard links" not in line
  episodes = read(tmp_path / "out")[1]
  assert episodes["group"].to_pylist() == ["g", "g", "episode_2", "episode_2"]
  assert episodes["episode"].to_pylist() == ["episode_0", "episode_1", "episode_2", "episode_2"]
  assert episodes["first_frame"].to_pylist() == [0, 0, 0, 4] and episodes["length"].to_pylist() == [
    8,
    6,
    4,
    7,
  ]
  again = sources.open_source(str(tmp_path / "out"))
  assert [again[i].group for i in range(4)] == ["g", "g", "episode_2", "episode_2"]
  assert (
    again[0].task == "push"
    and again[2].task == "lift"
    and again[3].task == ["lift"] * 2 + ["drop"] * 5
  )
  np.testing.assert_array_equal(again[3].arrays["action"], makers.vectors(11, 2)[0][4:])
  assert [
    makers.number(image) for _, image in again[3].cameras["camera"](video.Geometry())
  ] == list(range(4, 11))
  valid = np.array(read(tmp_path / "out")[0]["latent_motion.camera.valid"].to_pylist())
  assert valid[14:].tolist() == [True, True, False, False] + [True] * 5 + [False] * 2


def test_groups_of_the_labeled_data_are_added_to_a_copy(tmp_path):
  source = lerobot_folders.lerobot_v30(tmp_path / "lerobot", LENGTHS)

  class Grouped(type(sources.open_source(source))):
    def __getitem__(self, i):
      return dataclasses.replace(super().__getitem__(i), group="g" if i else "")

  data = makers.shards(tmp_path / "s", source=Grouped(source, sources.SourceOptions()))
  lerobot_labels.export(
    label(data, tmp_path / "l", cameras=["top"]),
    str(tmp_path / "out"),
    source=source,
    shards_path=data,
  )
  assert read(tmp_path / "out")[1]["group"].to_pylist() == ["", "g", "g"]
  again = sources.open_source(str(tmp_path / "out"))
  assert [again[i].group for i in range(3)] == ["", "g", "g"]


def test_damaged_episodes_are_left_out_of_a_new_data_set(tmp_path):
  data = makers.shards(tmp_path / "s", LENGTHS)
  folder = label(data, tmp_path / "l")
  makers.damage(data, "episode_1", frame=3)
  line = lerobot_labels.export(folder, str(tmp_path / "out"), source=data, shards_path=data)
  assert "2 episodes, 14 rows" in line and "1 left out (episode_1: " in line
  check(tmp_path / "out", ["camera"], (8, 6), numbers=(0, 2))


def test_refusals_and_what_is_there_already(tmp_path):
  source = lerobot_folders.lerobot_v30(tmp_path / "lerobot", LENGTHS)
  data = makers.shards(tmp_path / "s", source=sources.open_source(source))
  folder, output = label(data, tmp_path / "l"), str(tmp_path / "out")
  lerobot_labels.export(folder, output, source=source, shards_path=data)
  assert "is there already" in lerobot_labels.export(
    folder, output, source=source, shards_path=data
  )
  lerobot_labels.check(output, source=source, shards_path=data, resume=True)
  with pytest.raises(errors.UserError, match="out has the column 'latent_motion.top' already"):
    lerobot_labels.check(str(tmp_path / "twice"), source=output, shards_path=data, resume=False)
  with pytest.raises(errors.UserError, match="out exists already"):
    lerobot_labels.check(output, source=source, shards_path=data, resume=False)
  with pytest.raises(errors.UserError, match="holds other labels"):
    lerobot_labels.export(
      label(data, tmp_path / "l2", scale=2.0), output, source=source, shards_path=data
    )
  uneven = makers.shards(
    tmp_path / "uneven", (5, 5), times=lambda i, n: np.arange(n) / 10 + (np.arange(n) > 2) * i
  )
  with pytest.raises(
    errors.UserError, match="the time between the frames of episode 'episode_1' varies"
  ):
    lerobot_labels.check(str(tmp_path / "new"), source=uneven, shards_path=uneven, resume=False)
  mixed = makers.shards(tmp_path / "mixed", (5, 5), fps=(10.0, 20.0))
  with pytest.raises(errors.UserError, match="the clips have 10, 20 frames a second"):
    lerobot_labels.check(str(tmp_path / "new"), source=mixed, shards_path=mixed, resume=False)
  other = lerobot_folders.lerobot_v30(tmp_path / "other", (8, 4, 6))
  with pytest.raises(errors.UserError, match="were extracted from .*not from .*other"):
    lerobot_labels.export(folder, str(tmp_path / "new"), source=other, shards_path=data)
  note = tmp_path / "out" / lerobot_labels.NOTE
  note.write_text(note.read_text().replace('"version": 2', '"version": 1'))
  with pytest.raises(errors.UserError, match="holds other labels"):
    lerobot_labels.export(folder, output, source=source, shards_path=data)
  assert not [
    path for path in tmp_path.iterdir() if path.name.startswith(".") or path.name == "new"
  ]


def test_features_kept_by_hugging_face_follow(tmp_path):
  source = pathlib.Path(lerobot_folders.lerobot_v30(tmp_path / "lerobot", LENGTHS))
  file = next((source / "data").rglob("*.parquet"))
  held = {
    "info": {
      "features": {
        "action": {"feature": {"dtype": "float32", "_type": "Value"}, "length": 3, "_type": "List"}
      }
    }
  }
  parquet.write_table(
    parquet.read_table(file).replace_schema_metadata({"huggingface": json.dumps(held)}), file
  )
  (source / "meta/stats.json").write_text(
    json.dumps({"action": {"mean": [0.0] * 3, "q01": [0.0] * 3, "q99": [1.0] * 3}})
  )
  data = makers.shards(tmp_path / "s", source=sources.open_source(str(source)))
  lerobot_labels.export(
    label(data, tmp_path / "l", cameras=["top"]),
    str(tmp_path / "out"),
    source=str(source),
    shards_path=data,
  )
  table, _, _, stats = read(tmp_path / "out")
  features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
  assert features["latent_motion.top"] == {
    "feature": {"dtype": "float32", "_type": "Value"},
    "length": SIZE,
    "_type": "List",
  }
  assert (
    features["latent_motion.top.valid"] == {"dtype": "bool", "_type": "Value"}
    and "action" in features
  )
  assert features["latent_motion.top.difference"] == {"dtype": "float32", "_type": "Value"}
  assert (
    stats["action"]["q99"] == [1.0] * 3
    and stats["latent_motion.top"]["min"][0] <= stats["latent_motion.top"]["q01"][0]
  )
