"""A shard's numbers in a file of their own, with checksums of blocks and a sketch."""

import os

import numpy as np
import pytest
import xxhash

from como_jax import errors
from como_jax.data import number_file, shard_file, summaries
from tests.data.small_clips import small_clip


def written(tmp_path, *arrays):
  """The number file of a shard of clips with these arrays."""
  writer = shard_file.Writer(str(tmp_path / "s.shard"))
  for each in arrays:
    length = len(next(iter(each.values())))
    writer.add(small_clip(length=length, frames={}, arrays=each))
  shard = shard_file.ShardFile(str(tmp_path / "s.shard"), writer.close())
  path = number_file.path_of(shard.path)
  number_file.write(shard, path)
  return path


def test_columns_blocks_and_sketches(tmp_path):
  one, two = np.arange(40.0).reshape(20, 2), np.arange(6.0).reshape(3, 2) - 9
  path = written(
    tmp_path, {"a": one, "t": np.arange(20)}, {"t": np.arange(2)}, {"a": two, "t": np.arange(3)}
  )
  assert path == str(tmp_path / "s.numbers") and sorted(os.listdir(tmp_path)) == [
    "s.numbers",
    "s.shard",
  ]
  found = number_file.NumberFile(path)
  np.testing.assert_array_equal(found.arrays["a"].reshape(-1, 2), np.concatenate([one, two]))
  assert found.arrays["t"].tolist() == [*range(20), 0, 1, 0, 1, 2]
  blocks = [one[:8], one[8:16], one[16:], two]
  assert found.arrays["xxh64/a"].tolist() == [
    xxhash.xxh64_intdigest(part.tobytes()) for part in blocks
  ]
  assert len(found.arrays["xxh64/t"]) == 5 and "sketch/t" not in found.arrays
  np.testing.assert_array_equal(
    found.arrays["sketch/a"], summaries.sketch(np.concatenate([one, two]))
  )
  with open(path, "rb") as file:
    file.seek(found.starts["a"])
    assert file.read(320) == one.tobytes()


def test_an_array_of_several_widths_has_no_sketch(tmp_path):
  path = written(tmp_path, {"a": np.ones((4, 2))}, {"a": np.ones((4, 3))})
  assert set(number_file.NumberFile(path).arrays) == {"a", "xxh64/a"}
  assert [number_file.one_width(np.array(w)) for w in ([0, 3, 3], [2, 3], [0], [-1])] == [
    3,
    0,
    0,
    -1,
  ]


def test_other_files_are_refused(tmp_path, monkeypatch):
  path = written(tmp_path, {"a": np.ones((4, 2))})
  monkeypatch.setattr(number_file, "VERSION", 2)
  with pytest.raises(errors.UserError, match="has version 1, this program reads version 2$"):
    number_file.NumberFile(path)
  for content in (b"no columns", None):
    os.remove(path) if content is None else (tmp_path / "s.numbers").write_bytes(content)
    with pytest.raises(
      errors.UserError, match="is missing or damaged .*: delete it and run ingest"
    ):
      number_file.NumberFile(path)
