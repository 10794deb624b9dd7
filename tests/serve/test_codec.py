"""The wire format: what goes out, what comes in, and what is refused."""

import tracemalloc

import msgpack
import numpy as np
import pytest

from como_jax import errors
from como_jax.serve import codec
from tests.serve import payloads

PARSED = [name for name, (frame, _) in payloads.BAD.items()]


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
                                   "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 4)])
def test_arrays_come_back_as_they_were(dtype, shape):
  array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
  found = codec.unpack(codec.pack({"a": array}))["a"]
  np.testing.assert_array_equal(found, array)
  assert found.dtype == array.dtype and found.shape == shape
  assert found.flags.owndata and found.flags.writeable and found.flags.c_contiguous


def test_everything_else_comes_back():
  value = {"text": "grüezi", "none": None, "yes": True, "list": [1, 2.5, "a"], "bytes": b"\x00\xff", "deep": {"a": [np.float32(0.5)]}}
  assert codec.unpack(codec.pack(value)) == value
  assert type(codec.unpack(codec.pack(np.int16(-3)))) is np.int16


def test_strided_and_big_endian_arrays():
  array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
  found = codec.unpack(codec.pack(array))
  np.testing.assert_array_equal(found, array)
  assert found.dtype.isnative


def test_the_bytes_are_openpis():
  array = np.array([[1, 2], [3, 4]], np.uint8)
  assert codec.pack({"a": array}) == (
    b"\x81\xa1a\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x04\x01\x02\x03\x04\xc4\x05dtype\xa3|u1\xc4\x05shape\x92\x02\x02")
  assert codec.pack(np.float32(0.5)) == b"\x83\xc4\x0d__npgeneric__\xc3\xc4\x04data\xcb?\xe0\x00\x00\x00\x00\x00\x00\xc4\x05dtype\xa3<f4"


def test_truth_values_are_zero_or_one():
  frame = msgpack.packb(payloads.array("|b1", (3,), b"\x00\x01\x07"))
  assert codec.unpack(frame).view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", [name for name in PARSED if "policy" not in name])
def test_a_bad_message_is_one_line(name):
  from como_jax.serve import presets
  frame, expected = payloads.BAD[name]
  with pytest.raises(errors.UserError) as caught:
    presets.Mapper("libero", ("front", "wrist"), state_dim=8)(codec.unpack(frame))
  assert expected in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None]), np.array(["a"]), np.zeros(2, complex), np.datetime64("2020-01-01"),
                                   np.zeros(1, [("a", "f4")]), 2**70])
def test_what_cannot_be_sent_is_named(value):
  with pytest.raises(errors.UserError, match="cannot be"):
    codec.pack({"a": value})


def test_size_is_checked_before_anything_else():
  with pytest.raises(errors.UserError, match="at most 100"):
    codec.unpack(bytes(101), codec.Limits(size=100))


@pytest.mark.parametrize("name", ["headers that claim much", "header that claims more", "many elements", "deeper than the parser",
                                  "gigantic shape", "many small arrays", "huge array header"])
def test_a_small_message_does_not_take_much_memory(name):
  frame, _ = payloads.BAD[name]
  tracemalloc.start()
  try:
    with pytest.raises(errors.UserError):
      codec.unpack(frame)
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
  finally:
    tracemalloc.stop()


def test_random_damage_never_escapes():
  generator = np.random.default_rng(0)
  good = np.frombuffer(payloads.message(), np.uint8)
  for _ in range(2000):
    frame = good.copy()
    where = generator.integers(0, len(frame), 3)
    frame[where] = generator.integers(0, 256, 3)
    try:
      codec.unpack(frame.tobytes())
    except errors.UserError as error:
      assert "\n" not in str(error)
