"""The table and the segments of a folder of shards; damage and other versions."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import shards, sources
from tests.data import ingests, makers

COMPAT = pathlib.Path(__file__).parent.parent / "compat"


def test_shards_of_version_1_are_refused_in_one_line(tmp_path):
  old = str(COMPAT / "shards_v1")
  with pytest.raises(
    errors.UserError,
    match="manifest.json has version 1, this program reads version 2: ingest the source again$",
  ):
    shards.read_table(old)
  with pytest.raises(errors.UserError, match="ingest the source again"):
    ingests.ensure_shards(old, image_size=16, cache_dir=str(tmp_path))
  shutil.copytree(old, tmp_path / "begun")
  os.remove(tmp_path / "begun" / "manifest.json")
  before = sorted(os.listdir(tmp_path / "begun"))
  with pytest.raises(
    errors.UserError, match="begun by another version of como_jax .format 1, now 2."
  ):
    ingests.run(makers.Synthetic((3, 2)), str(tmp_path / "begun"), workers=0, progress=False)
  assert sorted(set(os.listdir(tmp_path / "begun")) - {".lock"}) == before


def test_damaged_and_other_shards_are_named(tmp_path):
  path = makers.shards(tmp_path / "s", (40, 40, 40), size=(64, 64))
  makers.damage(path, "episode_1", frame=30)
  segments, read = makers.segments(path)
  assert (
    read.images(0, "camera", [30]).shape == (1, 64, 64, 3)
    and len(read.images(1, "camera", range(30))) == 30
  )
  with pytest.raises(
    sources.Unreadable,
    match=r"shard-00000.shard clip 1 camera 'camera': the checksum of blob 30 differs",
  ):
    read.images(1, "camera", [29, 30])
  assert "shard-00000.shard has changed" in shards.verify(path)[0]
  os.remove(f"{path}/shard-00000.shard")
  with pytest.raises(sources.Unreadable, match="shard-00000.shard"):
    makers.segments(path)[1].images(0, "camera", [0])
  manifest = json.loads(pathlib.Path(f"{path}/manifest.json").read_text())
  for version, advice in ((99, "update como_jax"), (1, "ingest the source again")):
    pathlib.Path(f"{path}/manifest.json").write_text(json.dumps(manifest | {"version": version}))
    with pytest.raises(
      errors.UserError, match=f"version {version}, this program reads version 2: {advice}"
    ):
      shards.read_manifest(path)


def test_a_flipped_bit_of_the_table_is_seen(tmp_path):
  path = makers.shards(tmp_path / "s", (12, 9, 15, 7))
  data = pathlib.Path(f"{path}/records.parquet").read_bytes()
  whole, refused = shards.read_table(path), 0
  for at in range(8, len(data) - 8, max(1, len(data) // 60)):
    pathlib.Path(f"{path}/records.parquet").write_bytes(
      data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
    )
    try:
      found = shards.read_table(path)
    except errors.UserError as error:
      assert "records.parquet is not the table" in str(error)
      refused += 1
      continue
    for field in dataclasses.fields(whole):
      np.testing.assert_equal(getattr(found, field.name), getattr(whole, field.name))
  assert refused > 10
