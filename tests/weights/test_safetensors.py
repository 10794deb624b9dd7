"""Files of the safetensors format: as the library writes and reads them, and broken ones."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy

from como_jax import errors, weights


def _header(entries, data=b""):
  text = json.dumps(entries).encode()
  return struct.pack("<Q", len(text)) + text + data


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
