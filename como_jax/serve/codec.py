"""msgpack with numpy arrays, wire-compatible with openpi-client; the decoder checks everything.

An array is a map with the *bytes* keys `__ndarray__`, `data`, `dtype`, `shape`. A numpy scalar is a
map with `__npgeneric__`, `data`, `dtype`. The decoder of openpi-client accepts every dtype that the
sender names; an object dtype then crashes the process at the first read. Here a dtype must be a
bool, integer or float of native size, and the data must have exactly the size of the shape. Depth,
element count and text length are limited while parsing, so a small message cannot use much memory.

This file does not import jax, because the robot-side client imports it. Wire format:
github.com/Physical-Intelligence/openpi, packages/openpi-client/src/openpi_client/msgpack_numpy.py
(Apache-2.0).
"""

from __future__ import annotations  # Python 3.8: this file is in client/ too

import dataclasses
import math
import re
from typing import Any

import msgpack
import numpy as np

from como_jax import errors

KINDS = "biuf"
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_DTYPE_KINDS = {
  "O": "object",
  "S": "bytes",
  "U": "string",
  "V": "void",
  "M": "datetime",
  "m": "timedelta",
  "c": "complex",
}


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of one message; a message beyond them is refused.

  Attributes:
    size: bytes of the whole message.
    depth: levels of nested maps and lists.
    elements: entries of all maps and lists together (an array counts as one).
    entries: entries of one map or list. The parser reserves memory for the count in the header.
    text: bytes of one text.
    dimensions: dimensions of one array.
    finite: whether to refuse NaN and infinity.
  """

  size: int = 32 * 2**20
  depth: int = 8
  elements: int = 16_384
  entries: int = 2_048
  text: int = 16_384
  dimensions: int = 6
  finite: bool = True


def pack(value: Any) -> bytes:
  """Encodes None, bool, int, float, str, bytes, lists, dicts, numpy arrays and scalars.

  Raises:
    errors.UserError: names the type or dtype that cannot be sent.
  """
  try:
    packed = msgpack.packb(value, default=_encode)
  except (TypeError, ValueError, OverflowError) as error:
    # errors.UserError is a ValueError too; its text is kept
    raise errors.UserError(f"message cannot be encoded: {_short(error)}") from error
  assert packed is not None  # None only from a packer without autoreset
  return packed


def unpack(data: bytes | bytearray | memoryview | str, limits: Limits = Limits()) -> Any:
  """Decodes a message from an untrusted sender.

  Args:
    data: the message; a text frame is refused.
    limits: a message beyond them is refused.

  Returns:
    The decoded value. Arrays own their memory, are writable, contiguous and in native byte order.

  Raises:
    errors.UserError: one line that describes the fault.
  """
  if not isinstance(data, (bytes, bytearray, memoryview)):
    raise errors.UserError(
      f"message is a {type(data).__name__} frame, a binary frame of msgpack is expected"
    )
  if len(data) > limits.size:
    raise errors.UserError(f"message has {len(data)} bytes, at most {limits.size} are accepted")
  reader = _Reader(limits)
  try:
    value = msgpack.unpackb(
      data,
      raw=False,
      strict_map_key=True,
      object_pairs_hook=reader.pairs,
      list_hook=reader.items,
      ext_hook=_no_extension,
      max_str_len=limits.text,
      max_bin_len=limits.size,
      max_array_len=limits.entries,
      max_map_len=limits.entries,
      max_ext_len=64,
    )
  except errors.UserError:
    raise
  except Exception as error:  # msgpack raises several types, UnicodeDecodeError among them
    raise errors.UserError(
      f"message is not valid msgpack: {_short(error) or type(error).__name__}"
    ) from error
  _check(value, limits, 1)
  return value


def _encode(value: Any) -> Any:
  if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in KINDS:
    raise errors.UserError(
      f"arrays of {value.dtype} cannot be sent, only bool, integers and floats"
    )
  if isinstance(value, np.ndarray):
    return {
      b"__ndarray__": True,
      b"data": value.tobytes(),
      b"dtype": value.dtype.str,
      b"shape": value.shape,
    }
  if isinstance(value, np.generic):
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
  raise errors.UserError(f"a {type(value).__name__} cannot be sent")


class _Reader:
  """Hooks of the parser: they count elements and convert array maps to arrays."""

  def __init__(self, limits: Limits):
    self._limits, self._elements = limits, 0

  def items(self, values: list) -> list:
    """Hook for lists."""
    self._count(len(values))
    return values

  def pairs(self, pairs: list) -> Any:
    """Hook for maps."""
    self._count(len(pairs))
    entries = dict(pairs)
    if len(entries) != len(pairs):
      raise errors.UserError("message has the same key twice in one map")
    if b"__ndarray__" in entries:
      return _array(entries, self._limits)
    if b"__npgeneric__" in entries:
      return _scalar(entries, self._limits)
    return entries

  def _count(self, number: int) -> None:
    self._elements += number + 1
    if self._elements > self._limits.elements:
      raise errors.UserError(f"message has more than {self._limits.elements} elements")


def _no_extension(code: int, data: bytes) -> None:
  raise errors.UserError(f"message has a msgpack extension ({code}), which is not accepted")


def _dtype(name: Any) -> np.dtype:
  """Returns the dtype of an accepted name; other names are never passed to numpy."""
  if isinstance(name, str) and _DTYPE.fullmatch(name):
    return np.dtype(name)
  text = name.lstrip("<>|=") if isinstance(name, str) else ""
  kind = _DTYPE_KINDS.get(text[:1], "") if len(text) < 24 else ""
  raise errors.UserError(
    f"array has dtype {_show(name)}{f' ({kind})' if kind else ''}; "
    "accepted are bool, integers and floats of 1, 2, 4 or 8 bytes"
  )


def _array(entries: dict, limits: Limits) -> np.ndarray:
  """Builds an array from the entries of its map."""
  for key in (b"data", b"dtype", b"shape"):
    if key not in entries:
      raise errors.UserError(f"array has no {key.decode()!r}")
  if len(entries) != 4:
    raise errors.UserError("array has other keys than __ndarray__, data, dtype, shape")
  dtype, data, shape = _dtype(entries[b"dtype"]), entries[b"data"], entries[b"shape"]
  if not isinstance(data, bytes):
    raise errors.UserError(f"array data is a {type(data).__name__}, bytes are expected")
  if not isinstance(shape, list) or len(shape) > limits.dimensions:
    raise errors.UserError(
      f"array shape is {_show(shape)}, a list of at most {limits.dimensions} sizes is expected"
    )
  if not all(type(size) is int and 0 <= size <= limits.size for size in shape):
    raise errors.UserError(
      f"array shape {_show(shape)} has a size that is no count between 0 and {limits.size}"
    )
  if math.prod(max(1, size) for size in shape) > limits.size:
    raise errors.UserError(f"array shape {_show(shape)} is too large")
  expected = math.prod(shape) * dtype.itemsize
  if len(data) != expected:
    raise errors.UserError(
      f"array of shape {shape} and dtype {dtype.name} has {len(data)} bytes of data, expected "
      f"{expected}"
    )
  if dtype.kind == "b":  # bytes other than 0 and 1 are not valid truth values
    return np.array(np.frombuffer(data, np.uint8).reshape(shape), bool)
  array = np.array(
    np.frombuffer(data, dtype).reshape(shape), dtype.newbyteorder("="), order="C", copy=True
  )
  if limits.finite and dtype.kind == "f" and not np.isfinite(array).all():
    raise errors.UserError(f"array of shape {shape} holds NaN or infinity")
  return array


def _scalar(entries: dict, limits: Limits) -> np.generic:
  """Builds a numpy scalar from the entries of its map."""
  if set(entries) != {b"__npgeneric__", b"data", b"dtype"}:
    raise errors.UserError("scalar has other keys than __npgeneric__, data, dtype")
  dtype, data = _dtype(entries[b"dtype"]), entries[b"data"]
  if not isinstance(data, (bool, int, float)):
    raise errors.UserError(f"scalar data is a {type(data).__name__}, a number is expected")
  try:
    with np.errstate(over="ignore"):
      value = dtype.newbyteorder("=").type(data)
  except (OverflowError, ValueError) as error:
    raise errors.UserError(f"scalar does not fit its dtype {dtype.name}") from error
  if limits.finite and dtype.kind == "f" and not np.isfinite(value):
    raise errors.UserError("scalar is NaN or infinity")
  return value


def _check(value: Any, limits: Limits, depth: int) -> None:
  """Refuses deep nesting, msgpack types that we do not send, and floats that are not finite."""
  if isinstance(value, (dict, list)):
    if depth > limits.depth:
      raise errors.UserError(f"message is nested more than {limits.depth} deep")
    for item in value.values() if isinstance(value, dict) else value:
      _check(item, limits, depth + 1)
  elif isinstance(value, float):
    if limits.finite and not math.isfinite(value):
      raise errors.UserError("message holds a number that is NaN or infinity")
  elif value is not None and not isinstance(value, (bool, int, str, bytes, np.ndarray, np.generic)):
    raise errors.UserError(f"message holds a {type(value).__name__}, which is not accepted")


def _show(value: Any) -> str:
  """Shortens a value to at most 60 characters, for replies and logs."""
  large = isinstance(value, (bytes, list, tuple, dict)) and len(value) > 16
  text = f"a {type(value).__name__} of {len(value)}" if large else repr(value)
  return text if len(text) <= 60 else text[:57] + "..."


def _short(error: Exception) -> str:
  text = " ".join(str(error).split())
  return text if len(text) <= 160 else text[:157] + "..."
