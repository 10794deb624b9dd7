"""What supervisors write beside a run's directory: the ledger, and a note for the other hosts."""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import shlex
import socket
import sys

import failures
from common import errors


def beside(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Path of a file beside a run's directory: WORKDIR.NAME."""
  path = pathlib.Path(os.path.abspath(workdir))
  return path.with_name(f"{path.name}.{name}")


def default_path(workdir: pathlib.Path, *, several: bool) -> pathlib.Path:
  """Path of the ledger; with a name of the process if there are several.

  On Kubernetes that is its number, because a pod may come back on another node, whose name it has.
  """
  pod, name = os.environ.get("JOB_COMPLETION_INDEX"), socket.gethostname()
  if pod is not None:
    name = f"{os.environ.get('MEGASCALE_SLICE_ID', '0')}-{pod}"
  host = f"-{name}" if several else ""
  return beside(workdir, f"supervise{host}.jsonl")


class Ledger:
  """A file with one line for every start and end of a run; only one supervisor uses it.

  Attributes:
    file: is locked; a command that inherits it keeps the lock.
  """

  def __init__(self, path: pathlib.Path):
    """Opens and locks the file.

    Args:
      path: of the file.

    Raises:
      errors.UserError: another supervisor, or a command that one has left behind, uses it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    self._path, self.file = path, path.open("a")
    with contextlib.suppress(OSError):  # some file systems have no locks
      try:
        fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        raise errors.UserError(
          f"{path} is in use: a supervisor, or a command that one has left behind, is at work there"
        ) from error

  def write(self, event: str, **values) -> None:
    """Writes one line to the file and one to stderr."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    self.file.write(json.dumps({"time": now, "event": event, **values}) + "\n")
    self.file.flush()
    text = ", ".join(
      f"{key} {shlex.join(value) if isinstance(value, list) else value}"
      for key, value in values.items()
    )
    print(f"supervise: {event}: {text}", file=sys.stderr, flush=True)

  def ends(self) -> list[tuple[int | None, int]]:
    """Reads (step, exit code) of the ends since the run was last given up.

    A scheduler does not start a run again that was given up; a person who has mended it does.
    """
    ends = []
    for line in self._path.read_text().splitlines():
      with contextlib.suppress(ValueError, KeyError):
        entry = json.loads(line)
        if entry["event"] == "end":
          ends.append((entry["step"], entry["code"]))
          if entry["next"] in [f"leave with {code}" for code in failures.FINAL]:
            ends.clear()
    return ends


class GivenUp:
  """Tells the supervisors of a run's other hosts that one of them has given up.

  The others would wait for its process for ever.
  """

  def __init__(self, workdir: pathlib.Path, start: str):
    """Writes nothing yet.

    Args:
      workdir: of the run; all hosts see it.
      start: the same on all hosts, and another one when somebody starts the run again; "" = this
        supervisor is alone.
    """
    self._path, self._start = beside(workdir, "supervise-gave-up.json"), start

  def write(self, code: int, reason: str) -> None:
    """Tells the others that this host gives up."""
    if not self._start:
      return
    host = socket.gethostname()
    temporary = self._path.with_name(f"{self._path.name}.{host}")
    temporary.write_text(
      json.dumps({"start": self._start, "host": host, "code": code, "reason": reason})
    )
    temporary.replace(self._path)

  def read(self) -> tuple[str, int] | None:
    """Reason and exit code of a host that gave up; None without one."""
    with contextlib.suppress(OSError, ValueError, KeyError):
      note = json.loads(self._path.read_text())
      if self._start and note["start"] == self._start:
        return f"{note['host']} gave up: {note['reason']}", int(note["code"])
    return None
