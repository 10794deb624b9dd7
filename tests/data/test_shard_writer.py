"""Files of shards: written at once, and a unit of work."""

import errno
import json
import os
import pathlib

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import ingest_settings, shard_writer, video
from tests.data import makers


def test_files_are_written_at_once(tmp_path):
  path = str(tmp_path / "x.json")
  shard_writer.write_json(
    path, {"a": np.int64(3), "b": np.array([1.5]), "c": np.bool_(True), "d": np.float32(0.5)}
  )
  assert pathlib.Path(
    path
  ).read_text() == '{\n "a": 3,\n "b": [\n  1.5\n ],\n "c": true,\n "d": 0.5\n}' and os.listdir(
    tmp_path
  ) == ["x.json"]
  with pytest.raises(TypeError, match="^set cannot be written as JSON$"):
    shard_writer.write_json(path, {"a": {1}})
  assert shard_writer.read_json(path)["a"] == 3 and shard_writer.read_json(path + "no") is None
  (tmp_path / "x.json").write_text("{")
  assert shard_writer.read_json(path) is None and shard_writer.sidecar_path(
    "d", 12
  ) == os.path.join("d", "shard-00012.json")


class Failing(makers.Synthetic):
  """Its episodes fail as they are told to."""

  def __init__(self, lengths, fail):
    super().__init__(lengths)
    self.fail = fail

  def __getitem__(self, i):
    raw = super().__getitem__(i)
    raw.notes.extend(["odd", "odd", f"note {i}"])
    if i in self.fail:
      raise self.fail[i]
    return raw


def test_a_unit_of_work(tmp_path):
  said, settings = ([], ingest_settings.Settings(0, "squash", "jpeg", 95, 4, ("camera",), 9, {}))
  source = Failing((3, 9, 5, 6, 2), {1: ValueError("a\nb"), 3: video.UnreadableError("bad")})
  unit = shard_writer.Unit(2, 0, 5, {4: "kills"}, {})
  sidecar = shard_writer.WriteShard(source, str(tmp_path), settings)(unit, said.append)
  assert sidecar["quarantine"] == [
    {"name": "episode_1", "reason": "ValueError: a b"},
    {"name": "episode_3", "reason": "bad"},
    {"name": "episode_4", "reason": "kills"},
  ]
  assert sidecar["notes"] == [
    {"name": f"episode_{i}", "note": note} for i in (0, 2) for note in ("odd", f"note {i}")
  ]
  assert (
    sidecar["frames"] == {"kept": 8}
    and sidecar["file"] == "shard-00002.shard"
    and sidecar["shard"] == 2
  )
  assert [(row["episode"], row["clip"], row["shard"], row["start"]) for row in sidecar["rows"]] == [
    ("episode_0", 0, 2, 0),
    ("episode_2", 1, 2, 0),
    ("episode_2", 2, 2, 4),
  ]
  one = shard_writer.Progress
  assert said == [
    one(0),
    one(0, 3),
    one(0, 0, True),
    one(1),
    one(1, 0, True),
    one(2),
    one(2, 5),
    one(2, 0, True),
    one(3),
    one(3, 0, True),
    one(4),
    one(4, 0, True),
  ]
  assert sorted(os.listdir(tmp_path)) == [
    "shard-00002.json",
    "shard-00002.numbers",
    "shard-00002.shard",
  ]
  assert shard_writer.read_json(str(tmp_path / "shard-00002.json")) == json.loads(
    json.dumps(sidecar, default=shard_writer._plain)
  )
  none = shard_writer.WriteShard(source, str(tmp_path), settings)(
    shard_writer.Unit(3, 3, 4, {}, {}), said.append
  )
  assert (
    none["file"] is None and none["rows"] == [] and not (tmp_path / "shard-00003.shard").exists()
  )


@pytest.mark.parametrize(
  "number, fatal",
  [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EMFILE, True), (errno.EIO, False)],
)
def test_a_full_disk_is_no_bad_episode(tmp_path, number, fatal):
  settings = ingest_settings.Settings(0, "squash", "jpeg", 95, 4, ("camera",), 9, {})
  write = shard_writer.WriteShard(
    Failing((3,), {0: OSError(number, "no")}), str(tmp_path), settings
  )
  if fatal:
    with pytest.raises(OSError):
      write(shard_writer.Unit(0, 0, 1, {}, {}), lambda message: None)
  else:
    assert (
      write(shard_writer.Unit(0, 0, 1, {}, {}), lambda message: None)["quarantine"][0]["reason"]
      == f"OSError: [Errno {number}] no"
    )
  with pytest.raises(errors.UserError):
    shard_writer.WriteShard(Failing((3,), {0: errors.UserError("x")}), str(tmp_path), settings)(
      shard_writer.Unit(0, 0, 1, {}, {}), lambda message: None
    )
