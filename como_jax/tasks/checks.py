"""Checks of a config against the code's tables and this machine's folders, before a task begins.

Types and ranges of values are checked when the command line is read (settings/limits.py). This
module checks names that an extension may add (models, objectives, simulators, formats), losses that
do not match the model, paths that do not exist, and folders that cannot be written. Nothing is
loaded, compiled or written. Each check imports only the modules that its task needs.
"""

import os
import pathlib
import shlex
from collections.abc import Iterable
from typing import Any

from como_jax import config as config_lib
from como_jax import errors

# Losses that only some motion models have: term -> (section, key, values with which the model has
# it).
_TERMS = {
  "quantization": ("bottleneck", "kind", ("vq", "pre_vq")),
  "kl": ("bottleneck", "kind", ("kl",)),
  "features": ("fdm", "features", ("direct", "residual")),
}


def check(config) -> None:
  """Refuses unknown names, losses without a weight or a matching model, and missing inputs.

  Raises:
    errors.UserError: names the key and the nearest valid name.
  """
  _CHECKS.get(config.task, lambda config: None)(config)
  _inputs(config)


def one_of(key: str, value: str, valid: Iterable[str]) -> None:
  """Checks that the value of a key is one of the valid values.

  Raises:
    errors.UserError: names the key and the nearest valid value.
  """
  valid = list(valid)
  if value not in valid:
    text = repr(dict(value) if hasattr(value, "keys") else value)
    raise errors.UserError(f"config.{key}={text} is unknown: {errors.nearest(str(value), valid)}")


def places(command: config_lib.CommandLine) -> None:
  """Refuses an output folder that cannot be written; writes nothing.

  Raises:
    errors.UserError: names the folder and the obstacle.
  """
  config = command.config
  folders = {} if config.task == "serve" else {"--workdir": str(command.workdir)}
  folders |= {
    f"config.{key}": config[key] for key in ("output", "lerobot") if key in config and config[key]
  }
  if "--workdir" in folders and config.get("output") and config.task == "ingest":
    del folders["--workdir"]
  for name, path in folders.items():
    existing = pathlib.Path(path).absolute()
    while not os.path.lexists(existing) and existing != existing.parent:
      existing = existing.parent
    if not existing.is_dir():
      what = (
        "is a file, a directory is expected"
        if str(existing) == str(pathlib.Path(path).absolute())
        else f"cannot be made: {existing} is no directory"
      )
      raise errors.UserError(f"{name} {path} {what}")
    long = _too_long(existing, pathlib.Path(path).absolute())
    if long:
      raise errors.UserError(f"{name} {path[:40]}... is too long a path here: {long}")
    if not os.access(existing, os.W_OK | os.X_OK):
      raise errors.UserError(
        f"{name} {path} cannot be written: no permission for {existing}; choose another directory"
      )


def _too_long(existing: pathlib.Path, path: pathlib.Path) -> str:
  """Describes what is too long in a path; "" for nothing.

  The files of a run in that folder need room for one more name.

  Args:
    existing: the part of the path that exists.
    path: the whole path.
  """
  max_name, max_path = (os.pathconf(existing, key) for key in ("PC_NAME_MAX", "PC_PATH_MAX"))
  longest = max((len(os.fsencode(part)) for part in path.relative_to(existing).parts), default=0)
  if 0 < max_name < longest:
    return f"a name of {longest} bytes, at most {max_name} are possible"
  size = len(os.fsencode(path))
  if size + max_name > max_path:
    return f"{size} bytes, at most {max_path - max_name} are possible"
  return ""


def _inputs(config) -> None:
  """Checks that all input paths exist, before the work on the first one begins."""
  from como_jax.assembly import data_folders

  for key in (
    "checkpoint",
    "init",
    "encoder_weights",
    "data.labels",
    "language.weights",
    "objectives.perceptual.weights_path",
    "exam.latents",
    "exam.set",
  ):
    path = _value(config, key)
    if path and not (key in ("encoder_weights", "exam.set") and path == "bundled"):
      exists(f"config.{key}", path)
  entries = _value(config, "data.mixture") or ()
  for i, entry in enumerate(entries):
    data_folders.resolve(entry["path"], name=f"config.data.mixture[{i}]['path']")
    if entry.get("labels"):
      exists(f"config.data.mixture[{i}]['labels']", entry["labels"])
  for key in ("data.path", "source.path"):
    path = _value(config, key)
    if path is not None and not entries:
      data_folders.resolve(path, name=f"config.{key}")
  if config.task == "quickstart":
    data_folders.resolve(config.source, name="config.source")


def exists(name: str, path: str) -> None:
  """Checks that a path exists.

  Args:
    name: of the setting, for the message.
    path: to check.

  Raises:
    errors.UserError: the path does not exist; names the nearest existing one.
  """
  if not os.path.exists(path):
    folder = os.path.dirname(path.rstrip("/")) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    hint = errors.nearest(
      path,
      [
        os.path.join(folder, name) if os.path.dirname(path) else name
        for name in names
        if not name.startswith(".")
      ],
    )
    raise errors.UserError(
      f"{name}={path} does not exist"
      + (f": {hint.partition(' (')[0]}" if hint.startswith("did") else "")
    )


def _value(config, key: str) -> Any:
  """Value at a dotted key; None where the key does not exist."""
  for part in key.split("."):
    if not hasattr(config, "keys") or part not in config:
      return None
    config = config[part]
  return config


def _trained(config) -> None:
  """Checks the model, the optimizer and the losses of a training task."""
  from como_jax import models
  from como_jax.train import optimizer

  if config.model.kind != config.task:
    raise errors.UserError(
      f"config.model.kind={config.model.kind!r}, this config trains a model of kind {config.task!r}"
    )
  models.build(config.model.to_dict())
  optimizer.build(steps=config.train.steps, **config.train.optimizer)
  if config.task == "policy":
    _policy(config)
  else:
    _objectives(config)


def _objectives(config) -> None:
  """Checks the losses of a motion model or an MAE."""
  from como_jax import objectives
  from como_jax.objectives import quantization

  for name, section in config.objectives.items():
    if name not in objectives.OBJECTIVES:
      raise errors.UserError(
        f"config.objectives has no {name!r}: {errors.nearest(name, objectives.OBJECTIVES)}"
      )
    _weighted(f"config.objectives.{name}", section)
  weights = {name: section.weight for name, section in config.objectives.items()}
  available = (
    ("mae",)
    if config.task == "mae"
    else tuple(name for name in objectives.OBJECTIVES if name != "mae")
  )
  for name, weight in weights.items():
    matches = name in available
    reason = f"a model of kind {config.task!r} has no such loss (its own: {', '.join(available)})"
    if matches and name in _TERMS:
      part, key, valid = _TERMS[name]
      matches = config.model[part][key] in valid
      reason = f"it needs --config.model.{part}.{key}={' or '.join(valid)}"
    if weight and not matches:
      raise errors.UserError(f"config.objectives.{name}.weight={weight:g}: {reason}")
  for name, (part, key, valid) in _TERMS.items() if config.task == "motion" else ():
    # a KL bottleneck also learns with the weight 0
    if config.model[part][key] in valid and not (
      weights.get(name) or (name == "kl" and name in weights)
    ):
      raise errors.UserError(
        f"config.model.{part}.{key}={config.model[part][key]} has a loss without a weight, so "
        f"that part would never be trained: add --config.objectives=\"{{'{name}': {{'weight': "
        f'1.0}}}}"'
      )
  if "quantization" in config.objectives:
    one_of(
      "objectives.quantization.weighting",
      config.objectives.quantization.get("weighting", "legacy"),
      quantization.WEIGHTINGS,
    )
  objectives.build(
    {
      name: {key: value for key, value in section.to_dict().items() if key != "weights_path"}
      # this finds unknown settings; the files of "weights_path" are read later
      for name, section in config.objectives.items()
    }
  )


def _weighted(name: str, section: Any) -> None:
  """Checks that the section of a loss has a weight."""
  if not hasattr(section, "keys"):
    raise errors.UserError(
      f"{name}={section!r}, expected a section with a weight: {{'weight': 1.0}}"
    )
  if type(section.get("weight")) not in (int, float):
    raise errors.UserError(
      f"{name}.weight is {section.get('weight')!r}, expected a number of at least 0"
    )


def _policy(config) -> None:
  """Checks the losses and the language settings of a policy."""
  from como_jax import language
  from como_jax.models import config_utils

  known = ("action", "latent", "gripper")  # "gripper" is used only for data with grippers
  for name, section in config.policy.objectives.items():
    if name not in known:
      raise errors.UserError(
        f"config.policy.objectives has no {name!r}: {errors.nearest(name, known)}"
      )
    config_utils.check(section, f"config.policy.objectives.{name}", required=("weight",))
  for name in known:
    if name not in config.policy.objectives:
      raise errors.UserError(
        f"config.policy.objectives gives the loss {name!r} of this policy no weight: add "
        f"--config.policy.objectives=\"{{'{name}': {{'weight': 1.0}}}}\" (0.0 leaves it out)"
      )
  settings = config_utils.instantiate(
    language.Settings, config_utils.plain(config.language), "language"
  )
  one_of("language.kind", settings.kind, language.KINDS)
  one_of("language.dtype", settings.dtype, language.DTYPES)


def _ingest(config) -> None:
  from como_jax.data import shard_file, sources

  one_of("source.format", config.source.format, [*sources.SOURCES, "auto"])
  one_of("shards.codec", config.shards.codec, shard_file.CODECS)


def _extract(config) -> None:
  from como_jax.tasks import extract

  extract.check(config)


def _rollout(config) -> None:
  from como_jax import sim
  from como_jax.tasks import rollout

  rollout.check(config)
  one_of("simulator", config.simulator, sim.SIMULATORS)


def _collect(config) -> None:
  from como_jax import sim
  from como_jax.sim import collect

  one_of("collect.simulator", config.collect.simulator, sim.SIMULATORS)
  collect.Settings(**config.collect.to_dict())


def _serve(config) -> None:
  from como_jax.serve import server
  from como_jax.tasks import serve

  server.Settings(**{name: config[name] for name in serve.SETTINGS})


def _compile(config) -> None:
  from como_jax.parallel import topology
  from como_jax.tasks import compile as compile_task

  topology.parse(config.topology)
  try:
    changes = [f"--config.{change}" for change in shlex.split(config.changes)]
  except ValueError as error:
    raise errors.UserError(f"config.changes={config.changes}: {error}") from error
  for key, args in (("of", []), ("changes", changes)):
    try:
      planned = config_lib.parse(["main", f"--config={config.of}", *args]).config
    except errors.UserError as error:
      raise errors.UserError(f"config.{key}={config[key]}: {error}") from error
  compile_task.check(config, planned)


def _quickstart(config) -> None:
  tasks = {task: task for task in ("ingest", "motion", "probe", "extract", "policy", "rollout")}
  if config.exam:
    tasks["exam"] = "probe"
  for key, expected in tasks.items():
    try:
      task = config_lib.load(config[key])[0].task
    except errors.UserError as error:
      raise errors.UserError(f"config.{key}={config[key]}: {error}") from error
    if task != expected:
      raise errors.UserError(
        f"config.{key}={config[key]} is a config of task {task!r}, one of task {expected!r} is "
        "expected"
      )


_CHECKS = {
  "mae": _trained,
  "motion": _trained,
  "policy": _trained,
  "ingest": _ingest,
  "extract": _extract,
  "rollout": _rollout,
  "collect": _collect,
  "serve": _serve,
  "compile": _compile,
  "quickstart": _quickstart,
}
