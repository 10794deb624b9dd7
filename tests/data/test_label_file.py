"""The files of a label set: which are finished, and what they depend on."""

import json
import pathlib

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import (
  frame_index,
  index_writer,
  label_file,
  labels,
  number_file,
  shard_file,
  shard_writer,
  shards,
)
from tests.data import test_labels

FACTS, write = test_labels.FACTS, test_labels.write
data = test_labels._data


def test_finished_shards(data, tmp_path):
  folder = write(data, tmp_path / "l")
  # 3 clips of episode 0, 2 of episode 1
  assert label_file.finished(folder, 0, facts=FACTS)["clips"] == 5
  assert label_file.finished(folder, 7, facts=FACTS) is None
  with pytest.raises(errors.UserError, match="model 'aaaa', now it is 'bbbb'"):
    label_file.finished(folder, 0, facts={"model": "bbbb"})
  (tmp_path / "l" / labels.file_name(0)).write_bytes(b"torn")
  assert label_file.finished(folder, 0, facts=FACTS) is None
  (tmp_path / "l" / "labels-00001.json").write_text("{")
  assert label_file.finished(folder, 1, facts=FACTS) is None


def test_no_label_at_all_is_said(data, tmp_path):
  with pytest.raises(errors.UserError, match="no frame has a label"):
    write(data, tmp_path / "l", damaged={(shard, clip) for shard in (0, 1) for clip in range(9)})


def test_sidecars_hold_no_time_and_no_process(data, tmp_path):
  write(data, tmp_path / "a")
  write(data, tmp_path / "b")
  for name in ("labels.json", "labels-00000.json", labels.file_name(0), shards.RECORDS):
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
  assert json.loads((tmp_path / "a/labels-00000.json").read_text()) == shard_writer.read_json(
    labels.sidecar_path(str(tmp_path / "a"), 0)
  )


def test_counts_of_labels(tmp_path):
  def motion(*valid):
    return labels.Motion(np.ones((len(valid), 2)), np.array(valid, bool), np.ones(len(valid)))

  clips = [(0, {"a": motion(1, 1, 0), "b": motion(1, 0, 0)}), (3, {"a": motion(0), "b": motion(1)})]
  facts = dict(facts={"m": 1}, left_out=1, at_end=2, damaged=[{"clip": 0, "camera": "a"}])
  sidecar = label_file.write_shard(str(tmp_path), 3, clips, **facts)
  assert {
    key: sidecar[key]
    for key in (
      "shard",
      "file",
      "clips",
      "frames",
      "valid",
      "left_out",
      "at_end",
      "unreadable",
      "facts",
      "damaged",
    )
  } == {
    "shard": 3,
    "file": "labels-00003.labels",
    "clips": 2,
    "frames": 4,
    "valid": 4,
    "left_out": 1,
    "at_end": 2,
    "unreadable": 1,
    "facts": {"m": 1},
    "damaged": [{"clip": 0, "camera": "a"}],
  }
  opened = shard_file.ShardFile(str(tmp_path / "labels-00003.labels"))
  assert (
    opened.index["start"].tolist() == [0, 3]
    and opened.array(0, "valid/a").tolist() == [1, 1, 0]
    and opened.array(0, "z/a").dtype == np.float32
  )
  assert label_file.finished(str(tmp_path), 3, facts={"m": 1}) == sidecar


def test_size_and_footer_say_that_a_file_is_whole(data, tmp_path):
  folder = write(data, tmp_path / "l")
  file = tmp_path / "l" / labels.file_name(0)
  content = file.read_bytes()
  for torn in (content[:-1], content + b"x", content[:-20] + b"x" + content[-19:], b""):
    file.write_bytes(torn)
    assert label_file.finished(folder, 0, facts=FACTS) is None
  file.write_bytes(b"x" + content[1:])  # its content is not read: `labels.verify` finds this
  assert label_file.finished(folder, 0, facts=FACTS)["clips"] == 5
  file.unlink()
  assert label_file.finished(folder, 0, facts=FACTS) is None


def test_statistics_of_many_labels_are_merged_from_those_of_the_shards(data, tmp_path, monkeypatch):
  write(data, tmp_path / "exact")
  exact = labels.Labels(str(tmp_path / "exact")).statistics
  monkeypatch.setattr(label_file, "_EXACT", 10)
  opened = []
  once = label_file.shard_file.ShardFile
  monkeypatch.setattr(
    label_file.shard_file, "ShardFile", lambda *given: opened.append(given) or once(*given)
  )
  # the index is another matter: see the next test
  monkeypatch.setattr(label_file.index_writer, "write", lambda *given, **more: True)
  write(data, tmp_path / "merged")
  merged = labels.Labels(str(tmp_path / "merged")).statistics
  assert merged.count == exact.count and not opened, "no file of labels is read again"
  for name in ("mean", "std", "min", "max"):
    np.testing.assert_allclose(getattr(merged, name), getattr(exact, name), rtol=1e-9, atol=1e-12)
  spread = exact.max - exact.min
  for name in ("q01", "q99"):
    assert (np.abs(getattr(merged, name) - getattr(exact, name)) <= 0.05 * spread).all()
  # a sidecar of an older version has no statistics: the labels are read
  read = shard_writer.read_json
  monkeypatch.setattr(
    shard_writer,
    "read_json",
    lambda path: {k: v for k, v in read(path).items() if k != "statistics"},
  )
  sidecars = [label_file.finished(str(tmp_path / "merged"), i, facts=FACTS) for i in (0, 1)]
  again = label_file._statistics(str(tmp_path / "merged"), sidecars, ("left",))
  assert again.to_json() == exact.to_json() and len(opened) == 2


def shard_of(folder, number):
  return labels.read_manifest(str(folder))["shards"][number]


def test_the_merge_of_many_labels_reads_none_of_them(data, tmp_path, monkeypatch):
  plain = pathlib.Path(write(data, tmp_path / "plain"))
  monkeypatch.setattr(label_file, "_EXACT", 10)
  arrays, array = [], shard_file.ShardFile.array
  monkeypatch.setattr(
    shard_file.ShardFile, "array", lambda *given: arrays.append(given[1:]) or array(*given)
  )
  folder = pathlib.Path(write(data, tmp_path / "merged"))
  assert not arrays, "no label is read, for the statistics and the index"
  index = (folder / frame_index.FILE).read_bytes()
  assert index == (plain / frame_index.FILE).read_bytes()
  names = sorted(labels.Labels(str(folder))._rows_of.index.text)
  assert {"dtype/z/left", "dtype/valid/left", "dtype/difference/left"} <= set(names)

  def merged(**changes):
    del arrays[:]
    (folder / frame_index.FILE).unlink()
    entries = [{**entry, **changes} for entry in labels.read_manifest(str(folder))["shards"]]
    index_writer.write(str(folder), entries, own_numbers=False)
    return (folder / frame_index.FILE).read_bytes()

  assert merged() == index and not arrays
  file = str(folder / labels.file_name(0))
  known = number_file.read_checksums(file, index_xxh64=shard_of(folder, 0)["index_xxh64"])
  others = {name: [0] * len(values) for name, values in known.items()}
  number_file.write_checksums(file, f"{file}.tmp", others, index_xxh64="0")
  path = folder / "labels-00000.checksums"
  of_others = path.read_bytes()
  for i, damaged in enumerate((b"torn", of_others, None)):  # None: of an older version
    path.write_bytes(damaged) if damaged else path.unlink()
    assert merged() == index, i
    assert {name for _, name in arrays} == {"z/left", "valid/left", "difference/left"}
    assert {clip for clip, _ in arrays} == set(range(5)), "shard 0 alone is read"


def test_the_files_of_a_shard_of_labels(data, tmp_path):
  folder = write(data, tmp_path / "l")
  files = label_file.files(1)
  assert files == ["labels-00001.checksums", "labels-00001.labels", "labels-00001.json"]
  assert {file.name for file in pathlib.Path(folder).glob("labels-00001*")} == set(files)
