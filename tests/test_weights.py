"""como_jax/weights: weights-only folders, whole or not at all."""

import json
import os
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from como_jax import errors, weights

PARAMS = {
  "encoder": {
    "norm": {"scale": np.arange(6, dtype=np.float32).reshape(2, 3) / 7},
    "cls": np.float32(1.5),
  },
  "steps": np.arange(3),
  "odd": np.ones((3, 1), np.uint8),
  "empty": np.zeros((0, 2), np.float32),
}


def test_round_trip_keeps_values_dtypes_and_config(tmp_path):
  folder = weights.save(tmp_path / "a" / "w", PARAMS, {"kind": "x", "n": 1})
  params, config = weights.load(folder)
  assert config == {"kind": "x", "n": 1} and sorted(os.listdir(folder)) == [
    "config.json",
    "params.safetensors",
  ]
  np.testing.assert_array_equal(
    params["encoder"]["norm"]["scale"], PARAMS["encoder"]["norm"]["scale"]
  )
  assert params["encoder"]["cls"].shape == () and params["encoder"]["cls"] == 1.5
  assert (
    params["steps"].dtype == np.int64
    and params["odd"].dtype == np.uint8
    and params["empty"].shape == (0, 2)
  )
  assert os.listdir(tmp_path / "a") == ["w"]


def test_bfloat16_on_disk_float32_in_hand(tmp_path):
  weights.save(tmp_path / "w", PARAMS, {}, dtype="bfloat16")
  stored, _ = weights.load(tmp_path / "w", dtype=None)
  loaded, _ = weights.load(tmp_path / "w")
  assert (
    stored["encoder"]["norm"]["scale"].dtype == ml_dtypes.bfloat16
    and stored["steps"].dtype == np.int64
  )
  expected = PARAMS["encoder"]["norm"]["scale"].astype(ml_dtypes.bfloat16).astype(np.float32)
  np.testing.assert_array_equal(loaded["encoder"]["norm"]["scale"], expected)


def test_the_safetensors_package_reads_ours_and_we_read_its(tmp_path):
  arrays = {
    "a/b": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32),
    "c": np.arange(5),
    "d": np.float16([1, 2]),
  }
  weights.write_safetensors(tmp_path / "ours", arrays)
  safetensors.numpy.save_file(arrays, tmp_path / "theirs", metadata={"format": "np"})
  theirs, ours = (
    safetensors.numpy.load_file(tmp_path / "ours"),
    weights.read_safetensors(tmp_path / "theirs"),
  )
  for name, array in arrays.items():
    for found in (theirs[name], ours[name]):
      np.testing.assert_array_equal(found, array)
      assert found.dtype == array.dtype


@pytest.mark.reference
def test_bfloat16_as_torch_writes_and_reads_it(tmp_path):
  import safetensors.torch
  import torch

  tensor = torch.randn(3, 2).bfloat16()
  safetensors.torch.save_file({"a": tensor}, tmp_path / "theirs")
  found = weights.read_safetensors(tmp_path / "theirs")["a"]
  np.testing.assert_array_equal(found.astype(np.float32), tensor.float().numpy())
  weights.write_safetensors(tmp_path / "ours", {"a": found})
  assert torch.equal(safetensors.torch.load_file(tmp_path / "ours")["a"], tensor)


def test_existing_folders_are_only_replaced_when_asked_and_only_ours(tmp_path):
  weights.save(tmp_path / "w", PARAMS, {"n": 1})
  with pytest.raises(errors.UserError, match="already exists"):
    weights.save(tmp_path / "w", PARAMS, {"n": 2})
  weights.save(tmp_path / "w", {"x": np.zeros(1, np.float32)}, {"n": 2}, overwrite=True)
  assert weights.load(tmp_path / "w")[1] == {"n": 2} and os.listdir(tmp_path) == ["w"]
  (tmp_path / "w" / "notes.txt").write_text("mine")
  with pytest.raises(errors.UserError, match="not a folder of weights only .*notes.txt"):
    weights.save(tmp_path / "w", PARAMS, {}, overwrite=True)
  with pytest.raises(errors.UserError, match="not a folder;"):
    weights.save(tmp_path / "w" / "notes.txt", PARAMS, {}, overwrite=True)
  assert weights.load(tmp_path / "w")[1] == {"n": 2}


def test_nothing_is_left_behind_when_saving_fails(tmp_path):
  with pytest.raises(errors.UserError, match="cannot save 'a': dtype complex64"):
    weights.save(tmp_path / "w", {"a": np.zeros(2, np.complex64)}, {})
  with pytest.raises(errors.UserError, match="not JSON"):
    weights.save(tmp_path / "w", PARAMS, {"a": np.zeros(1)})
  with pytest.raises(errors.UserError, match="did you mean 'bfloat16'"):
    weights.save(tmp_path / "w", PARAMS, {}, dtype="bfloat")
  assert os.listdir(tmp_path) == []
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="cannot write .*file"):
    weights.save(tmp_path / "file" / "w", PARAMS, {})


def test_missing_things_are_named(tmp_path):
  with pytest.raises(errors.UserError, match="nothing does not exist"):
    weights.load(tmp_path / "nothing")
  weights.save(tmp_path / "w", PARAMS, {})
  for name in ("config.json", "params.safetensors"):
    content = (tmp_path / "w" / name).read_bytes()
    os.remove(tmp_path / "w" / name)
    with pytest.raises(errors.UserError, match=f"cannot read .*{name}"):
      weights.load(tmp_path / "w")
    (tmp_path / "w" / name).write_bytes(content)
  (tmp_path / "w" / "config.json").write_text("{")
  with pytest.raises(errors.UserError, match="config.json is not JSON"):
    weights.load(tmp_path / "w")
  (tmp_path / "w" / "config.json").write_text("[]")
  with pytest.raises(errors.UserError, match="holds a JSON list"):
    weights.load(tmp_path / "w")


def _header(entries, data=b""):
  text = json.dumps(entries).encode()
  return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
  "content, message",
  [
    (b"", "not a safetensors file"),
    (b"hello there, this is text", "not a safetensors file"),
    (struct.pack("<Q", 10) + b"{", "cut off in its header"),
    (struct.pack("<Q", 4) + b"abcd", "header cannot be read"),
    (_header([1, 2]), "header cannot be read"),
    (_header({"a": {"dtype": "F32"}}), "header cannot be read"),
    (
      _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, bytes(4)),
      "header cannot be read",
    ),
    (
      _header({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
      "dtype 'F31'; did you mean",
    ),
    (
      _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
      "has 8 bytes, expected 4",
    ),
    (
      _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(5)),
      "truncated: 'a' ends at",
    ),
    (
      _header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, bytes(8)),
      "not a count",
    ),
    (
      _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, bytes(8)),
      "not a count",
    ),
  ],
)
def test_garbage_is_refused_by_name(tmp_path, content, message):
  path = tmp_path / "broken.safetensors"
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match=f"broken.safetensors.*{message}"):
    weights.read_safetensors(path)


def test_every_truncation_is_refused(tmp_path):
  weights.write_safetensors(
    tmp_path / "whole", {"a": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}
  )
  content = (tmp_path / "whole").read_bytes()
  for length in range(len(content)):
    (tmp_path / "cut").write_bytes(content[:length])
    with pytest.raises(errors.UserError, match="cut"):
      weights.read_safetensors(tmp_path / "cut")


def test_a_name_that_is_both_leaf_and_group_is_refused(tmp_path):
  weights.save(tmp_path / "w", {}, {})
  weights.write_safetensors(
    tmp_path / "w" / "params.safetensors", {"a": np.zeros(1), "a/b": np.zeros(1)}
  )
  with pytest.raises(errors.UserError, match="'a' is both"):
    weights.load(tmp_path / "w")
