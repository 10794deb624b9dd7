"""The directory of a run, owned by one live run at a time.

A directory that holds a run is refused, unless --resume or --overwrite is said.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping

import jax
from clu import parameter_overview

import como_jax
from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.train import atomic, config_changes, data_identity, lock

CONFIG = "config.json"
VERSIONS = "versions.json"
PARAMETERS = "parameters.txt"

# What `open_run` is given to write beside the config, in whatever task.
BESIDE = ("policy.json", data_identity.FILE)


def check(workdir: pathlib.Path, config, *, resume: bool, overwrite: bool) -> None:
  """Refuses a directory that the run cannot use; writes nothing.

  Refused are a directory in use, a resume of nothing, and an overwrite of anything but a run of the
  same task.

  Raises:
    errors.UserError: naming the directory and the flag to give.
  """
  used = workdir.exists() and (
    not workdir.is_dir() or not _unfinished({path.name for path in workdir.iterdir()})
  )
  if used and not workdir.is_dir():
    raise errors.UserError(f"--workdir {workdir} is a file, a directory is expected")
  if used and (resume or overwrite):
    if not (workdir / CONFIG).is_file() or not (workdir / VERSIONS).is_file():
      raise errors.UserError(
        f"--workdir {workdir} holds no run of ours (no {CONFIG} and {VERSIONS}); it is left "
        "alone, choose another directory"
      )
    task = weights.read_config(workdir / CONFIG).get("task")
    if task != config.task:
      raise errors.UserError(
        f"--workdir {workdir} holds a run of task {task!r}, not {config.task!r}; it is left "
        "alone, choose another directory"
      )
  inside = [
    text
    for text in _strings(json.loads(config_lib.to_json(config)))
    if overwrite
    and text
    and pathlib.Path(text).exists()
    and pathlib.Path(text).resolve().is_relative_to(workdir.resolve())
  ]
  if inside:
    raise errors.UserError(
      f"--overwrite would delete {inside[0]!r}, which this run reads: choose another --workdir"
    )
  if used and not (resume or overwrite):
    raise errors.UserError(
      f"--workdir {workdir} is not empty: give --resume to go on with that run, --overwrite to "
      "delete it, or another directory"
    )
  if resume and not used:
    raise errors.UserError(f"--resume: {workdir} holds no run to go on with")
  if used:
    lock.take(workdir, keep=False)


def _unfinished(names: set[str]) -> bool:
  """Whether these files can be all that `open_run` had written when it was killed.

  There is no run before there is a CONFIG, and the files beside it come after VERSIONS.
  """
  written = {lock.LOCK, VERSIONS} | (set(BESIDE) if VERSIONS in names else set())
  return all(name in written or (name[0] == "." and name.endswith(".new")) for name in names)


def open_run(
  workdir: pathlib.Path,
  config,
  *,
  resume: bool,
  overwrite: bool,
  files: Mapping[str, str] | None = None,
) -> None:
  """Makes (or re-opens) the directory, takes its lock and writes versions, files and the config.

  The config comes last. So a kill leaves no run where there was none. Where there was one, it
  leaves the old config until all that stands beside the new one is there: the config of a policy
  of an older version holds its units, that of today does not. What a resume changes is printed.

  Args:
    workdir: of the run.
    config: resolved.
    resume: a run goes on.
    overwrite: a run is deleted.
    files: what stands beside the config, name (one of `BESIDE`) -> text.

  Raises:
    errors.UserError: when the config of a resumed run differs in more than operational keys, the
      directory cannot be written, or another process owns it.
  """
  files = files or {}
  assert set(files) <= set(BESIDE)
  check(workdir, config, resume=resume, overwrite=overwrite)
  said = config_changes.lines(workdir, config) if resume else []
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock.take(workdir, keep=True)
    # once more: nobody else can begin here now
    check(workdir, config, resume=resume, overwrite=overwrite)
    if overwrite:
      _empty(workdir)
    write_facts(workdir, config, files)
  except OSError as error:
    raise errors.UserError(
      f"--workdir {workdir} cannot be written: {error.strerror or error}"
    ) from error
  for line in said:
    print(line)


def write_facts(workdir: pathlib.Path, config, files: Mapping[str, str] | None = None) -> None:
  """Writes the versions, the files beside the config, and last the config.

  Args:
    workdir: of the run.
    config: resolved.
    files: as for `open_run`.
  """
  machine = json.dumps({"versions": versions(), "hardware": hardware()}, indent=2)
  texts = {VERSIONS: machine, **(files or {}), CONFIG: config_lib.to_json(config)}
  for name, text in texts.items():
    atomic.write(workdir / name, text)


def _empty(workdir: pathlib.Path) -> None:
  """Deletes what a directory holds, but for the lock of its owner."""
  for path in workdir.iterdir():
    if path.name == lock.LOCK:
      continue
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()


def write_parameters(workdir: pathlib.Path, params) -> None:
  """Writes name, shape, dtype and size of every parameter, and their sum, as a table."""
  table = parameter_overview.get_parameter_overview(params, include_stats=False)
  atomic.write(workdir / PARAMETERS, table + "\n")


def join(workdir: pathlib.Path, config, *, seconds: float = 30.0) -> None:
  """What the other processes of a run do where process 0 opens it: they see that it is there.

  Args:
    workdir: of the run.
    config: of the run, resolved.
    seconds: how long a network file system may take to show it.

  Raises:
    errors.UserError: the directory is not on a file system that the processes share.
  """
  until = time.monotonic() + seconds
  text = config_lib.to_json(config)
  while not ((workdir / CONFIG).is_file() and (workdir / CONFIG).read_text() == text):
    if time.monotonic() > until:
      raise errors.UserError(
        f"--workdir {workdir.absolute()}: process 0 has written {CONFIG} there and another "
        "process does not see it: the processes of a run need one directory on a shared file "
        "system"
      )
    time.sleep(0.1)


def _strings(value) -> list[str]:
  """All texts in a resolved config."""
  if isinstance(value, str):
    return [value]
  parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
  return [text for part in parts for text in _strings(part)]


def versions() -> dict[str, str | bool | None]:
  """Versions of this package and of what the numbers depend on, with `commit` and `clean`."""
  names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")
  return {
    "como_jax": como_jax.__version__,
    "python": platform.python_version(),
    **{name: _version(name) for name in names},
    **commit(pathlib.Path(como_jax.__file__).parent.parent),
  }


def _version(package: str) -> str | None:
  """Its version; None where it is not installed, as PyAV where no video is decoded."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def commit(root: pathlib.Path) -> dict[str, str | bool | None]:
  """The commit of a checkout, and whether the program is as it was committed.

  Args:
    root: folder of como_jax/ and configs/.

  Returns:
    {"commit": 40 hex digits, "clean": whether no file of these folders differs or is new}, both
    None where root is no checkout (an installed wheel, a copy) or there is no git.
  """

  def git(*words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode else done.stdout.strip()

  try:
    # a wheel in an environment that lies in someone's checkout is not of that checkout
    top, _, head = (git("rev-parse", "--show-toplevel", "HEAD") or "").partition("\n")
    if not head or pathlib.Path(top).resolve() != root.resolve():
      return {"commit": None, "clean": None}
    changed = git("status", "--porcelain", "--", "como_jax", "configs", "pyproject.toml")
    return {"commit": head, "clean": None if changed is None else not changed}
  except OSError:  # there is no git
    return {"commit": None, "clean": None}


def hardware() -> dict[str, str]:
  """Devices and host in words."""
  devices = jax.devices()
  return {
    "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
    "host": platform.platform(),
    "cores": str(os.cpu_count()),
  }
