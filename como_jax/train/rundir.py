"""The directory of a run: refused when it holds one, unless --resume or --overwrite is said."""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import time

import jax

import como_jax
from como_jax import config as config_lib
from como_jax import errors
from como_jax.train import files

CONFIG = "config.json"
VERSIONS = "versions.json"

# What may change between the runs of one experiment; anything else would make another experiment of it.
FREE = (r"train.steps", r"train.log_every", r"train.evaluate_every", r"train.checkpoint_every", r"train.keep_checkpoints",
        r"train.tensorboard", r"train.wandb", r"train.mesh.", r"model.attention_kernel", r"data.workers", r"data.threads",
        r"data.prefetch", r"data.cache", r"lerobot")


def check(workdir: pathlib.Path, config, *, resume: bool, overwrite: bool) -> None:
  """Refuses a directory in use, a resume of nothing, and an overwrite of anything but a run of the same task. Writes nothing.

  Raises:
    errors.UserError: naming the directory and the flag to give.
  """
  used = workdir.exists() and (not workdir.is_dir() or not all(_begun(path.name) for path in workdir.iterdir()))
  if used and not workdir.is_dir():
    raise errors.UserError(f"--workdir {workdir} is a file, a directory is expected")
  if used and (resume or overwrite):
    if not (workdir / CONFIG).is_file() or not (workdir / VERSIONS).is_file():
      raise errors.UserError(f"--workdir {workdir} holds no run of ours (no {CONFIG} and {VERSIONS}); it is left alone, choose another directory")
    task = json.loads((workdir / CONFIG).read_text()).get("task")
    if task != config.task:
      raise errors.UserError(f"--workdir {workdir} holds a run of task {task!r}, not {config.task!r}; it is left alone, choose another directory")
  inside = [text for text in _strings(json.loads(config_lib.to_json(config)))
            if overwrite and text and pathlib.Path(text).exists() and pathlib.Path(text).resolve().is_relative_to(workdir.resolve())]
  if inside:
    raise errors.UserError(f"--overwrite would delete {inside[0]!r}, which this run reads: choose another --workdir")
  if used and not (resume or overwrite):
    raise errors.UserError(f"--workdir {workdir} is not empty: give --resume to go on with that run, --overwrite to delete it, or another directory")
  if resume and not used:
    raise errors.UserError(f"--resume: {workdir} holds no run to go on with")


def _begun(name: str) -> bool:
  """Whether a file of this name can be all that `open_run` had written when it was killed: there is no run before there is a CONFIG."""
  return name == VERSIONS or (name.startswith(".") and name.endswith(".new"))


def open_run(workdir: pathlib.Path, config, *, resume: bool, overwrite: bool) -> dict:
  """Makes (or re-opens) the directory and writes the resolved config and versions; returns the config as plain JSON data.

  Raises:
    errors.UserError: when the config of a resumed run differs in more than operational keys.
  """
  check(workdir, config, resume=resume, overwrite=overwrite)
  new = json.loads(config_lib.to_json(config))
  if resume:
    old = json.loads((workdir / CONFIG).read_text())
    changed = {key: pair for key, pair in config_lib.differences(old, new).items() if not any(key.startswith(free) for free in FREE)}
    if changed:
      listed = "; ".join(f"{key}: {was!r} before, {now!r} now" for key, (was, now) in list(changed.items())[:5])
      raise errors.UserError(f"--resume: the config is not the one {workdir} was started with: {listed}")
  elif overwrite and workdir.exists():
    shutil.rmtree(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  files.write(workdir / VERSIONS, json.dumps({"versions": versions(), "hardware": hardware()}, indent=2))
  files.write(workdir / CONFIG, json.dumps(new, indent=2, sort_keys=True))
  return new


def join(workdir: pathlib.Path, config, *, seconds: float = 30.0) -> None:
  """What the other processes of a run do where process 0 opens it: they see that it is there.

  Args:
    seconds: how long a network file system may take to show it.

  Raises:
    errors.UserError: the directory is not on a file system that the processes share.
  """
  until = time.monotonic() + seconds
  text = config_lib.to_json(config)
  while not ((workdir / CONFIG).is_file() and (workdir / CONFIG).read_text() == text):
    if time.monotonic() > until:
      raise errors.UserError(f"--workdir {workdir.absolute()}: process 0 has written {CONFIG} there and another process does not see it: "
                             "the processes of a run need one directory on a shared file system")
    time.sleep(0.1)


def _strings(value) -> list[str]:
  """All texts in a resolved config."""
  if isinstance(value, str):
    return [value]
  parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
  return [text for part in parts for text in _strings(part)]


def versions() -> dict[str, str]:
  """Versions of this package and of what the numbers depend on."""
  names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")
  return {"como_jax": como_jax.__version__, "python": platform.python_version(),
          **{name: importlib.metadata.version(name) for name in names}}


def hardware() -> dict[str, str]:
  """Devices and host in words."""
  devices = jax.devices()
  return {"devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})", "host": platform.platform(),
          "cores": str(os.cpu_count())}
