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

import jax
from clu import parameter_overview

import como_jax
from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.settings import renames
from como_jax.train import atomic, lock

CONFIG = "config.json"
VERSIONS = "versions.json"
PARAMETERS = "parameters.txt"

# What may change between the runs of one experiment (a dot at the end: the whole section); anything
# else would make another experiment of it. The learning rate and the clipping are what one changes
# after a loss that was not finite. Every change is printed.
RESUMABLE_KEYS = (
  "train.steps",
  "train.log_every",
  "train.evaluate_every",
  "train.checkpoint_every",
  "train.keep_checkpoints",
  "train.tensorboard",
  "train.wandb",
  "train.mesh.",
  "train.accept_changed_data",
  "model.attention_kernel",
  "data.workers",
  "data.threads",
  "data.prefetch",
  "data.cache",
  "lerobot",
  *(
    f"train.optimizer.{key}"
    for key in ("learning_rate", "schedule", "floor", "warmup_steps", "warmup_start", "clip_norm")
  ),
)

# Keys that a run of an earlier version does not have, and the value with which it goes on as it
# was.
SINCE = {
  "model.idm.components": 0,
  "model.idm.components_pool": 1,
  "model.idm.components_of": "features",
  "train.cache_tokens": False,
  "objectives.contrastive.gate": 0.0,
  "data.source.frame_rate": 0.0,
}


def check(workdir: pathlib.Path, config, *, resume: bool, overwrite: bool) -> None:
  """Refuses a directory that the run cannot use; writes nothing.

  Refused are a directory in use, a resume of nothing, and an overwrite of anything but a run of the
  same task.

  Raises:
    errors.UserError: naming the directory and the flag to give.
  """
  used = workdir.exists() and (
    not workdir.is_dir() or not all(_begun(path.name) for path in workdir.iterdir())
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


def _begun(name: str) -> bool:
  """Whether a file of this name can be all that `open_run` had written when it was killed.

  There is no run before there is a CONFIG.
  """
  return name in (VERSIONS, lock.LOCK) or (name.startswith(".") and name.endswith(".new"))


def open_run(workdir: pathlib.Path, config, *, resume: bool, overwrite: bool) -> None:
  """Makes (or re-opens) the directory, takes its lock and writes the resolved config and versions.

  What a resume changes is printed.

  Raises:
    errors.UserError: when the config of a resumed run differs in more than operational keys, the
      directory cannot be written, or another process owns it.
  """
  check(workdir, config, resume=resume, overwrite=overwrite)
  changed = changes(workdir, config) if resume else {}
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock.take(workdir, keep=True)
    # once more: nobody else can begin here now
    check(workdir, config, resume=resume, overwrite=overwrite)
    if overwrite:
      _empty(workdir)
    atomic.write(
      workdir / VERSIONS, json.dumps({"versions": versions(), "hardware": hardware()}, indent=2)
    )
    atomic.write(workdir / CONFIG, config_lib.to_json(config))
  except OSError as error:
    raise errors.UserError(
      f"--workdir {workdir} cannot be written: {error.strerror or error}"
    ) from error
  for key, (was, now) in changed.items():
    if was is not None:  # written by a version that did not have the key
      print(f"resume: {key}: {was!r} before, {now!r} now")


def changes(workdir: pathlib.Path, config) -> dict[str, tuple]:
  """{key: (before, now)} of a resumed run's config.

  Raises:
    errors.UserError: a key that must not change; it names both values.
  """
  stored = weights.read_config(workdir / CONFIG)
  changed = {
    key: pair
    for key, pair in config_lib.differences(stored, json.loads(config_lib.to_json(config))).items()
    if (key not in SINCE or pair != (None, SINCE[key])) and not renames.written_by_data(stored, key)
  }
  refused = {
    key: pair
    for key, pair in changed.items()
    if not any(
      key == free or (free.endswith(".") and key.startswith(free)) for free in RESUMABLE_KEYS
    )
  }
  if refused:
    listed = "; ".join(
      f"{key}: {was!r} before, {now!r} now" for key, (was, now) in list(refused.items())[:5]
    )
    raise errors.UserError(
      f"--resume: the config is not the one {workdir} was started with: {listed}"
    )
  return changed


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
    **{name: importlib.metadata.version(name) for name in names},
    **commit(pathlib.Path(como_jax.__file__).parent.parent),
  }


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
