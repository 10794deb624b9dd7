"""A run directory in an object store (--workdir=s3://..., gs://...).

The run works in a local copy. What changes there is copied into the store every `interval()`
seconds and at the end; what is deleted there is deleted in the store. A checkpoint counts in the
store once it is there as a whole (train/checkpoint_store.py), after the log up to it. So a kill
loses the lines of the last seconds, of steps that are done again. One run at a time owns the
directory (train/store_lock.py).

--resume begins with what the store holds, on any machine. The local copy stays, and saves a resume
on the same machine the download.
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from como_jax import errors, storage
from como_jax.train import atomic, checkpoint_store, lock, store_lock

# what makes a folder a data set, a label set, a run: copied last, deleted first
_LAST = ("manifest.json", "labels.json", "config.json")
_UNTIL_TOLD = 300.0  # seconds of failing copies between two lines about it
_LAST_TRIES, _PAUSE = 10, 30.0  # of the copy at the end: how often, seconds between two
# only for the processes of this machine, or unfinished; the leases and staged files of `units`
_LEFT_OUT = (lock.LOCK, store_lock.LOCK, "heartbeats", ".units")


def interval() -> float:
  """Seconds between two copies: $COMO_JAX_UPLOAD_SECONDS, else 30.

  Raises:
    errors.UserError: it is not a positive number.
  """
  text = os.environ.get("COMO_JAX_UPLOAD_SECONDS", "") or "30"
  try:
    seconds = float(text)
  except ValueError:
    seconds = 0.0
  if not 0 < seconds < float("inf"):
    raise errors.UserError(f"COMO_JAX_UPLOAD_SECONDS={text}, expected seconds above 0")
  return seconds


@contextlib.contextmanager
def opened(address: str, *, resume: bool) -> Iterator[None]:
  """Context in which the local copy of a run directory is kept in step with the store.

  Args:
    address: of the directory; "" = it is a local one, nothing is done.
    resume: whether a run goes on: its files are brought here first.

  Raises:
    errors.UserError: the directory is in use, or the store cannot be written.
    errors.TransientError: at the end, where the store did not take what is left.
  """
  if not address:
    yield
    return
  mirror = Mirror(address, interval())
  owned = store_lock.StoreLock(address)
  owned.take()
  try:
    mirror.bring(owned.owner, trusted=owned.previous, resume=resume)
    print(f"workdir: {address}, local copy {mirror.folder}")
    with mirror.running(owned.renew), _with_address(mirror.folder, address):
      yield
  finally:
    with contextlib.suppress(errors.TransientError):  # it expires
      owned.release(remove=mirror.empty)


class Mirror:
  """Keeps a run directory in a store like its local copy.

  Attributes:
    folder: the local copy.
  """

  def __init__(self, address: str, seconds: float):
    self.folder = storage.run_folder(address)
    self._address, self._seconds = address.rstrip("/"), seconds
    self._store, self._base = storage.open_store(self._address)
    # beside the local copy: {"owner": of the lock, "files": as `_stored`}
    self._state = self.folder.with_name(f".{self.folder.name}.json")
    self._owner = ""
    self._stored: dict[str, list[int]] = {}  # files in the store -> what they were here
    self._steps: dict[int, str] = {}  # checkpoints in the store -> identity of the local folder
    self._lock = threading.Lock()  # one copy of the files at a time

  @property
  def empty(self) -> bool:
    """Whether the store has nothing of the run."""
    return not self._stored and not self._steps

  def bring(self, owner: str, *, trusted: str, resume: bool) -> None:
    """Makes the local copy hold what the store does; for a new start, the files at the top alone.

    Remains of interrupted uploads are removed from the store of a run that goes on.

    Args:
      owner: of the lock, now.
      trusted: owner before: where the local copy is of the same one, nobody else has written since.
      resume: whether a run goes on.
    """
    start = len(self._base.rstrip("/")) + 1 if self._base else 0
    entries = {entry.key[start:]: entry for entry in self._store.list(self._base)}
    entries.pop(store_lock.LOCK, None)
    whole, half = checkpoint_store.split({name: entry.size for name, entry in entries.items()})
    dropped = [f"{checkpoint_store.FOLDER}/{step}/" for step in half if resume]
    for step in half if resume else ():
      checkpoint_store.remove(self._address, step)
      print(f"checkpoint {step}: its upload was interrupted; removed from {self._address}")
    markers = {f"{checkpoint_store.FOLDER}/{step}/{checkpoint_store.MARKER}" for step in whole}
    wanted = {
      name: entry
      for name, entry in entries.items()
      if name not in markers and not name.startswith(tuple(dropped))
    }
    state = self._read_state()
    same_owner = bool(trusted) and state.get("owner") == trusted
    known = state.get("files", {}) if same_owner else {}
    self._owner = owner
    self.folder.mkdir(parents=True, exist_ok=True)
    for path in _files(self.folder):
      if path.relative_to(self.folder).as_posix() not in wanted:
        path.unlink()
    _remove_empty(self.folder)
    for name, entry in wanted.items():
      path = self.folder / name
      unchanged = same_owner if _is_step(name) else _facts(path) == known.get(name)
      if not unchanged or _facts(path)[0] != entry.size:
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume or "/" not in name:
          self._store.download(entry.key, path)
        else:
          path.touch()  # a new start only asks whether it is there
      if not _is_step(name):
        self._stored[name] = _facts(path)
    steps = [*whole, *(() if resume else map(int, half))]
    self._steps = {step: self._identity(step) for step in steps}
    self._write_state()

  @contextlib.contextmanager
  def running(self, renew: Callable[[], None]) -> Iterator[None]:
    """Context with threads that copy the files, copy the checkpoints, and renew the lock."""
    ended, failed = threading.Event(), []

    def repeat(seconds: float, work: Callable[[], None]) -> None:
      since = 0.0
      while not ended.wait(seconds):
        try:
          work()
          since = 0.0
        except errors.TransientError as error:
          if not since or time.monotonic() - since > _UNTIL_TOLD:
            print(f"note: {error}; it is tried again every {seconds:.0f} s", file=sys.stderr)
            since = time.monotonic()
        except Exception as error:  # ends the run in order: what it has done is saved
          failed.append(error)
          ended.set()
          os.kill(os.getpid(), signal.SIGTERM)

    threads = [
      threading.Thread(target=repeat, args=args, daemon=True)
      for args in (
        (self._seconds, self.copy_files),
        (min(self._seconds, 5.0), self.copy_steps),
        (store_lock.RENEW, renew),
      )
    ]
    for thread in threads:
      thread.start()
    try:
      yield
    finally:
      ended.set()
      for thread in threads:
        thread.join()
      if failed:
        raise failed[0]
      self._copy_rest(renew)

  def _copy_rest(self, renew: Callable[[], None]) -> None:
    """Copies all that is left, with more patience than in between."""
    for attempt in range(_LAST_TRIES):
      try:
        renew()  # still ours?
        self.copy_steps()
        self.copy_files()
        return
      except errors.TransientError as error:
        if attempt == _LAST_TRIES - 1:
          raise errors.TransientError(
            f"{error}; what is not in the store is in {self.folder}: copy it from there"
          ) from error
        print(f"note: {error}; it is tried again in {_PAUSE:.0f} s", file=sys.stderr)
        time.sleep(_PAUSE)

  def copy_files(self) -> None:
    """Copies what changed since the last time, but for checkpoints, and deletes what is gone."""
    with self._lock:
      names = {path.relative_to(self.folder).as_posix(): path for path in _files(self.folder)}
      names = {name: path for name, path in names.items() if not _is_step(name)}
      order = sorted(names, key=lambda name: (name in _LAST, name))
      for name in order:
        with contextlib.suppress(FileNotFoundError):  # deleted or renamed meanwhile
          self._copy(name, names[name])
      gone = [name for name in self._stored if name not in names and not _is_step(name)]
      for name in sorted(gone, key=lambda name: (name not in _LAST, name)):
        self._store.remove(self._key(name))
        del self._stored[name]
      if order or gone:
        self._write_state()

  def _copy(self, name: str, path: pathlib.Path) -> None:
    facts = _facts(path)
    if self._stored.get(name) == facts:
      return
    if facts[0] < 64 << 20:
      self._store.write(self._key(name), path.read_bytes())  # the file may be growing
    else:
      self._store.upload(path, self._key(name))
    self._stored[name] = facts

  def copy_steps(self) -> None:
    """Copies new checkpoints, each after the files, and removes those that are gone."""
    for step, identity in list(self._steps.items()):
      if self._identity(step) != identity:  # gone, or of another run that began anew
        checkpoint_store.remove(self._address, step)
        del self._steps[step]
    for step in checkpoint_store.finished(self.folder):
      if step not in self._steps:
        identity = self._identity(step)
        self.copy_files()  # the log up to it
        with contextlib.suppress(FileNotFoundError):  # the run deletes it: next time
          checkpoint_store.upload(self.folder, self._address, step)
        self._steps[step] = identity

  def _identity(self, step: int) -> str:
    """What tells the local folder of a step from a later one of the same number; "" without one."""
    try:
      facts = (self.folder / checkpoint_store.FOLDER / str(step)).stat()
    except FileNotFoundError:
      return ""
    return f"{facts.st_ino}-{facts.st_mtime_ns}"

  def _key(self, name: str) -> str:
    return f"{self._base}/{name}" if self._base else name

  def _read_state(self) -> dict:
    try:
      state = json.loads(self._state.read_text())
    except (OSError, ValueError):
      return {}
    return state if isinstance(state, dict) else {}

  def _write_state(self) -> None:
    atomic.write(self._state, json.dumps({"owner": self._owner, "files": self._stored}))


@contextlib.contextmanager
def _with_address(folder: pathlib.Path, address: str) -> Iterator[None]:
  """Context whose errors name the directory in the store, not its local copy."""
  try:
    yield
  except (errors.UserError, errors.TransientError, errors.RunError) as error:
    if str(folder) not in str(error):
      raise
    raise type(error)(str(error).replace(str(folder), address.rstrip("/"))) from error


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files of a run directory that belong into the store."""
  found = []
  for place, folders, names in os.walk(folder):
    folders[:] = [
      name
      for name in folders
      if name not in _LEFT_OUT and ".orbax-checkpoint-tmp" not in name and ".new-" not in name
    ]
    found += [
      pathlib.Path(place) / name
      for name in names
      if name not in _LEFT_OUT
      and not (name.startswith(".") and name.endswith(".new"))
      and not name.endswith(".tmp")
    ]
  return found


def _remove_empty(folder: pathlib.Path) -> None:
  for place, _, _ in os.walk(folder, topdown=False):
    if place != str(folder):
      with contextlib.suppress(OSError):  # it is not empty
        os.rmdir(place)


def _is_step(name: str) -> bool:
  """Whether a name within a run directory is of a checkpoint's step."""
  words = name.split("/")
  return len(words) > 2 and words[0] == checkpoint_store.FOLDER and words[1].isdecimal()


def _facts(path: pathlib.Path) -> list[int]:
  """[Size, time of the last change in ns]; [-1, -1] where there is no file."""
  try:
    facts = path.stat()
  except FileNotFoundError:
    return [-1, -1]
  return [facts.st_size, facts.st_mtime_ns]
