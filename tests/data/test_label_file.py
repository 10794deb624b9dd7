"""The files of a label set: which are finished, and what they depend on."""

import json

import pytest

from como_jax import errors
from como_jax.data import label_file, labels, shard_writer, shards
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
