"""Local copies of whole remote folders: label sets, weights, runs."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterable

import xxhash

from como_jax import errors
from como_jax.storage import addresses, cache, protocol

PART = "folders"  # below `cache.root`
Select = Callable[[dict[str, int]], Iterable[str]]  # name in the folder -> size; which are wanted


def copy(
  store: protocol.Store, key: str, address: str, *, select: Select | None = None
) -> pathlib.Path:
  """A local folder with the files of a remote one; only what has changed is downloaded.

  Args:
    store: that has it.
    key: of the folder.
    address: of the folder.
    select: chooses the files; None = all.

  Raises:
    errors.UserError: there is nothing at the address.
    Other errors: see `protocol.Store`.
  """
  entries = {entry.key[len(protocol.folder(key)) :]: entry for entry in store.list(key)}
  if not entries:
    raise errors.UserError(f"{address} does not exist")
  sizes = {name: entry.size for name, entry in entries.items()}
  wanted = set(select(sizes)) if select else set(sizes)
  digest = xxhash.xxh3_64_hexdigest(address.rstrip("/").encode())
  folder = cache.root() / PART / digest / addresses.name(address)
  folder.mkdir(parents=True, exist_ok=True)
  state = folder.parent / ".versions.json"
  with (folder.parent / ".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
      known = json.loads(state.read_text())
    except (OSError, ValueError):
      known = {}
    missing = [
      name
      for name in sorted(wanted)
      if known.get(name) != entries[name].version or not (folder / name).is_file()
    ]
    if missing:
      print(f"copying {sum(sizes[name] for name in missing):,} bytes of {address}")
    for path in sorted(folder.rglob("*"), reverse=True):
      if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
        path.unlink()
      elif path.is_dir():
        with contextlib.suppress(OSError):  # it is not empty
          path.rmdir()
    for name in missing:
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      store.download(entries[name].key, folder / name)
    temporary = protocol.temporary(state)
    temporary.write_text(json.dumps({name: entries[name].version for name in wanted}))
    os.replace(temporary, state)
  return folder
