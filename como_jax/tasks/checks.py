"""What the tables of the code, the folders of this machine and a config have to say to each other,
before a task begins.

Kinds and ranges of values are checked when the command line is read (settings/limits.py). Here it
is names that an extension may add to (models, objectives, simulators, formats), losses that do not
go with the model, paths that are not there, folders that cannot be written. Nothing is loaded,
compiled or written. Modules are imported by the tasks that need them.
"""

import os
import pathlib
import shlex
from collections.abc import Iterable
from typing import Any

from como_jax import config as config_lib
from como_jax import errors

# Losses of the motion model that only some models have: term -> (section, key, values that bring
# it).
_TERMS = {
  "quantization": ("bottleneck", "kind", ("vq", "pre_vq")),
  "kl": ("bottleneck", "kind", ("kl",)),
  "features": ("fdm", "features", ("direct", "residual")),
}


def check(config) -> None:
  """Refuses names that are in no table, losses without a weight or without a model, and inputs that
  do not exist.

  Raises:
    errors.UserError: naming the key and the nearest valid name.
  """
  _CHECKS.get(config.task, lambda config: None)(config)
  _inputs(config)


def one_of(key: str, value: str, valid: Iterable[str]) -> None:
  """Raises `errors.UserError` unless the value of a key is one of the valid ones."""
  valid = list(valid)
  if value not in valid:
    shown = repr(dict(value) if hasattr(value, "keys") else value)
    raise errors.UserError(f"config.{key}={shown} is unknown: {errors.nearest(str(value), valid)}")


def places(command: config_lib.CommandLine) -> None:
  """Refuses a folder that could not be written. Writes nothing.

  Raises:
    errors.UserError: naming the folder and what is in the way.
  """
  config = command.config
  wanted = {} if config.task == "serve" else {"--workdir": str(command.workdir)}
  wanted |= {
    f"config.{key}": config[key] for key in ("output", "lerobot") if key in config and config[key]
  }
  if "--workdir" in wanted and config.get("output") and config.task == "ingest":
    del wanted["--workdir"]
  for name, path in wanted.items():
    there = pathlib.Path(path).absolute()
    while not os.path.lexists(there) and there != there.parent:
      there = there.parent
    if not there.is_dir():
      what = (
        "is a file, a directory is expected"
        if str(there) == str(pathlib.Path(path).absolute())
        else f"cannot be made: {there} is no directory"
      )
      raise errors.UserError(f"{name} {path} {what}")
    long = _too_long(there, pathlib.Path(path).absolute())
    if long:
      raise errors.UserError(f"{name} {path[:40]}... is too long a path here: {long}")
    if not os.access(there, os.W_OK | os.X_OK):
      raise errors.UserError(
        f"{name} {path} cannot be written: no permission for {there}; choose another directory"
      )


def _too_long(there: pathlib.Path, path: pathlib.Path) -> str:
  """What is too long in a path of which `there` is a folder already; "" for nothing.

  A run's own files need some room below it.
  """
  name, whole = (os.pathconf(there, key) for key in ("PC_NAME_MAX", "PC_PATH_MAX"))
  longest = max((len(os.fsencode(part)) for part in path.relative_to(there).parts), default=0)
  if 0 < name < longest:
    return f"a name of {longest} bytes, at most {name} are possible"
  size = len(os.fsencode(path)) + name
  return f"{size - name} bytes, at most {whole - name} are possible" if size > whole else ""


def _inputs(config) -> None:
  """Paths that are read must be there, all of them before the first one is worked on."""
  from como_jax.tasks import motion_data

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
    motion_data.resolve(entry["path"], name=f"config.data.mixture[{i}]['path']")
    if entry.get("labels"):
      exists(f"config.data.mixture[{i}]['labels']", entry["labels"])
  for key in ("data.path", "source.path"):
    path = _value(config, key)
    if path is not None and not entries:
      motion_data.resolve(path, name=f"config.{key}")
  if config.task == "quickstart":
    motion_data.resolve(config.source, name="config.source")


def exists(name: str, path: str) -> None:
  """Raises `errors.UserError` for a path that is not there, naming the nearest."""
  if not os.path.exists(path):
    folder = os.path.dirname(path.rstrip("/")) or "."
    there = os.listdir(folder) if os.path.isdir(folder) else []
    hint = errors.nearest(
      path,
      [
        os.path.join(folder, one) if os.path.dirname(path) else one
        for one in there
        if not one.startswith(".")
      ],
    )
    raise errors.UserError(
      f"{name}={path} does not exist"
      + (f": {hint.partition(' (')[0]}" if hint.startswith("did") else "")
    )


def _value(config, key: str) -> Any:
  """The value at a dotted key, None where there is none."""
  for part in key.split("."):
    if not hasattr(config, "keys") or part not in config:
      return None
    config = config[part]
  return config


def _trained(config) -> None:
  """A training task's model, optimizer and losses."""
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
  from como_jax import objectives
  from como_jax.objectives import quantization

  for name, section in config.objectives.items():
    if name not in objectives.OBJECTIVES:
      raise errors.UserError(
        f"config.objectives has no {name!r}: {errors.nearest(name, objectives.OBJECTIVES)}"
      )
    _weighted(f"config.objectives.{name}", section)
  weights = {name: section.weight for name, section in config.objectives.items()}
  own = (
    ("mae",)
    if config.task == "mae"
    else tuple(name for name in objectives.OBJECTIVES if name != "mae")
  )
  for name, weight in weights.items():
    brings, reason = (
      name in own,
      f"a model of kind {config.task!r} has no such loss (its own: {', '.join(own)})",
    )
    if brings and name in _TERMS:
      part, key, valid = _TERMS[name]
      brings, reason = (
        config.model[part][key] in valid,
        f"it needs --config.model.{part}.{key}={' or '.join(valid)}",
      )
    if weight and not brings:
      raise errors.UserError(f"config.objectives.{name}.weight={weight:g}: {reason}")
  for name, (part, key, valid) in _TERMS.items() if config.task == "motion" else ():
    # without it a KL bottleneck still learns
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
      # unknown settings; the files are read later
      for name, section in config.objectives.items()
    }
  )


def _weighted(name: str, section: Any) -> None:
  if not hasattr(section, "keys"):
    raise errors.UserError(
      f"{name}={section!r}, expected a section with a weight: {{'weight': 1.0}}"
    )
  if type(section.get("weight")) not in (int, float):
    raise errors.UserError(
      f"{name}.weight is {section.get('weight')!r}, expected a number of at least 0"
    )


def _policy(config) -> None:
  from como_jax import language
  from como_jax.models import config_utils

  known = ("action", "latent", "gripper")  # the last counts where the data have grippers
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
    words = [f"--config.{word}" for word in shlex.split(config.changes)]
  except ValueError as error:
    raise errors.UserError(f"config.changes={config.changes}: {error}") from error
  for key, more in (("of", []), ("changes", words)):
    try:
      planned = config_lib.parse(["main", f"--config={config.of}", *more]).config
    except errors.UserError as error:
      raise errors.UserError(f"config.{key}={config[key]}: {error}") from error
  compile_task.check(config, planned)


def _quickstart(config) -> None:
  wanted = {
    task: task for task in ("ingest", "motion", "probe", "extract", "policy", "rollout")
  } | ({"exam": "probe"} if config.exam else {})
  for key, task in wanted.items():
    try:
      found = config_lib.load(config[key])[0].task
    except errors.UserError as error:
      raise errors.UserError(f"config.{key}={config[key]}: {error}") from error
    if found != task:
      raise errors.UserError(
        f"config.{key}={config[key]} is a config of task {found!r}, one of task {task!r} is "
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
