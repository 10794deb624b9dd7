"""A store in the memory of this process, for tests and trials."""

import os
import pathlib
import threading

from como_jax import errors
from como_jax.storage import counting, protocol

_PROCESS = os.getpid()


class MemoryStore:
  """Objects in a dictionary. Another process would see an empty one, and is refused."""

  def __init__(self, name: str):
    self.name = name
    self._lock = threading.Lock()
    self._objects: dict[str, tuple[bytes, int]] = {}
    self._count = 0

  def _get(self, key: str) -> tuple[bytes, str]:
    if os.getpid() != _PROCESS:
      raise errors.UserError(f"{self.name} is the memory of another process: use no workers")
    with self._lock:
      if key not in self._objects:
        raise FileNotFoundError(2, "no such object", f"{self.name}/{key}")
      data, version = self._objects[key]
      return data, str(version)

  def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
    """See `protocol.Store`."""
    data = self._get(key)[0][start : None if size is None else start + size]
    counting.add(self.name, read=len(data))
    return data

  def stat(self, key: str) -> protocol.Entry:
    """See `protocol.Store`."""
    data, version = self._get(key)
    return protocol.Entry(key, len(data), version)

  def size(self, key: str) -> int:
    """See `protocol.Store`."""
    return self.stat(key).size

  def exists(self, key: str) -> bool:
    """See `protocol.Store`."""
    return key in self._objects

  def list(self, prefix: str) -> list[protocol.Entry]:
    """See `protocol.Store`."""
    keys = sorted(key for key in self._objects if key.startswith(protocol.folder(prefix)))
    return [self.stat(key) for key in keys]

  def write(self, key: str, data: bytes) -> None:
    """See `protocol.Store`."""
    with self._lock:
      self._put(key, data)

  def _put(self, key: str, data: bytes) -> str:
    self._count += 1
    self._objects[key] = (bytes(data), self._count)
    counting.add(self.name, written=len(data))
    return str(self._count)

  def read_versioned(self, key: str) -> tuple[bytes, protocol.Version]:
    """See `protocol.Store`."""
    data, version = self._get(key)
    counting.add(self.name, read=len(data))
    return data, version

  def write_if(self, key: str, data: bytes, expected: protocol.Version | None) -> protocol.Version:
    """See `protocol.Store`."""
    with self._lock:
      found = str(self._objects[key][1]) if key in self._objects else None
      if found != expected:
        raise protocol.Conflict(f"{self.name}/{key} {'has changed' if found else 'is gone'}")
      return self._put(key, data)

  def remove(self, key: str) -> None:
    """See `protocol.Store`."""
    with self._lock:
      self._objects.pop(key, None)
    counting.add(self.name)

  def upload(self, local_file: protocol.Path, key: str) -> None:
    """See `protocol.Store`."""
    self.write(key, pathlib.Path(local_file).read_bytes())

  def download(self, key: str, local_file: protocol.Path) -> None:
    """See `protocol.Store`."""
    target = pathlib.Path(local_file)
    temporary = protocol.temporary(target)
    temporary.write_bytes(self.read(key))
    os.replace(temporary, target)
