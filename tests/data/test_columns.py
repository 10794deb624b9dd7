"""Column files hold what is put into them, where their header says."""

import struct

import numpy as np
import pytest
import safetensors.numpy

from como_jax.data import columns


def test_what_is_filled_in_is_read(tmp_path):
  path = tmp_path / "c"
  shapes = {"a": (np.uint64, (3,)), "b": (np.float32, (2, 5)), "none": (np.int32, (0,))}
  with columns.Columns(str(path), shapes | {"c": (np.uint8, (7,))}, {"k": "v"}) as out:
    assert not out.arrays["b"].any()
    out.arrays["a"][:] = [1, 2**63, 3]
    out.arrays["b"][1] = np.arange(5)
    out.arrays["c"][-1] = 9
    starts = dict(out.starts)
  content = path.read_bytes()
  arrays, found, text = columns.parse(memoryview(content))
  assert text == {"k": "v"} and found == starts and starts["a"] % 8 == 0
  assert arrays["a"].tolist() == [1, 2**63, 3] and arrays["b"][1].tolist() == [0, 1, 2, 3, 4]
  assert arrays["none"].shape == (0,) and arrays["c"].tolist() == [0] * 6 + [9]
  assert content[starts["b"] + 20 : starts["c"]] == np.arange(5, dtype="<f4").tobytes()
  other = safetensors.numpy.load(content)
  assert other.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(other[name], array)


def test_other_bytes_are_refused(tmp_path):
  with columns.Columns(str(tmp_path / "c"), {"a": (np.uint8, (9,))}, {}):
    pass
  content = (tmp_path / "c").read_bytes()
  for bad in (b"", b"x" * 40, content[:-3], content[:30]):
    with pytest.raises((ValueError, KeyError, TypeError, struct.error)):
      columns.parse(memoryview(bad))
