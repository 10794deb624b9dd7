"""Configs: one Python file a run, `get_config(arg)`, locked, overridden from the command line, written beside the results.

A config file holds numbers only. Each section is spread into the constructor it names, so a misspelt key is an error and never
a silent default. The sections that several tasks share (data, optimiser, loop) start from the functions here.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from como_jax import errors

ConfigDict = config_dict.ConfigDict


@dataclasses.dataclass(frozen=True)
class CommandLine:
  """What the command line asked for: the resolved, locked config and the run's own switches."""

  config: ConfigDict
  name: str  # the config file's name with its argument: "motion-debug"
  workdir: pathlib.Path
  resume: bool
  overwrite: bool
  words: tuple[str, ...] = ()  # the arguments as given, to print them again
  distributed: bool = False  # jax looks for the other processes of the run (parallel/distributed.py)


def variant(arg: str | None, valid: Sequence[str], *, default: str) -> str:
  """The named variant that a config's argument (the part after the colon) chooses.

  Raises:
    errors.UserError: naming the nearest variant.
  """
  chosen = arg or default
  if chosen not in valid:
    raise errors.UserError(f"config argument {chosen!r} is unknown: {errors.nearest(chosen, valid)}")
  return chosen


def arguments(arg: str | None, *, variants: Sequence[str], options: dict[str, Sequence[str]]) -> tuple[str, dict[str, str]]:
  """Splits a config's argument "variant,key=value,..." (every part may be missing; the first variant is the default).

  Raises:
    errors.UserError: naming the nearest variant, option or value.
  """
  name, chosen = variants[0], {}
  for part in (arg or "").split(","):
    key, equals, value = part.partition("=")
    if not part:
      continue
    if not equals:
      name = variant(part, variants, default=name)
    elif key not in options:
      raise errors.UserError(f"config argument {part!r}: option {key!r} is unknown: {errors.nearest(key, options)}")
    elif value not in options[key]:
      raise errors.UserError(f"config argument {part!r}: {errors.nearest(value, options[key])}")
    else:
      chosen[key] = value
  return name, chosen


def data(**changes: Any) -> ConfigDict:
  """Where frames come from. The default path is the data set that ships with the package.

  `path` is a LeRobot directory, a folder of video files or a directory of our shards; a raw source is turned into shards
  once and kept in `cache`. `mixture`, when not empty, replaces `path`: a tuple of dicts with path, weight, offset_seconds
  and cameras.
  """
  section = ConfigDict(dict(
      path="bundled",
      offset_seconds=0.5,  # time between the two frames of a pair (METHOD: per data set, in seconds)
      cameras=(),  # () = every camera
      mixture=(),
      image_size=224,
      resize="squash",  # squash (as Moto) | crop | pad, when shards are made
      frames=2,  # K frames a sample at the offset: K-1 pairs for K encoder passes
      validation_fraction=0.1,
      cache="",  # "" = ~/.cache/como_jax/shards
      workers=-1,  # processes that load; 0 = threads of this one; -1 = by cores, accelerators and codec (data/loading.py): 0 on a CPU
      threads=-1,  # of each process that loads; -1 = 4, of a worker 2
      prefetch=-1,  # batches ahead, of each worker; -1 = about 8 in all
      augment=ConfigDict(dict(  # one draw for all frames of a clip
          shift=ConfigDict(dict(on=True, fraction=10 / 224)),  # Moto: up to 10 px of 224
          crop=ConfigDict(dict(on=False, scale=(0.8, 1.0), ratio=(0.9, 1.1))),
          colour=ConfigDict(dict(on=False, brightness=0.2, contrast=0.2, saturation=0.2)),
          flip=ConfigDict(dict(on=False, probability=0.5)))),
  ))
  return changed(section, changes)


def train(**changes: Any) -> ConfigDict:
  """The loop and the optimiser (METHOD section 4). Steps count optimiser updates; the batch is global, over all devices."""
  section = ConfigDict(dict(
      batch_size=256,
      steps=50_000,
      accumulate=1,
      optimizer=ConfigDict(dict(
          name="adam", learning_rate=1e-4, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.0, clip_norm=0.5,
          schedule="linear", floor=0.1, warmup_steps=0, warmup_start=0.0)),
      ema=0.0,  # decay of the averaged weights; 0 = none
      frozen=config_dict.placeholder(tuple),  # path patterns; None = the model's own (the encoder)
      mesh=ConfigDict(dict(data=-1, fsdp=1, tensor=1)),
      log_every=50,
      evaluate_every=2_000,
      checkpoint_every=1_000,
      keep_checkpoints=2,
      tensorboard=True,
      wandb="",  # project name
  ))
  return changed(section, changes)


def changed(section: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
  """The section with some keys replaced; dotted parts are written as double underscores (optimizer__learning_rate)."""
  for key, value in changes.items():
    node = section
    *parents, last = key.split("__")
    for parent in parents:
      node = node[parent]
    if last not in node:
      raise errors.UserError(f"config key {key!r} is unknown: {errors.nearest(last, node)}")
    with node.ignore_type():
      node[last] = value
  return section


def parse(argv: Sequence[str]) -> CommandLine:
  """Reads `--config=FILE[:ARG] --config.key=value ... --workdir DIR [--resume | --overwrite] [--distributed]`.

  Raises:
    errors.UserError: one line naming the flag, key or file and the nearest valid one.
  """
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, "config file, with an argument after a colon", lock_config=True,
                                  flag_values=values, sys_argv=list(argv))
  flags.DEFINE_string("workdir", "", "directory of the run (default: runs/<config name>)", flag_values=values)
  flags.DEFINE_bool("resume", False, "go on with the run in the workdir", flag_values=values)
  flags.DEFINE_bool("overwrite", False, "delete what the workdir holds and start anew", flag_values=values)
  flags.DEFINE_bool("distributed", False, "one of several processes: jax finds the others (TPU pod, Slurm)", flag_values=values)
  config_value = _config_argument(argv)
  path, _, arg = config_value.partition(":")
  if not pathlib.Path(path).is_file():
    folder = pathlib.Path(path).parent
    near = [str(p) for p in folder.glob("*.py")] if folder.is_dir() else []
    raise errors.UserError(f"config file {path!r} does not exist: {errors.nearest(path, near)}")
  _check_flags(argv, values)
  _check_keys(argv, _load(path, arg))
  try:
    rest = values(list(argv))
    config = values.config
    config.lock()
  except flags.Error as error:
    raise errors.UserError(re.sub(r"\s+", " ", str(error))) from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.UserError(f"config {config_value!r}: " + re.sub(r"\s+", " ", str(error))) from error
  if rest[1:]:
    raise errors.UserError(f"unexpected argument {rest[1]!r}: flags start with --, values of keys are given as --config.key=value")
  if values.resume and values.overwrite:
    raise errors.UserError("--resume and --overwrite exclude each other")
  name = pathlib.Path(path).stem + (f"-{arg}" if arg else "")
  workdir = pathlib.Path(values.workdir or pathlib.Path("runs") / name)
  return CommandLine(config=config, name=name, workdir=workdir, resume=values.resume, overwrite=values.overwrite,
                     words=tuple(argv[1:]), distributed=values.distributed)


def to_json(config: ConfigDict | dict) -> str:
  """The resolved config as sorted JSON (tuples become lists)."""
  plain = config.to_dict() if isinstance(config, ConfigDict) else config
  return json.dumps(plain, indent=2, sort_keys=True, default=str)


def differences(old: dict, new: dict, *, prefix: str = "") -> dict[str, tuple[Any, Any]]:
  """Dotted keys whose values differ between two resolved configs, with both values."""
  found = {}
  for key in sorted(set(old) | set(new)):
    a, b = old.get(key), new.get(key)
    if isinstance(a, dict) and isinstance(b, dict):
      found.update(differences(a, b, prefix=f"{prefix}{key}."))
    elif a != b:
      found[prefix + key] = (a, b)
  return found


def _config_argument(argv: Sequence[str]) -> str:
  for i, word in enumerate(argv):
    if word in ("--config", "-config") and i + 1 < len(argv):
      return argv[i + 1]
    if word.startswith("--config="):
      return word.partition("=")[2]
  raise errors.UserError("--config is missing: for example --config=configs/motion.py:debug")


def _check_flags(argv: Sequence[str], values: flags.FlagValues) -> None:
  own = ("config", "workdir", "resume", "overwrite", "distributed")
  for word in argv[1:]:
    name = word.lstrip("-").partition("=")[0]
    if not word.startswith("--") or name.startswith("config."):
      continue
    if name not in own and name.removeprefix("no") not in own:
      raise errors.UserError(f"flag --{name} is unknown: {errors.nearest('--' + name, ['--' + n for n in own])}")


def _check_keys(argv: Sequence[str], config: ConfigDict) -> None:
  """Every --config.a.b must name an existing key; absl's own error is a traceback."""
  asked = [word[2:].partition("=")[0] for word in argv if word.startswith("--config.")]
  for name in asked:
    node, walked = config, "config"
    for part in name.split(".")[1:]:
      key = part.partition("[")[0]
      if not hasattr(node, "keys") or key not in node:
        valid = list(node.keys()) if hasattr(node, "keys") else []
        near = errors.nearest(key, [f"{k}" for k in valid])
        raise errors.UserError(f"config key --{name} is unknown: {walked} has no {key!r}: {near}")
      node, walked = node[key], f"{walked}.{key}"
      for index in re.findall(r"\[(\d+)\]", part):
        if int(index) >= len(node):
          raise errors.UserError(f"config key --{name}: {walked} has {len(node)} entries, index {index} is too large")
        node = node[int(index)]


def _load(path: str, arg: str) -> ConfigDict:
  """Runs a config file's get_config."""
  scope: dict[str, Any] = {"__name__": "config_file", "__file__": path}
  try:
    exec(compile(pathlib.Path(path).read_text(), path, "exec"), scope)  # the user's own file, as Python would import it
    return scope["get_config"](arg or None) if arg else scope["get_config"]()
  except errors.UserError:
    raise
  except KeyError as error:
    raise errors.UserError(f"config file {path!r} has no function get_config(arg)") from error
  except Exception as error:
    raise errors.UserError(f"config file {path!r} fails: {type(error).__name__}: {error}") from error
