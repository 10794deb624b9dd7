"""The wire format: what goes out, what comes in, and what is refused."""

import tracemalloc
import warnings

import msgpack
import numpy as np
import pytest

from como_jax import errors
from como_jax.serve import codec
from tests.serve import payloads

PARSED = [name for name, (frame, _) in payloads.BAD.items()]


@pytest.mark.parametrize(
  "dtype",
  [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
  ],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 1, 4)])
def test_arrays_come_back_as_they_were(dtype, shape):
  array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
  found = codec.unpack(codec.pack({"a": array}))["a"]
  np.testing.assert_array_equal(found, array)
  assert found.dtype == array.dtype and found.shape == shape
  assert found.flags.owndata and found.flags.writeable and found.flags.c_contiguous


def test_everything_else_comes_back():
  value = {
    "text": "grüezi",
    "none": None,
    "yes": True,
    "list": [1, 2.5, "a"],
    "bytes": b"\x00\xff",
    "deep": {"a": [np.float32(0.5)]},
  }
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
    b"\x81\xa1a\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x04\x01\x02\x03\x04\xc4\x05dtype\xa3|u1"
    b"\xc4\x05shape\x92\x02\x02"
  )
  assert codec.pack(np.float32(0.5)) == (
    b"\x83\xc4\x0d__npgeneric__\xc3\xc4\x04data\xcb?\xe0\x00\x00\x00\x00\x00\x00"
    b"\xc4\x05dtype\xa3<f4"
  )


def test_truth_values_are_zero_or_one():
  frame = msgpack.packb(payloads.array("|b1", (3,), b"\x00\x01\x07"))
  assert codec.unpack(frame).view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", [name for name in PARSED if "policy" not in name])
def test_a_bad_message_is_one_line(name):
  from como_jax.serve import client_schemas

  frame, expected = payloads.BAD[name]
  with pytest.raises(errors.UserError) as caught:
    client_schemas.Mapper("libero", ("front", "wrist"), state_dim=8)(codec.unpack(frame))
  assert (
    expected in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
  )


@pytest.mark.parametrize(
  "value",
  [
    object(),
    {1, 2},
    np.array([None]),
    np.array(["a"]),
    np.zeros(2, complex),
    np.datetime64("2020-01-01"),
    np.zeros(1, [("a", "f4")]),
    2**70,
  ],
)
def test_what_cannot_be_sent_is_named(value):
  with pytest.raises(errors.UserError, match="cannot be"):
    codec.pack({"a": value})


def test_size_is_checked_before_anything_else():
  with pytest.raises(errors.UserError, match="at most 100"):
    codec.unpack(bytes(101), codec.Limits(size=100))


@pytest.mark.parametrize(
  "name",
  [
    "headers that claim much",
    "header that claims more",
    "many elements",
    "deeper than the parser",
    "gigantic shape",
    "many small arrays",
    "huge array header",
  ],
)
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


def said(frame, **limits):
  """The error of a message; `frame` may be what is to be packed."""
  with pytest.raises(errors.UserError) as caught:
    codec.unpack(
      frame if isinstance(frame, (bytes, str)) else msgpack.packb(frame), codec.Limits(**limits)
    )
  return str(caught.value)


def nested(depth):
  return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
  "most, more, error",
  [
    (nested(7), nested(8), "message is nested more than 8 deep"),
    ([0] * 2048, [0] * 2049, "message is not valid msgpack: 2049 exceeds max_array_len(2048)"),
    (
      {str(i): 0 for i in range(2048)},
      {str(i): 0 for i in range(2049)},
      "message is not valid msgpack: 2049 exceeds max_map_len(2048)",
    ),
    (
      [[0] * 2039] * 8 + [[0] * 53],
      [[0] * 2039] * 8 + [[0] * 54],
      "message has more than 16384 elements",
    ),
    (
      ["x" * 16_384],
      ["x" * 16_385],
      "message is not valid msgpack: 16385 exceeds max_str_len(16384)",
    ),
    (
      payloads.array(shape=[1] * 5 + [12]),
      payloads.array(shape=[1] * 6 + [12]),
      "array shape is [1, 1, 1, 1, 1, 1, 12], a list of at most 6 sizes is expected",
    ),
  ],
  ids=["depth", "list", "map", "elements", "text", "dimensions"],
)
def test_what_a_message_may_hold_by_default(most, more, error):
  codec.unpack(msgpack.packb(most))
  assert said(more) == error


def test_the_largest_message_is_32_megabytes():
  assert said(bytes(2**25)).startswith("message is not valid msgpack")
  assert said(bytes(2**25 + 1)) == "message has 33554433 bytes, at most 33554432 are accepted"


def test_elements_are_those_of_all_lists_and_their_lists():
  # 3 + 1 elements, 2 + 1, 1 + 1, and 4 keys and 3 sizes of an array with one for each
  message = [[0, 0], {"a": 0}, payloads.array()]
  assert len(codec.unpack(msgpack.packb(message), codec.Limits(elements=18))) == 3
  assert said(message, elements=17) == "message has more than 17 elements"


def test_sizes_of_arrays_end_at_the_size_of_a_message():
  limits = codec.Limits(size=200)
  for shape, dtype, data in (
    ((200, 0), "|u1", b""),
    ((1, 1, 100), "|u1", bytes(100)),
    ((), "<f8", bytes(8)),
  ):
    assert codec.unpack(msgpack.packb(payloads.array(dtype, shape, data)), limits).shape == shape
  assert (
    said(payloads.array(shape=(201, 0), data=b""), size=200)
    == "array shape [201, 0] has a size that is no count between 0 and 200"
  )
  assert (
    said(payloads.array(shape=(2, 101, 0), data=b""), size=200)
    == "array shape [2, 101, 0] is too large"
  )
  assert (
    said(payloads.array("<f8", (2, 3), bytes(8)))
    == "array of shape [2, 3] and dtype float64 has 8 bytes of data, expected 48"
  )


@pytest.mark.parametrize(
  "value, error",
  [
    (float("inf"), "message holds a number that is NaN or infinity"),
    (
      payloads.array("<f4", (2,), np.float32([0, np.nan]).tobytes()),
      "array of shape [2] holds NaN or infinity",
    ),
    (
      {b"__npgeneric__": True, b"data": -float("inf"), b"dtype": "<f4"},
      "scalar is NaN or infinity",
    ),
    ({b"__npgeneric__": True, b"data": 1e30, b"dtype": "<f2"}, "scalar is NaN or infinity"),
  ],
  ids=["number", "array", "scalar", "scalar of too few bits"],
)
def test_numbers_are_finite_unless_asked_for(value, error):
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # of numpy, which would go to the server's output
    assert said(value) == error
    assert not np.isfinite(codec.unpack(msgpack.packb(value), codec.Limits(finite=False))).all()


@pytest.mark.parametrize(
  "value, error",
  [
    (
      payloads.array("|O", (2,), bytes(16)),
      "array has dtype '|O' (object); accepted are bool, integers and floats of 1, 2, 4 or 8 bytes",
    ),
    (
      payloads.array("S4", (2,), bytes(8)),
      "array has dtype 'S4' (bytes); accepted are bool, integers and floats of 1, 2, 4 or 8 bytes",
    ),
    (
      payloads.array(3),
      "array has dtype 3; accepted are bool, integers and floats of 1, 2, 4 or 8 bytes",
    ),
    (
      payloads.array(b"x" * 17),
      "array has dtype a bytes of 17; accepted are bool, integers and floats of 1, 2, 4 or 8 bytes",
    ),
    (
      payloads.array([0] * 16),
      f"array has dtype {[0] * 16}; accepted are bool, integers and floats of 1, 2, 4 or 8 bytes",
    ),
    (
      payloads.array("x" * 58),
      f"array has dtype '{'x' * 58}'; accepted are bool, integers and floats of 1, 2, 4 or 8 bytes",
    ),
    (
      payloads.array("x" * 59),
      (
        f"array has dtype '{'x' * 56}...; accepted are bool, integers and floats of 1, 2, 4 or 8 "
        "bytes"
      ),
    ),
    (payloads.array(more=1), "array has other keys than __ndarray__, data, dtype, shape"),
    ({b"__npgeneric__": True, b"data": 1}, "scalar has other keys than __npgeneric__, data, dtype"),
    (
      {b"__npgeneric__": True, b"data": 1, b"dtype": "<f4", b"more": 1},
      "scalar has other keys than __npgeneric__, data, dtype",
    ),
    (
      {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"},
      "scalar does not fit its dtype uint8",
    ),
    (b"\x92\x01", "message is not valid msgpack: Unpack failed: incomplete input"),
    (b"\x91" * 100_000, "message is not valid msgpack: StackError"),
    ("text", "message is a str frame, a binary frame of msgpack is expected"),
  ],
)
def test_errors_say_what_is_wrong(value, error):
  assert said(value) == error


def test_what_cannot_be_packed_is_said_on_a_short_line():
  for length in (143, 144):
    with pytest.raises(errors.UserError) as caught:
      codec.pack(type("x" * length, (), {})())
    text = f"a {'x' * length} cannot be sent"
    assert str(caught.value) == "message cannot be encoded: " + (
      text if length == 143 else text[:157] + "..."
    )
  with pytest.raises(
    errors.UserError,
    match=(
      "^message cannot be encoded: arrays of object cannot be sent, only bool, integers and floats$"
    ),
  ):
    codec.pack(np.array([None]))
