"""Configs: one Python file a run, `get_config(arg)`, locked, overridden from the command line,
written beside the results.

A config file holds numbers only. Each section is spread into the constructor it names, so a
misspelled key is an error and never a silent default. The sections that several tasks share (data,
optimizer, loop) start from the functions here.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import config_dict

from como_jax import errors
from como_jax.settings import limits, overrides, paths, usage, values

ConfigDict = config_dict.ConfigDict
_HERE = pathlib.Path(__file__).parent
# inside an installed package, beside it in a clone
CONFIGS = next((one for one in (_HERE / "configs",) if one.is_dir()), _HERE.parent / "configs")
SWITCHES = ("resume", "overwrite", "distributed", "help")
FLAGS = ("config", "workdir", *SWITCHES)
_OFF = tuple(f"no{switch}" for switch in SWITCHES)


class Help(Exception):
  """What --help prints."""


@dataclasses.dataclass(frozen=True)
class CommandLine:
  """What the command line asked for: the resolved, locked config and the run's own switches."""

  config: ConfigDict
  name: str  # the config file's name with its argument: "motion-debug"
  workdir: pathlib.Path
  resume: bool
  overwrite: bool
  words: tuple[str, ...] = ()  # the arguments as given, to print them again
  # jax looks for the other processes of the run (parallel/distributed.py)
  distributed: bool = False


def variant(arg: str | None, valid: Sequence[str], *, default: str) -> str:
  """The named variant that a config's argument (the part after the colon) chooses.

  Raises:
    errors.UserError: naming the nearest variant.
  """
  chosen = arg or default
  if chosen not in valid:
    raise errors.UserError(
      f"config argument {chosen!r} is unknown: {errors.nearest(chosen, valid)}"
    )
  return chosen


def arguments(
  arg: str | None, *, variants: Sequence[str], options: dict[str, Sequence[str]]
) -> tuple[str, dict[str, str]]:
  """Splits a config's argument "variant,key=value,..." (every part may be missing; the first
  variant is the default).

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
      raise errors.UserError(
        f"config argument {part!r}: option {key!r} is unknown: {errors.nearest(key, options)}"
      )
    elif value not in options[key]:
      raise errors.UserError(f"config argument {part!r}: {errors.nearest(value, options[key])}")
    else:
      chosen[key] = value
  return name, chosen


def data(**changes: Any) -> ConfigDict:
  """Where frames come from. The default path is the data set that ships with the package.

  `path` is a LeRobot directory, a folder of video files or a directory of our shards; a raw source
  is turned into shards once and kept in `cache`. `mixture`, when not empty, replaces `path`: a
  tuple of dicts with path, weight, offset_seconds and cameras.
  """
  section = ConfigDict(
    dict(
      path="bundled",
      # time between the two frames of a pair (METHOD: per data set, in seconds)
      offset_seconds=0.5,
      cameras=(),  # () = every camera
      mixture=(),
      image_size=224,
      resize="squash",  # squash (as Moto) | crop | pad, when shards are made
      source=source(),  # how raw data are read
      measure="auto",
      filters=filters(),  # what is looked for in raw data, and left out
      frames=2,  # K frames a sample at the offset: K-1 pairs for K encoder passes
      validation_fraction=0.1,
      cache="",  # "" = ~/.cache/como_jax/shards
      # processes that load; 0 = threads of this one; -1 = by cores, accelerators and codec
      # (data/read_options.py): 0 on a CPU
      workers=-1,
      threads=-1,  # of each process that loads; -1 = 4, of a worker 2
      prefetch=-1,  # batches ahead, of each worker; -1 = about 8 in all
      augment=ConfigDict(
        dict(  # one draw for all frames of a clip
          shift=ConfigDict(dict(on=True, fraction=10 / 224)),  # Moto: up to 10 px of 224
          crop=ConfigDict(dict(on=False, scale=(0.8, 1.0), ratio=(0.9, 1.1))),
          color=ConfigDict(dict(on=False, brightness=0.2, contrast=0.2, saturation=0.2)),
          flip=ConfigDict(dict(on=False, probability=0.5)),
        )
      ),
    )
  )
  return changed(section, changes)


def source() -> ConfigDict:
  """How a source is read where its files leave it open, see
  `como_jax.data.sources.SourceOptions`.
  """
  return ConfigDict(
    dict(
      # LeRobot features; "" and () = the usual names, all cameras
      action_key="",
      state_key="",
      camera_keys=(),
      timestamps="table",  # of LeRobot rows: table | frame_index (/ fps)
      rate_conflict="refuse",  # LeRobot table and video of different rates: refuse | table | video
      # rows that are not finite: skip_episode | cut_episode (before them)
      invalid_rows="skip_episode",
      depth_range=(),  # (nearest, farthest) value of 16-bit images; () = such cameras are left out
      group="auto",  # views of one recording: auto | none | folder | name | a regular expression
      hdr="tonemap",  # HDR video: tonemap | keep
      # frames per second of data without times (tensorflow-datasets); 0 = refuse them
      frame_rate=0.0,
    )
  )


def filters() -> ConfigDict:
  """Which frames ingest leaves out, see `como_jax.data.frame_filters.FilterOptions`: none by
  default. A pair never crosses a cut.
  """
  return ConfigDict(
    dict(
      # stretches in which nothing moves for so long: slides, frozen streams
      drop_still=False,
      still_seconds=1.0,
      drop_repeated=False,  # frames that repeat the one before
      crop_bars=False,  # black bars around the picture
      max_global_motion=0.0,  # picture widths per second that the camera may move; 0 = any
      min_motion=0.0,  # per cent of the width per second that things must move
      drop_duplicates=False,  # clips that an earlier episode shows
      min_shot_seconds=0.0,
    )
  )


def train(**changes: Any) -> ConfigDict:
  """The loop and the optimizer (METHOD section 4).

  Steps count optimizer updates; the batch is global, over all devices.
  """
  section = ConfigDict(
    dict(
      batch_size=256,
      steps=50_000,
      accumulate=1,
      optimizer=ConfigDict(
        dict(
          name="adam",
          learning_rate=1e-4,
          b1=0.9,
          b2=0.99,
          eps=1e-8,
          weight_decay=0.0,
          clip_norm=0.5,
          schedule="linear",
          floor=0.1,
          warmup_steps=0,
          warmup_start=0.0,
        )
      ),
      ema=0.0,  # decay of the averaged weights; 0 = none
      frozen=config_dict.placeholder(tuple),  # path patterns; None = the model's own (the encoder)
      mesh=ConfigDict(dict(data=-1, fsdp=1, tensor=1)),
      log_every=50,
      evaluate_every=2_000,
      checkpoint_every=1_000,
      keep_checkpoints=2,
      tensorboard=True,
      wandb="",  # project name
      # --resume goes on although the data are not those that the run began with
      accept_changed_data=False,
    )
  )
  return changed(section, changes)


def changed(section: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
  """The section with some keys replaced; dotted parts are written as double underscores
  (optimizer__learning_rate).
  """
  for key, value in changes.items():
    node = section
    *parents, last = key.split("__")
    for parent in parents:
      node = node[parent]
    if last not in node:
      raise errors.UserError(f"config key {key!r} is unknown: {errors.nearest(last, node)}")
    if type(value) is type(node[last]):
      node[last] = value
    else:
      with node.ignore_type():
        node[last] = value
  return section


def parse(argv: Sequence[str]) -> CommandLine:
  """Reads `--config=FILE[:ARG] --config.key=value ... --workdir DIR [--resume | --overwrite]
  [--distributed] [--help]`.

  Raises:
    errors.UserError: one line naming the flag, key, value or file and what is expected.
    Help: --help was asked for.
  """
  flags: dict[str, str | None] = {}
  changes = []
  for name, text in overrides.words(argv[1:], (*SWITCHES, *_OFF)):
    if name.startswith(overrides.PREFIX):
      changes.append((name, text))
    elif name not in (*FLAGS, *_OFF):
      raise errors.UserError(
        f"flag --{name} is unknown: {errors.nearest('--' + name, ['--' + flag for flag in FLAGS])}"
      )
    else:
      flags[name] = text
  on = {switch: _switch(switch, flags) for switch in SWITCHES}
  if not flags.get("config"):
    if on["help"]:
      raise Help(usage.overview(CONFIGS))
    raise errors.UserError(
      "--config is missing: for example --config=motion:debug (--help lists all configs)"
    )
  if "workdir" in flags and not flags["workdir"]:
    raise errors.UserError("--workdir has no value: give a directory")
  config, path, arg = load(flags["config"])
  for name, text in changes:
    overrides.apply(config, name, text, task=config.task)
  limits.check(config, _shipped(config.task))
  if on["help"]:
    raise Help(usage.of_config(path, config, pathlib.Path(__file__)))
  config.lock()
  if on["resume"] and on["overwrite"]:
    raise errors.UserError("--resume and --overwrite exclude each other")
  name = path.stem + (f"-{arg}" if arg else "")
  workdir = pathlib.Path(
    paths.local("--workdir", flags.get("workdir") or str(pathlib.Path("runs") / name))
  )
  return CommandLine(
    config=config,
    name=name,
    workdir=workdir,
    resume=on["resume"],
    overwrite=on["overwrite"],
    words=tuple(argv[1:]),
    distributed=on["distributed"],
  )


def load(name: str) -> tuple[ConfigDict, pathlib.Path, str]:
  """(what a config file gives, its path, its argument) for "configs/motion.py:small" or
  "motion:small", with the task it is for.

  Raises:
    errors.UserError: no such file, or one that fails or is for no task.
  """
  given, _, arg = paths.local("--config", name).partition(":")
  path = find(given)
  config = _run(path, arg)
  if not isinstance(config, ConfigDict):
    raise errors.UserError(
      f"config file {str(path)!r}: get_config returns a {type(config).__name__}, expected an "
      "ml_collections.ConfigDict"
    )
  task, known = config.get("task"), [one.stem for one in CONFIGS.glob("*.py")]
  if task not in known:
    raise errors.UserError(
      f"config file {str(path)!r}: config.task={task!r} is unknown: {errors.nearest(task, known)}"
    )
  return config, path, arg


def find(given: str) -> pathlib.Path:
  """The file of a config: the path itself, or the config of that name that comes with the program.

  Raises:
    errors.UserError: naming the nearest.
  """
  path = pathlib.Path(given)
  if path.is_file():
    return path
  shipped = CONFIGS / f"{path.stem}.py"
  if path.suffix in ("", ".py") and str(path.parent) in (".", "configs") and shipped.is_file():
    return shipped
  if str(path.parent) == ".":
    raise errors.UserError(
      f"config {given!r} does not exist: "
      f"{errors.nearest(path.stem, [one.stem for one in CONFIGS.glob('*.py')])}"
    )
  if str(path.parent) == "configs":
    here = [*path.parent.glob("*.py"), *CONFIGS.glob("*.py")]
    raise errors.UserError(
      f"config file {given!r} exists neither in {path.parent.absolute()} nor among those that come "
      f"with the program: {errors.nearest(given, {f'configs/{one.name}' for one in here})}"
    )
  raise errors.UserError(
    f"config file {given!r} does not exist: "
    f"{errors.nearest(given, map(str, path.parent.glob('*.py')))}"
  )


@functools.cache
def _shipped(task: str) -> ConfigDict:
  """The config that comes with the program for a task: what its keys are, and what kind of value
  each holds.
  """
  return _run(CONFIGS / f"{task}.py", "")


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


def _switch(name: str, flags: dict[str, str | None]) -> bool:
  """Whether a flag without a value is on: --resume, --resume=true, --noresume."""
  if f"no{name}" in flags or name not in flags:
    return False
  text = flags[name]
  try:
    return text is None or values.read(text, bool)
  except values.Unreadable as error:
    raise errors.UserError(f"--{name}={text}, expected --{name} alone, or true or false") from error


def _run(path: pathlib.Path, arg: str) -> Any:
  """Runs a config file's get_config."""
  scope: dict[str, Any] = {"__name__": "config_file", "__file__": str(path)}
  try:
    # the user's own file, as Python would import it
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    make = scope.get("get_config")
    if make is None:
      raise errors.UserError(f"config file {str(path)!r} has no function get_config(arg)")
    return make(arg) if arg else make()
  except errors.UserError:
    raise
  except Exception as error:
    raise errors.UserError(
      f"config file {str(path)!r} fails: {type(error).__name__}: " + " ".join(str(error).split())
    ) from error
