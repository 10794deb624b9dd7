"""Files and folders of foreign checkpoints."""

import hashlib
import json
import os

import ml_dtypes
import numpy as np
import pytest

from como_jax import errors, weights
from como_jax.convert import mae
from tests.convert import layouts
from tests.convert.layouts import flat_leaves, write_tensors


def test_folder_with_shards_and_config(tmp_path):
  source, folder = layouts.huggingface(decoder=True), tmp_path / "hub"
  folder.mkdir()
  places = {
    name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(source)
  }
  for file in set(places.values()):
    write_tensors(
      folder / file, {name: leaf for name, leaf in source.items() if places[name] == file}
    )
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
  (folder / "config.json").write_text(
    json.dumps({"num_attention_heads": 4, "layer_norm_eps": 1e-5, "hidden_size": 32})
  )
  mae.convert(folder, tmp_path / "out")
  params, config = weights.load(tmp_path / "out")
  expected = mae.from_tensors(source, heads=4)[0]
  assert all(
    np.array_equal(leaf, flat_leaves(params)[name]) for name, leaf in flat_leaves(expected).items()
  )
  assert (
    config["size"] == "32x3x4/8"
    and config["layer_norm_epsilon"] == 1e-5
    and config["source"] == "hub"
  )
  os.remove(folder / "model-00002-of-00002.safetensors")
  with pytest.raises(errors.UserError, match="lists the shard 'model-00002"):
    mae.convert(folder, tmp_path / "other")


def test_torch_file_and_its_digest(tmp_path):
  path = layouts.torch_file(
    tmp_path / "mae.pth", layouts.original(), wrap=lambda tensors: {"model": tensors}
  )
  mae.convert(path, tmp_path / "out", dtype="bfloat16", heads=2)
  params, config = weights.load(tmp_path / "out", dtype=None)
  assert {leaf.dtype for leaf in flat_leaves(params).values()} == {np.dtype(ml_dtypes.bfloat16)}
  assert (
    config["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    and config["source"] == "mae.pth"
  )


def test_sources_that_cannot_be_read_are_named(tmp_path):
  with pytest.raises(errors.UserError, match="nowhere does not exist"):
    mae.convert(tmp_path / "nowhere", tmp_path / "out")
  with pytest.raises(errors.UserError, match="has 0 checkpoint files"):
    mae.convert(tmp_path, tmp_path / "out" / "w")
  for name in ("a.pth", "b.pth"):
    (tmp_path / name).write_bytes(b"hello, this is not a checkpoint")
  with pytest.raises(errors.UserError, match="has 2 checkpoint files: a.pth, b.pth"):
    mae.convert(tmp_path, tmp_path / "out" / "w")
  with pytest.raises(errors.UserError, match="a.pth is not a safetensors file"):
    mae.convert(tmp_path / "a.pth", tmp_path / "out")
