"""LeRobot data sets with labels as columns: values, features, statistics, linked videos; copied or written anew."""

import json
import os
import pathlib

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from como_jax import errors
from como_jax.data import episode, labels, lerobot_labels, sources, video
from como_jax.data.sources import shards
from tests.data import makers, test_labels

LENGTHS = (8, 11, 6)
SIZE = 3


def label(data, folder, *, source="", stride=2, cameras=None, scale=1.0):
  """z[t] = (t, number of the episode, number of the camera) * scale."""
  os.makedirs(folder)
  table, sidecars = shards.read_table(data), []
  names = cameras or sorted({name for names in table.cameras for name in names})
  lengths = {name: int((table.start + table.length)[table.episode == name].max()) for name in table.episode}
  for shard in np.unique(table.shard):
    rows, clips = np.flatnonzero(table.shard == shard), []
    for row in rows:
      t = table.start[row] + np.arange(table.length[row])
      valid = t + stride < lengths[table.episode[row]]
      number = sorted(lengths).index(table.episode[row])
      arrays = {}
      for i, name in enumerate(names):
        z = np.stack([t, np.full(len(t), number), np.full(len(t), i)], 1) * valid[:, None] * scale
        arrays |= {f"z/{name}": z.astype(np.float32), f"valid/{name}": valid.astype(np.uint8)}
      clips.append(episode.Clip(table.episode[row], int(table.start[row]), 10.0, "", {}, arrays))
    sidecars.append(labels.write_shard(str(folder), shard, clips, frames=int(table.length[rows].sum()), facts={}))
  labels.write_manifest(str(folder), sidecars, table=table, size=SIZE, queries=1, dims=SIZE, offset_seconds=0.2, cameras=names,
                        model={"path": "m", "fingerprint": "aaaa"}, data={"path": source, "fingerprint": "", "image_size": 0})
  return str(folder)


def read(root):
  """(data table, episodes table, info, stats) of a data set with one file of each."""
  root = pathlib.Path(root)
  return (parquet.read_table(next((root / "data").rglob("*.parquet"))), parquet.read_table(next((root / "meta/episodes").rglob("*.parquet"))),
          *(json.loads((root / "meta" / name).read_text()) for name in ("info.json", "stats.json")))


def check(root, cameras, lengths, *, numbers=None):
  """Every value, feature and statistic of the new columns."""
  data, episodes, info, stats = read(root)
  numbers = numbers or range(len(lengths))
  for i, camera in enumerate(cameras):
    key = f"latent_motion.{camera}"
    assert data.schema.field(key).type == pa.list_(pa.float32(), SIZE) and data.schema.field(f"{key}.valid").type == pa.bool_()
    assert info["features"][key] == {"dtype": "float32", "shape": [SIZE], "names": None}
    assert info["features"][f"{key}.valid"] == {"dtype": "bool", "shape": [1], "names": None}
    z, valid = np.array(data[key].to_pylist()), np.array(data[f"{key}.valid"].to_pylist())
    expected = [(t, number, i, t + 2 < length) for number, length in zip(numbers, lengths, strict=True) for t in range(length)]
    assert valid.tolist() == [bool(one[3]) for one in expected]
    np.testing.assert_array_equal(z, [np.array(one[:3]) * one[3] for one in expected])
    whole = {"min": z[valid].min(0), "max": z[valid].max(0), "mean": z[valid].mean(0), "std": z[valid].std(0)}
    for name, value in whole.items():
      np.testing.assert_allclose(stats[key][name], value, rtol=1e-9, atol=1e-12)
    assert stats[key]["count"] == [int(valid.sum())] and stats[f"{key}.valid"]["mean"] == [pytest.approx(valid.mean())]
    if any(name.startswith("stats/") for name in episodes.column_names):
      assert episodes[f"stats/{key}/max"].to_pylist() == [[length - 3, number, i] for number, length in zip(numbers, lengths)]
      assert episodes[f"stats/{key}.valid/count"].to_pylist() == [[length] for length in lengths]


def test_a_v3_data_set_is_copied_with_linked_videos(tmp_path):
  source = makers.lerobot_v30(tmp_path / "lerobot", LENGTHS)
  data = makers.shards(tmp_path / "s", source=sources.open_source(source), clip_frames=5, clip_overlap=2, episodes_per_shard=2)
  folder, output = label(data, tmp_path / "l", source=source), tmp_path / "out"
  lerobot_labels.check(str(output), source=source, shards_path=data, resume=False)
  line = lerobot_labels.export(folder, str(output), source=source, shards_path=data)
  assert "3 episodes, 25 rows, 38 motions" in line
  check(output, ("top", "wrist"), LENGTHS)
  before, after = read_source(source), read(output)[0]
  assert after.select(before.column_names).equals(before)
  assert parquet.ParquetFile(next(output.rglob("data/*/*.parquet"))).num_row_groups == 4  # as in the source
  film = pathlib.Path("videos/observation.images.top/chunk-000/file-000.mp4")
  assert os.path.samefile(pathlib.Path(source) / film, output / film)
  info = read(output)[2]
  assert info["unknown_key"] == 1 and info["total_frames"] == 25
  assert sorted(path.name for path in tmp_path.iterdir()) == ["l", "lerobot", "out", "s"]
  opened = sources.open_source(str(output))  # still a data set that our own reader takes
  assert len(opened) == 3 and opened[1].arrays["action"].shape == (11, 3)
  note = json.loads((output / lerobot_labels.NOTE).read_text())
  assert note["fingerprint"] == labels.fingerprint(folder) and note["offset_seconds"] == 0.2


def read_source(source):
  return parquet.read_table(next(pathlib.Path(source, "data").rglob("*.parquet")))


def test_episodes_without_labels_get_none(tmp_path):
  """An episode that ingest put into quarantine is in the source still."""
  source = makers.lerobot_v30(tmp_path / "lerobot", LENGTHS)

  class Broken(type(sources.open_source(source))):
    def __getitem__(self, i):
      if i == 1:
        raise sources.Unreadable("broken")
      return super().__getitem__(i)

  data = makers.shards(tmp_path / "s", source=Broken(source))
  lerobot_labels.export(label(data, tmp_path / "l"), str(tmp_path / "out"), source=source, shards_path=data)
  table, episodes, _, stats = read(tmp_path / "out")
  valid = np.array(table["latent_motion.top.valid"].to_pylist())
  number = np.array(table["episode_index"].to_pylist())
  assert valid[number == 0].sum() == 6 and not valid[number == 1].any() and valid[number == 2].sum() == 4
  assert episodes["stats/latent_motion.top/count"].to_pylist() == [[6], [0], [4]] and stats["latent_motion.top"]["count"] == [10]


@pytest.mark.parametrize("kind", ["v2.1", "videos", "shards"])
def test_anything_else_is_written_anew(tmp_path, kind):
  if kind == "v2.1":
    source = makers.lerobot_v21(tmp_path / "source", LENGTHS)
  elif kind == "videos":
    source = makers.video_folder(tmp_path / "source", LENGTHS)
  else:
    source = makers.shards(tmp_path / "source", LENGTHS, clip_frames=5)
  opened = sources.open_source(source)
  data = makers.shards(tmp_path / "s", source=opened, clip_frames=5, clip_overlap=1, image_size=32, episodes_per_shard=2)
  cameras = ["top"] if kind == "v2.1" else ["camera"]  # one of two cameras labelled
  folder = label(data, tmp_path / "l", cameras=cameras)
  lerobot_labels.check(str(tmp_path / "out"), source=source, shards_path=data, resume=False)
  lerobot_labels.export(folder, str(tmp_path / "out"), source=source, shards_path=data)
  names = sorted(opened.names)
  table = shards.read_table(data)
  lengths = {name: int((table.start + table.length)[table.episode == name].max()) for name in names}
  order = list(dict.fromkeys(table.episode))
  check(tmp_path / "out", cameras, [lengths[name] for name in order], numbers=[names.index(name) for name in order])
  again = sources.open_source(str(tmp_path / "out"))
  assert again.cameras == (("top", "wrist") if kind == "v2.1" else ("camera",)) and len(again) == 3
  first, before = again[0], opened[list(opened.names).index(order[0])]
  assert first.task == before.task and ("action" in first.arrays) == (kind != "videos")
  if kind != "videos":
    np.testing.assert_array_equal(first.arrays["action"], before.arrays["action"])
    assert again.info["action_names"] == ["a", "b", "c"]
  frames, stored = ([frame.mean() for frame in one.cameras[cameras[0]](video.Geometry(32))] for one in (first, before))
  np.testing.assert_allclose(frames, stored, atol=2)  # grey levels, 6 from frame to frame


def test_damaged_episodes_are_left_out_of_a_new_data_set(tmp_path):
  data = makers.shards(tmp_path / "s", LENGTHS)
  folder = label(data, tmp_path / "l")
  test_labels.damage(data, shards.read_table(data), 1)
  line = lerobot_labels.export(folder, str(tmp_path / "out"), source=data, shards_path=data)
  assert "2 episodes, 14 rows" in line and "1 damaged episodes left out (episode_1)" in line
  check(tmp_path / "out", ["camera"], (8, 6), numbers=(0, 2))


def test_refusals_and_what_is_there_already(tmp_path):
  source = makers.lerobot_v30(tmp_path / "lerobot", LENGTHS)
  data = makers.shards(tmp_path / "s", source=sources.open_source(source))
  folder, output = label(data, tmp_path / "l"), str(tmp_path / "out")
  lerobot_labels.export(folder, output, source=source, shards_path=data)
  assert "is there already" in lerobot_labels.export(folder, output, source=source, shards_path=data)
  lerobot_labels.check(output, source=source, shards_path=data, resume=True)
  with pytest.raises(errors.UserError, match="out has the column 'latent_motion.top' already"):
    lerobot_labels.check(str(tmp_path / "twice"), source=output, shards_path=data, resume=False)
  with pytest.raises(errors.UserError, match="out exists already"):
    lerobot_labels.check(output, source=source, shards_path=data, resume=False)
  with pytest.raises(errors.UserError, match="holds other labels"):
    lerobot_labels.export(label(data, tmp_path / "l2", scale=2.0), output, source=source, shards_path=data)
  mixed = makers.shards(tmp_path / "mixed", (5, 5), fps=(10.0, 20.0))
  with pytest.raises(errors.UserError, match="the clips have 10, 20 frames a second"):
    lerobot_labels.check(str(tmp_path / "new"), source=mixed, shards_path=mixed, resume=False)
  short = makers.shards(tmp_path / "short", source=sources.open_source(makers.lerobot_v30(tmp_path / "other", (8, 4, 6))))
  with pytest.raises(errors.UserError, match="episode 1 has more than .* rows, its labels end at 4"):
    lerobot_labels.export(label(short, tmp_path / "l3"), str(tmp_path / "new"), source=source, shards_path=short)
  assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") or path.name == "new"]


def test_features_kept_by_hugging_face_follow(tmp_path):
  source = pathlib.Path(makers.lerobot_v30(tmp_path / "lerobot", LENGTHS))
  file = next((source / "data").rglob("*.parquet"))
  held = {"info": {"features": {"action": {"feature": {"dtype": "float32", "_type": "Value"}, "length": 3, "_type": "List"}}}}
  parquet.write_table(parquet.read_table(file).replace_schema_metadata({"huggingface": json.dumps(held)}), file)
  (source / "meta/stats.json").write_text(json.dumps({"action": {"mean": [0.0] * 3, "q01": [0.0] * 3, "q99": [1.0] * 3}}))
  data = makers.shards(tmp_path / "s", source=sources.open_source(str(source)))
  lerobot_labels.export(label(data, tmp_path / "l", cameras=["top"]), str(tmp_path / "out"), source=str(source), shards_path=data)
  table, _, _, stats = read(tmp_path / "out")
  features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
  assert features["latent_motion.top"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": SIZE, "_type": "List"}
  assert features["latent_motion.top.valid"] == {"dtype": "bool", "_type": "Value"} and "action" in features
  assert stats["action"]["q99"] == [1.0] * 3 and stats["latent_motion.top"]["min"][0] <= stats["latent_motion.top"]["q01"][0]
