"""Configs: one Python file a run with `get_config(arg)`, changed from the command line.

The config of a run is locked, and written beside its results.

A config file holds numbers only. Each section is spread into the constructor it names, so a
misspelled key is an error and never a silent default. What config files use of this module (the
sections that several tasks share, their arguments) is in settings/sections.py.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from como_jax import errors, storage
from como_jax.settings import limits, overrides, paths, sections, usage, values
from como_jax.settings.sections import ConfigDict as ConfigDict
from como_jax.settings.sections import arguments as arguments
from como_jax.settings.sections import changed as changed
from como_jax.settings.sections import data as data
from como_jax.settings.sections import filters as filters
from como_jax.settings.sections import source as source
from como_jax.settings.sections import train as train
from como_jax.settings.sections import variant as variant

_HERE = pathlib.Path(__file__).parent
# inside an installed package, beside it in a clone
CONFIGS = next((path for path in (_HERE / "configs",) if path.is_dir()), _HERE.parent / "configs")
SWITCHES = ("resume", "overwrite", "distributed", "help")
FLAGS = ("config", "workdir", "expect", *SWITCHES)
DEVICES = ("cpu", "gpu", "tpu")  # kinds that --expect can name
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
  # jax looks for the other processes of the run (parallel/startup.py)
  distributed: bool = False
  address: str = ""  # of the run directory in a store, whose local copy `workdir` is; "" = none
  expect: str = ""  # the devices that JAX must find (parallel/devices.py); "" = any


def parse(argv: Sequence[str]) -> CommandLine:
  """Reads a command line.

  `--config=FILE[:ARG] --config.key=value ... --workdir DIR [--resume | --overwrite] [--distributed]
  [--expect KIND[:N]] [--help]`

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
  given = flags.get("config")
  if not given:
    if on["help"]:
      raise Help(usage.overview(CONFIGS))
    raise errors.UserError(
      "--config is missing: for example --config=motion:debug (--help lists all configs)"
    )
  if "workdir" in flags and not flags["workdir"]:
    raise errors.UserError("--workdir has no value: give a directory")
  config, path, arg = load(given)
  for name, text in changes:
    overrides.apply(config, name, text, task=config.task)
  limits.check(config, shipped(config.task))
  if on["help"]:
    raise Help(usage.of_config(path, config, pathlib.Path(sections.__file__)))
  config.lock()
  if on["resume"] and on["overwrite"]:
    raise errors.UserError("--resume and --overwrite exclude each other")
  name = path.stem + (f"-{arg}" if arg else "")
  given = paths.checked("--workdir", flags.get("workdir") or str(pathlib.Path("runs") / name))
  address = given.rstrip("/") if storage.is_remote(given) else ""
  return CommandLine(
    config=config,
    name=name,
    workdir=storage.run_folder(address) if address else pathlib.Path(given),
    address=address,
    resume=on["resume"],
    overwrite=on["overwrite"],
    words=tuple(argv[1:]),
    distributed=on["distributed"],
    expect=_expected(flags.get("expect", "")),
  )


def load(name: str) -> tuple[ConfigDict, pathlib.Path, str]:
  """(what a config file gives, its path, its argument).

  `name` is "configs/motion.py:small", or "motion:small" with the task it is for.

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
  task, known = config.get("task"), [path.stem for path in CONFIGS.glob("*.py")]
  if task not in known:
    raise errors.UserError(
      f"config file {str(path)!r}: config.task={task!r} is unknown: "
      f"{errors.nearest(str(task), known)}"
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
      f"{errors.nearest(path.stem, [path.stem for path in CONFIGS.glob('*.py')])}"
    )
  if str(path.parent) == "configs":
    here = [*path.parent.glob("*.py"), *CONFIGS.glob("*.py")]
    raise errors.UserError(
      f"config file {given!r} exists neither in {path.parent.absolute()} nor among those that come "
      f"with the program: {errors.nearest(given, {f'configs/{path.name}' for path in here})}"
    )
  raise errors.UserError(
    f"config file {given!r} does not exist: "
    f"{errors.nearest(given, map(str, path.parent.glob('*.py')))}"
  )


@functools.cache
def shipped(task: str) -> ConfigDict:
  """The config that comes with the program for a task.

  It tells what the task's keys are, and what kind of value each holds.
  """
  return _run(CONFIGS / f"{task}.py", "")


def shipped_options(task: str) -> Iterator[ConfigDict]:
  """That config with each of its options alone (`OPTIONS` of its file)."""
  path = CONFIGS / f"{task}.py"
  for option, choices in _execute(path).get("OPTIONS", {}).items():
    for choice in choices:
      yield _run(path, f"{option}={choice}")


def to_json(config: ConfigDict | dict) -> str:
  """The resolved config as sorted JSON (tuples become lists)."""
  plain = config.to_dict() if isinstance(config, ConfigDict) else config
  return json.dumps(plain, indent=2, sort_keys=True, default=str)


def differences(old: dict, new: dict, *, prefix: str = "") -> dict[str, tuple[Any, Any]]:
  """Dotted keys whose values differ between two resolved configs, with both values."""
  changes = {}
  for key in sorted(set(old) | set(new)):
    a, b = old.get(key), new.get(key)
    if isinstance(a, dict) and isinstance(b, dict):
      changes.update(differences(a, b, prefix=f"{prefix}{key}."))
    elif a != b:
      changes[prefix + key] = (a, b)
  return changes


def _expected(text: str | None) -> str:
  """The text of --expect, once it is known to be one.

  Raises:
    errors.UserError: another text.
  """
  if text == "":
    return text
  kind, colon, count = (text or "").partition(":")
  if kind not in DEVICES:
    raise errors.UserError(
      f"--expect={text or ''}: expected a kind of device and a number, as in gpu:8: "
      f"{errors.nearest(kind, DEVICES)}"
    )
  if colon and not (count.isdecimal() and int(count)):
    raise errors.UserError(f"--expect={text}: expected a number of devices, as in {kind}:8")
  return text or ""


def _switch(name: str, flags: dict[str, str | None]) -> bool:
  """Whether a flag without a value is on: --resume, --resume=true, --noresume."""
  if f"no{name}" in flags or name not in flags:
    return False
  text = flags[name]
  try:
    return text is None or values.read(text, bool)
  except values.Unreadable as error:
    raise errors.UserError(f"--{name}={text}, expected --{name} alone, or true or false") from error


def _execute(path: pathlib.Path) -> dict[str, Any]:
  """The names of a config file, which may be the user's own, as Python would import it."""
  scope: dict[str, Any] = {"__name__": "config_file", "__file__": str(path)}
  exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
  return scope


def _run(path: pathlib.Path, arg: str) -> Any:
  """Runs a config file's get_config."""
  try:
    make = _execute(path).get("get_config")
    if make is None:
      raise errors.UserError(f"config file {str(path)!r} has no function get_config(arg)")
    return make(arg) if arg else make()
  except errors.UserError:
    raise
  except Exception as error:
    raise errors.UserError(
      f"config file {str(path)!r} fails: {type(error).__name__}: " + " ".join(str(error).split())
    ) from error
