"""Reads files of `torch.save` without torch and without running code from the file.

A file of torch >= 1.6 is a zip file. It holds a pickle (`NAME/data.pkl`) that describes the object,
and one entry for each storage (`NAME/data/0`). A pickle can name any function and call it. Here,
only the names in `_table` are allowed, and none of them can do harm.

Source: the format as written by torch/serialization.py and torch/_utils.py.
"""

import collections
import io
import math
import os
import pathlib
import pickle
import pickletools
import sys
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from como_jax import errors

_STORAGES = {
  "FloatStorage": np.float32,
  "HalfStorage": np.float16,
  "BFloat16Storage": ml_dtypes.bfloat16,
  "DoubleStorage": np.float64,
  "LongStorage": np.int64,
  "IntStorage": np.int32,
  "ShortStorage": np.int16,
  "CharStorage": np.int8,
  "ByteStorage": np.uint8,
  "BoolStorage": np.bool_,
}
# Extensions bypass find_class. The other opcodes allocate memory of the size that the file states,
# before they check that the data exist.
_UNWANTED = ("EXT1", "EXT2", "EXT4", "BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "INST", "OBJ")
_RESAVE = "re-save it in torch with torch.save(model.state_dict(), NEW), or as safetensors"


def load(path: str | os.PathLike) -> Any:
  """Reads the object in a file; tensors become read-only numpy arrays.

  Dicts, lists and numbers are unchanged.

  Raises:
    errors.UserError: the file is missing, truncated or legacy (not a zip), or its pickle names
      more than tensors and containers.
  """
  path = pathlib.Path(path)
  try:
    with open(path, "rb") as file:
      start = file.read(512)
      if not start.startswith(b"PK"):
        raise errors.UserError(f"{path} {_not_a_zip(start)}")
      with zipfile.ZipFile(file) as archive:
        return _read(path, archive)
  except OSError as error:
    raise errors.UserError(f"cannot read {path}: {error.strerror or error}") from None
  except (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeError,
  ) as error:
    raise errors.UserError(f"{path} is truncated or damaged: {error}") from None


def state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the named tensors of a checkpoint, at the top level or in "model" or "state_dict".

  The prefix "module." of data-parallel training is removed.

  Raises:
    errors.UserError: as for `load`, or there is no dict of tensors.
  """
  value = load(path)
  while isinstance(value, Mapping):
    inner = next(
      (value[key] for key in ("model", "state_dict") if isinstance(value.get(key), Mapping)), None
    )
    if inner is None:
      break
    value = inner
  if not isinstance(value, Mapping) or not any(
    isinstance(leaf, np.ndarray) for leaf in value.values()
  ):
    keys = (
      f" with keys {', '.join(map(str, list(value)[:6]))}" if isinstance(value, Mapping) else ""
    )
    raise errors.UserError(
      f"{path} holds a {type(value).__name__}{keys}; expected named tensors, bare or under "
      "'model' or 'state_dict'"
    )
  bad_names = [
    str(name)
    for name, leaf in value.items()
    if not isinstance(name, str) or not isinstance(leaf, np.ndarray)
  ]
  if bad_names:
    raise errors.UserError(
      f"{path}: {len(bad_names)} entries of the state dict are not named tensors: "
      f"{', '.join(bad_names[:4])}"
    )
  prefix = "module." if all(name.startswith("module.") for name in value) else ""
  return {name[len(prefix) :]: leaf for name, leaf in value.items()}


def _not_a_zip(start: bytes) -> str:
  if start[:1] == b"\x80" or start[257:262] == b"ustar":
    return f"is a legacy torch file (not a zip; torch < 1.6); {_RESAVE}"
  return "is not a file written by torch.save"


def _read(path: pathlib.Path, archive: zipfile.ZipFile) -> Any:
  names = archive.namelist()
  pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
  if len(pickles) != 1:
    raise errors.UserError(f"{path} is a zip but not a file written by torch.save (no data.pkl)")
  root = pickles[0][: -len("data.pkl")]
  if f"{root}constants.pkl" in names:
    raise errors.UserError(f"{path} is a TorchScript program, not a state dict; {_RESAVE}")
  if (
    f"{root}byteorder" in names
    and archive.read(f"{root}byteorder").strip().decode("latin1") != sys.byteorder
  ):
    raise errors.UserError(f"{path} was written on a machine of another byte order; {_RESAVE}")
  content = archive.read(pickles[0])
  try:
    _scan(content)
    return _plain(_Reader(path, archive, root, content).load())
  except (errors.UserError, OSError, zipfile.BadZipFile):
    raise
  except Exception as error:  # a damaged pickle can raise any exception; none of its code was run
    raise errors.UserError(
      f"{path}: its pickle cannot be read ({type(error).__name__}: {error})"
    ) from None


def _scan(content: bytes) -> None:
  """Rejects opcodes that torch does not write and that take memory or objects from outside."""
  for opcode, argument, position in pickletools.genops(content):
    far = opcode.name.endswith("PUT") and (argument or 0) > len(content)
    unwanted = opcode.name in _UNWANTED or far
    if unwanted:
      raise ValueError(f"opcode {opcode.name} at byte {position}")


class _Reader(pickle.Unpickler):
  """An unpickler that accepts only the names in `_table`."""

  def __init__(self, path: pathlib.Path, archive: zipfile.ZipFile, root: str, content: bytes):
    super().__init__(io.BytesIO(content))
    self._path, self._archive, self._root = path, archive, root
    self._storages: dict[str, np.ndarray] = {}
    self._replacements = self._table()

  def _table(self) -> dict[tuple[str, str], Any]:
    """(module, name) -> replacement.

    The table is created for each file, so that a pickle cannot change it for the next file.
    """

    class Inert:
      """Replaces an object whose class must not run; its state is dropped."""

      __slots__ = ()

      def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return object.__new__(cls)

      def __init__(self, *args: Any, **kwargs: Any):
        pass

      def __setstate__(self, state: Any) -> None:
        pass

    def rebuild_tensor(
      storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None
    ):
      return _Sealed(_view(_open(storage, np.ndarray), offset, size, stride))

    def rebuild_parameter(data, requires_grad=False, hooks=None):
      return data

    return {
      ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
      ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
      ("collections", "OrderedDict"): collections.OrderedDict,
      ("argparse", "Namespace"): Inert,  # "args" of the original MAE
      **{("torch", name): _Sealed(np.dtype(dtype)) for name, dtype in _STORAGES.items()},
    }

  def find_class(self, module: str, name: str) -> Any:
    """The replacement of a name of the pickle, from `_table`; errors.UserError if it has none."""
    replacement = self._replacements.get((module, name))
    if replacement is None:
      raise errors.UserError(
        f"{self._path}: its pickle asks for {module}.{name}, which is not a tensor or a plain "
        f"container; nothing was run; {_RESAVE}"
      )
    return replacement

  def persistent_load(self, pid: Any) -> "_Sealed":
    """Reads a storage as a 1-D array; each entry of the zip file is read once and shared.

    Args:
      pid: ("storage", storage type, entry, location, count).
    """
    kind, dtype, key, _, count = pid
    dtype = _open(dtype, np.dtype)
    if kind != "storage" or not isinstance(key, str) or type(count) is not int:
      raise ValueError(f"unknown storage {pid!r}")
    if key not in self._storages:
      name = f"{self._root}data/{key}"
      try:
        info = self._archive.getinfo(name)
      except KeyError:
        raise errors.UserError(f"{self._path} is damaged: it has no entry {name}") from None
      if info.file_size != count * dtype.itemsize:
        raise errors.UserError(
          f"{self._path} is damaged: {name} has {info.file_size} bytes, expected "
          f"{count * dtype.itemsize}"
        )
      self._storages[key] = np.frombuffer(self._archive.read(info), dtype)
    storage = self._storages[key]
    if storage.dtype != dtype:
      raise errors.UserError(
        f"{self._path}: storage {key} is used both as {storage.dtype} and as {dtype}; {_RESAVE}"
      )
    return _Sealed(storage)


class _Sealed:
  """Wraps an array or a dtype while the pickle runs.

  Unlike numpy's own objects, it has nothing that a pickle could call or set.
  """

  __slots__ = ("held",)

  def __init__(self, held: Any):
    self.held = held

  def __setstate__(self, state: Any) -> None:
    raise ValueError("a pickle may not change a tensor")


def _open(sealed: Any, kind: type) -> Any:
  if not isinstance(sealed, _Sealed) or not isinstance(sealed.held, kind):
    raise ValueError(f"found a {type(sealed).__name__} where a tensor's {kind.__name__} belongs")
  return sealed.held


def _plain(value: Any) -> Any:
  """Unwraps the tensors of the loaded object."""
  if isinstance(value, _Sealed):
    return value.held
  if isinstance(value, dict):
    return {key: _plain(leaf) for key, leaf in value.items()}
  if isinstance(value, (list, tuple)):
    return type(value)(_plain(leaf) for leaf in value)
  return value


def _view(storage: np.ndarray, offset: Any, size: Any, stride: Any) -> np.ndarray:
  """A strided view, checked to be inside its storage; offsets and strides count elements."""
  values = (offset, *size, *stride)
  if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in values):
    raise ValueError(f"tensor with offset {offset}, size {size}, stride {stride}")
  if math.prod(size) == 0:
    return np.zeros(size, storage.dtype)
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if last >= storage.size:
    raise ValueError(f"tensor reaches element {last} of a storage of {storage.size}")
  return np.lib.stride_tricks.as_strided(
    storage[offset:], size, [step * storage.itemsize for step in stride], writeable=False
  )
