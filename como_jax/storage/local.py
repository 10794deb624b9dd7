"""The file system as a store. Keys are paths."""

import collections
import contextlib
import fcntl
import os
import pathlib
import shutil
import threading

import xxhash

from como_jax import errors
from como_jax.storage import counting, protocol

_OPEN_FILES = 64


class LocalStore:
  """Files. Range reads use descriptors that are kept open while the file is the same one."""

  name = "local"

  def __init__(self):
    self._lock = threading.Lock()
    # path -> (open file, what identifies it), least recently used first
    self._files: collections.OrderedDict = collections.OrderedDict()

  def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
    """See `protocol.Store`."""
    if size is None and not start:
      data = pathlib.Path(key).read_bytes()
    else:
      file, length = self._opened(key)
      wanted = max(0, length - start) if size is None else size
      data = os.pread(file.fileno(), wanted, start)
      while data and len(data) < min(wanted, length - start):  # at most 2 GiB come at once
        more = os.pread(file.fileno(), wanted - len(data), start + len(data))
        if not more:
          break
        data += more
    counting.add(self.name, read=len(data))
    return data

  def stat(self, key: str) -> protocol.Entry:
    """See `protocol.Store`."""
    facts = os.stat(key)
    if not os.path.isfile(key):
      raise FileNotFoundError(2, "no such file", key)
    return protocol.Entry(key, facts.st_size, _version(facts))

  def size(self, key: str) -> int:
    """See `protocol.Store`."""
    return self.stat(key).size

  def exists(self, key: str) -> bool:
    """See `protocol.Store`."""
    return os.path.isfile(key)

  def list(self, prefix: str) -> list[protocol.Entry]:
    """See `protocol.Store`; without the hidden files with which this store itself works."""
    found = []
    for folder, _, names in os.walk(prefix or "."):
      for name in names:
        if name.startswith(".") and name.endswith((".new", ".lock")):
          continue
        path = os.path.join(folder, name) if prefix else os.path.relpath(f"{folder}/{name}")
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
          found.append(self.stat(path))
    return sorted(found, key=lambda entry: entry.key)

  def write(self, key: str, data: bytes) -> None:
    """See `protocol.Store`."""
    path = pathlib.Path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = protocol.temporary(path)
    try:
      with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)
    counting.add(self.name, written=len(data))

  def read_versioned(self, key: str) -> tuple[bytes, protocol.Version]:
    """See `protocol.Store`. The version is a digest of the content."""
    data = self.read(key)
    return data, xxhash.xxh3_128_hexdigest(data)

  def write_if(self, key: str, data: bytes, expected: protocol.Version | None) -> protocol.Version:
    """See `protocol.Store`. A lock file beside the file makes writers wait for one another."""
    path = pathlib.Path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX)
      except OSError as error:
        raise errors.UserError(
          f"{key}: its file system has no locks ({error.strerror}), which a conditional write needs"
        ) from error
      try:
        found = self.read_versioned(key)[1]
      except FileNotFoundError:
        found = None
      if found != expected:
        raise protocol.Conflict(f"{key} {'has changed' if found else 'does not exist'}")
      self.write(key, data)
    return xxhash.xxh3_128_hexdigest(data)

  def remove(self, key: str) -> None:
    """See `protocol.Store`."""
    with contextlib.suppress(FileNotFoundError):
      os.unlink(key)
    counting.add(self.name)

  def upload(self, local_file: protocol.Path, key: str) -> None:
    """See `protocol.Store`."""
    path = pathlib.Path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._copy(pathlib.Path(local_file), path)
    counting.add(self.name, written=path.stat().st_size)

  def download(self, key: str, local_file: protocol.Path) -> None:
    """See `protocol.Store`."""
    self._copy(pathlib.Path(key), pathlib.Path(local_file))
    counting.add(self.name, read=os.path.getsize(local_file))

  @staticmethod
  def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    temporary = protocol.temporary(target)
    try:
      shutil.copyfile(source, temporary)
      os.replace(temporary, target)
    finally:
      temporary.unlink(missing_ok=True)

  def _opened(self, key: str):
    """(Open file, its length) of a path; a file that was replaced is opened anew."""
    facts = os.stat(key)
    with self._lock:
      file, version = self._files.pop(key, (None, ""))
      if file is None or version != _version(facts):
        file = open(key, "rb", buffering=0)  # noqa: SIM115  closed when nobody uses it any more
        facts = os.fstat(file.fileno())
      self._files[key] = (file, _version(facts))
      while len(self._files) > _OPEN_FILES:
        self._files.popitem(last=False)
    return file, facts.st_size


def _version(facts: os.stat_result) -> protocol.Version:
  return f"{facts.st_ino:x}-{facts.st_mtime_ns:x}-{facts.st_size:x}"
