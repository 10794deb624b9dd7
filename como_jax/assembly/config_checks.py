"""Checks of a config against the code's tables and this machine's folders, before a task begins.

Types and ranges of values are checked when the command line is read (settings/limits.py). This
module checks names that an extension may add (models, objectives, simulators, formats), losses that
do not match the model, paths that do not exist, and folders that cannot be written. Nothing is
loaded, compiled or written. Each check imports only the modules that its task needs.
"""

from collections.abc import Callable
from typing import Any

from como_jax import config as config_lib
from como_jax import errors, trees
from como_jax.assembly import data_folders
from como_jax.settings import locations

_IN_ENCODER = "encoder/blocks/mlp/up/kernel"  # a weight that is in every encoder


def check(config: config_lib.ConfigDict) -> None:
  """Refuses unknown names, losses without a weight or a matching model, and missing inputs.

  Raises:
    errors.UserError: names the key and the nearest valid name.
  """
  if config.task in _CHECKS:
    _CHECKS[config.task](config)
  _inputs(config)


def places(command: config_lib.CommandLine) -> None:
  """Refuses an output folder that cannot be written; writes nothing.

  Raises:
    errors.UserError: names the folder and the obstacle.
  """
  config = command.config
  folders = {} if config.task == "serve" else {"--workdir": str(command.workdir)}
  folders |= {
    f"config.{key}": str(config[key])
    for key in ("output", "lerobot")
    if key in config and config[key]
  }
  if "--workdir" in folders and config.get("output") and config.task == "ingest":
    del folders["--workdir"]
  for name, path in folders.items():
    locations.writable(name, path)


def _inputs(config: config_lib.ConfigDict) -> None:
  """Checks that all input paths exist, before the work on the first one begins."""
  for key in (
    "checkpoint",
    "init",
    "encoder_weights",
    "data.labels",
    "language.weights",
    "objectives.perceptual.weights_path",
    "exam.latents",
    "exam.set",
    "calibration",
  ):
    path = _value(config, key)
    if path and not (key in ("encoder_weights", "exam.set") and path == "bundled"):
      locations.exists(f"config.{key}", path)
  entries = _value(config, "data.mixture") or ()
  for i, entry in enumerate(entries):
    data_folders.resolve(entry["path"], name=f"config.data.mixture[{i}]['path']")
    if entry.get("labels"):
      locations.exists(f"config.data.mixture[{i}]['labels']", entry["labels"])
  for key in ("data.path", "source.path"):
    path = _value(config, key)
    if path is not None and not entries:
      data_folders.resolve(path, name=f"config.{key}")
  if config.task == "quickstart":
    data_folders.resolve(config.source, name="config.source")


def _value(config: config_lib.ConfigDict, key: str) -> Any:
  """Value at a dotted key; None where the key does not exist."""
  value: Any = config
  for part in key.split("."):
    if not hasattr(value, "keys") or part not in value:
      return None
    value = value[part]
  return value


def _trained(config: config_lib.ConfigDict) -> None:
  """Checks the model, the optimizer and the losses of a training task."""
  from como_jax import models
  from como_jax.train import optimizer

  if config.model.kind != config.task:
    raise errors.UserError(
      f"config.model.kind={config.model.kind!r}, this config trains a model of kind {config.task!r}"
    )
  models.build(config.model.to_dict())
  optimizer.from_section(config.train)
  if config.task == "policy":
    _policy(config)
  else:
    from como_jax.objectives import checks as objective_checks

    objective_checks.check(config.objectives.to_dict(), config.model.to_dict())
    _encoder_dtype(config)


def _encoder_dtype(config: config_lib.ConfigDict) -> None:
  """Refuses to train an encoder whose weights are kept in less than float32."""
  frozen, dtype = config.train.frozen, config.model.encoder.get("param_dtype", "float32")
  if dtype != "float32" and frozen is not None and not trees.matches(_IN_ENCODER, frozen):
    raise errors.UserError(
      f"config.model.encoder.param_dtype={dtype} needs a frozen encoder: leave config.train.frozen "
      "out, or train it in float32"
    )


def _policy(config: config_lib.ConfigDict) -> None:
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
  locations.one_of("language.kind", settings.kind, language.KINDS)
  locations.one_of("language.dtype", settings.dtype, language.DTYPES)


def _ingest(config: config_lib.ConfigDict) -> None:
  from como_jax.data import shard_file, sources

  locations.one_of("source.format", config.source.format, [*sources.SOURCES, "auto"])
  locations.one_of("shards.codec", config.shards.codec, shard_file.CODECS)


def _extract(config: config_lib.ConfigDict) -> None:
  from como_jax.inference import label_options

  label_options.from_config(config)


def _rollout(config: config_lib.ConfigDict) -> None:
  from como_jax import sim
  from como_jax.inference import rollout_options

  rollout_options.from_config(config)
  locations.one_of("simulator", config.simulator, sim.SIMULATORS)


def _collect(config: config_lib.ConfigDict) -> None:
  from como_jax import sim
  from como_jax.sim import collect

  locations.one_of("collect.simulator", config.collect.simulator, sim.SIMULATORS)
  collect.Settings(**config.collect.to_dict())


def _serve(config: config_lib.ConfigDict) -> None:
  from como_jax.serve import server_settings

  server_settings.from_config(config)


def _compile(config: config_lib.ConfigDict) -> None:
  from como_jax.assembly import plan_options

  plan_options.from_config(config)


def _quickstart(config: config_lib.ConfigDict) -> None:
  tasks = {task: task for task in ("ingest", "motion", "probe", "extract", "policy", "rollout")}
  if config.exam:
    tasks["exam"] = "probe"
  files = config.to_dict()
  for key, expected in tasks.items():
    try:
      task = config_lib.load(files[key])[0].task
    except errors.UserError as error:
      raise errors.UserError(f"config.{key}={files[key]}: {error}") from error
    if task != expected:
      raise errors.UserError(
        f"config.{key}={files[key]} is a config of task {task!r}, one of task {expected!r} is "
        "expected"
      )


_CHECKS: dict[str, Callable[[config_lib.ConfigDict], None]] = {
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
