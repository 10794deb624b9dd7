"""Messages that must be refused, by name: what a broken or hostile client may send as one frame.

Built by hand, not by our encoder.
"""

import struct

import msgpack
import numpy as np

from tests.serve import fake


def array(dtype="|u1", shape=(2, 2, 3), data=None, **more):
  return {
    b"__ndarray__": True,
    b"data": bytes(12) if data is None else data,
    b"dtype": dtype,
    b"shape": list(shape),
    **more,
  }


def plain(value):
  """Openpi's own encoding of arrays (no checks)."""
  if isinstance(value, np.ndarray):
    return {
      b"__ndarray__": True,
      b"data": value.tobytes(),
      b"dtype": value.dtype.str,
      b"shape": value.shape,
    }
  return value


def message(**changes):
  """A good observation with some keys replaced (double underscores are slashes; None removes)."""
  found = fake.observation()
  for key, value in changes.items():
    key = key.replace("__", "/")
    if value is None:
      del found[key]
    else:
      found[key] = value
  return msgpack.packb(found, default=plain)


def image(value):
  return message(observation__image=value)


def state(value):
  return message(observation__state=value)


def nested(depth, kind=list):
  value = 1
  for _ in range(depth):
    value = [value] if kind is list else {"a": value}
  return value


# name -> (frame, part of the error)
BAD = {
  "object dtype": (image(array("|O", (2,), bytes(16))), "object"),
  "object dtype, bare": (image(array("O", (2,), bytes(16))), "object"),
  "structured with object": (image(array([["a", "|O"]], (1,), bytes(8))), "dtype"),
  "structured with object, as text": (image(array("O,i4", (1,), bytes(12))), "dtype"),
  "structured": (image(array("i4,i4", (1,), bytes(8))), "dtype"),
  "dtype as dict": (image(array({"names": ["a"], "formats": ["O"]}, (1,), bytes(8))), "dtype"),
  "dtype with shape": (image(array("(2,2)u1", (3,))), "dtype"),
  "negative shape": (image(array(shape=(-1, 2, 3))), "no count"),
  "shape of floats": (image(array(shape=(2.0, 2, 3))), "no count"),
  "shape of truth values": (image(array(shape=(True, 4, 3))), "no count"),
  "shape is a number": (image({**array(), b"shape": 12}), "shape"),
  "too many dimensions": (image(array(shape=(1,) * 64 + (12,))), "shape"),
  "gigantic shape": (image(array(shape=(2**40, 2**40, 3))), "no count"),
  "gigantic shape of nothing": (image(array(shape=(2**24, 2**24, 0), data=b"")), "too large"),
  "over-long buffer": (image(array(data=bytes(4096))), "4096 bytes of data, expected 12"),
  "short buffer": (image(array(data=bytes(3))), "3 bytes of data, expected 12"),
  "data is text": (image(array(data="x" * 12)), "bytes are expected"),
  "data is a list": (image(array(data=[0] * 12)), "bytes are expected"),
  "no dtype": (image({b"__ndarray__": True, b"data": b"", b"shape": [0]}), "no 'dtype'"),
  "extra array key": (image(array(**{"more": 1})), "other keys"),
  "string dtype": (state(array("<U4", (2,), bytes(32))), "string"),
  "bytes dtype": (state(array("|S4", (2,), bytes(8))), "bytes"),
  "datetime dtype": (state(array("<M8[ns]", (2,), bytes(16))), "datetime"),
  "timedelta dtype": (state(array("<m8[s]", (2,), bytes(16))), "timedelta"),
  "void dtype": (state(array("|V8", (2,), bytes(16))), "void"),
  "complex dtype": (state(array("<c8", (2,), bytes(16))), "complex"),
  "long double dtype": (state(array("<f16", (2,), bytes(32))), "dtype"),
  "scalar of object": (state({b"__npgeneric__": True, b"data": 1, b"dtype": "|O"}), "object"),
  "scalar that overflows": (state({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}), "fit"),
  "scalar of text": (state({b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"}), "number"),
  "NaN state": (state(np.array([1.0] * 7 + [np.nan])), "NaN"),
  "infinite state": (state(np.array([1.0] * 7 + [np.inf], np.float32)), "NaN"),
  "NaN in a list": (state([1.0] * 7 + [float("nan")]), "NaN"),
  "state beyond float32": (state(np.full(8, 1e300)), "finite"),
  "state of another size": (state(np.zeros(5)), "5 numbers, the policy's state has 8"),
  "state that the policy refuses": (state(np.full(8, 666.0)), "beast"),
  "matrix state": (state(np.zeros((2, 4))), "vector"),
  "empty state": (state(np.zeros(0)), "vector"),
  "state of truth values": (state(np.ones(8, bool)), "vector"),
  "ragged state": (state([[1.0], [1.0, 2.0]]), "vector"),
  "state is text": (state("up"), "vector"),
  "state is nothing": (
    msgpack.packb({**fake.observation(), "observation/state": None}, default=plain),
    "vector",
  ),
  "deep lists": (state(nested(500)), "nested"),
  "deep dicts": (state(nested(100, dict)), "nested"),
  "deeper than the parser": (b"\x91" * 100_000, "msgpack"),
  "many elements": (state([[0] * 2000] * 100), "elements"),
  "long list": (state([0.0] * 10_000), "msgpack"),
  "headers that claim much": (b"\xdc\x07\xff" * 900, "msgpack"),
  "header that claims more": (b"\xdd\xff\xff\xff\xff", "msgpack"),
  "truncated": (message()[:-7], "msgpack"),
  "half": (message()[: len(message()) // 2], "msgpack"),
  "trailing bytes": (message() + b"\x00", "msgpack"),
  "not msgpack": (b"\xc1\xff\xfehello", "msgpack"),
  "json": (b'{"observation/image": []}', "msgpack"),
  "text frame": ("observation", "str frame"),
  "empty": (b"", "msgpack"),
  "a number": (msgpack.packb(3), "a int"),
  "a list": (msgpack.packb([1, 2]), "a list"),
  "an array": (msgpack.packb(array()), "ndarray"),
  "empty dict": (msgpack.packb({}), "message is empty"),
  "number as key": (b"\x81\x01\x02", "msgpack"),
  "extension": (state(msgpack.ExtType(5, b"abc")), "extension"),
  "timestamp": (state(msgpack.Timestamp(1)), "Timestamp"),
  "twice the same key": (b"\x82\xa1a\x01\xa1a\x02", "twice"),
  "invalid UTF-8 text": (b"\x81\xa1\xff\x01", "msgpack"),
  "float image": (
    image(np.zeros((8, 8, 3), np.float32)),
    "float32 [8, 8, 3], uint8 [H, W, 3] is expected",
  ),
  "image with channels first": (image(np.zeros((3, 8, 8), np.uint8)), "uint8 [3, 8, 8]"),
  "gray image": (image(np.zeros((8, 8), np.uint8)), "uint8 [8, 8]"),
  "empty image": (image(np.zeros((0, 8, 3), np.uint8)), "uint8 [0, 8, 3]"),
  "image of many pixels": (image(np.zeros((2000, 2000, 3), np.uint8)), "pixels"),
  "image is a list": (image([1, 2, 3]), "a list"),
  "missing image": (message(observation__image=None), "no 'observation/image'"),
  "missing state": (message(observation__state=None), "no 'observation/state'"),
  "misspelled key": (
    message(observation__imgae=np.zeros((8, 8, 3), np.uint8)),
    "did you mean 'observation/image'?",
  ),
  "key of many lines": (message(**{"a\nb" * 500: 1}), "unknown"),
  "prompt is a number": (message(prompt=3), "text"),
  "long prompt": (message(prompt="x" * 5000), "characters"),
  "endless prompt": (message(prompt="x" * 100_000), "msgpack"),
  "reset is text": (message(reset="yes"), "reset"),
  "random": (np.random.default_rng(0).bytes(5000), "msgpack"),
  "many small arrays": (msgpack.packb([[array(shape=(0,), data=b"")] * 2000] * 2), "elements"),
  "huge array header": (b"\xc6" + struct.pack(">I", 2**32 - 1) + b"abc", "msgpack"),
}
