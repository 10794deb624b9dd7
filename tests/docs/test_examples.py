"""The examples in docstrings print what they say."""

import doctest
import importlib

import numpy as np
import pytest

from como_jax.data import ingest, label_file, labels, sequences, shards, video_encode

MODULES = {  # examples in each
  "como_jax.chunks": 1,
  "como_jax.data.labels": 1,
  "como_jax.data.times": 1,
  "como_jax.exam.exam_set": 1,
  "como_jax.trees": 2,
}


@pytest.fixture(name="made", scope="module")
def _made(tmp_path_factory):
  """A directory with runs/labels: those of a video of 63 frames, at 40 a second."""
  root = tmp_path_factory.mktemp("examples")
  (root / "videos").mkdir()
  encoder = video_encode.H264Encoder(18, rate=40)
  for number in range(63):
    encoder.add(np.full((32, 32, 3), 60 + 2 * number, np.uint8))
  (root / "videos" / "robot.mp4").write_bytes(encoder.finish())
  data, folder = str(root / "shards"), root / "runs" / "labels"
  ingest.run(str(root / "videos"), data, workers=0, progress=False)
  folder.mkdir(parents=True)
  segments = shards.segments(shards.read_table(data))
  assert len(segments) == 1
  manifest = shards.read_manifest(data)
  (camera,) = manifest["cameras"]
  pairs = sequences.Pairs.from_times(shards.read_table(data).times(0), 0.15)
  motion = labels.Motion(np.ones((63, 32), np.float32), pairs.valid, pairs.difference)
  sidecar = label_file.write_shard(str(folder), 0, [(0, {camera: motion})], facts={})
  label_file.write_manifest(
    str(folder),
    [sidecar],
    data_shards=data,
    size=32,
    offset_seconds=0.15,
    cameras=[camera],
    model={},
    data={"path": "videos", "fingerprint": manifest["source"]["fingerprint"], "image_size": 32},
  )
  return root


@pytest.fixture(name="runs")
def _runs(made, monkeypatch):
  """The examples are run in that directory."""
  monkeypatch.chdir(made)


@pytest.mark.parametrize("name, count", MODULES.items())
def test_examples_in_docstrings(name, count, runs):
  module = importlib.import_module(name)
  found = [one for one in doctest.DocTestFinder().find(module) if one.examples]
  assert len(found) == count
  result = doctest.testmod(module)
  assert result.attempted and not result.failed
