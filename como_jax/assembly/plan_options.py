"""The options of a plan, read from a config once."""

import dataclasses
import shlex
from typing import Any

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import programs
from como_jax.parallel import topology


@dataclasses.dataclass(frozen=True)
class Options:
  """The config of a plan; configs/compile.py says what each key means.

  Attributes:
    machine: that of the key "topology".
    planned: the config that the keys "of" and "changes" give.
  """

  machine: topology.Topology
  planned: config_lib.ConfigDict
  programs: tuple[str, ...]
  batch_per_device: int
  extract_batch: int
  policy_batch: int
  largest: bool
  memory: float
  effort: float
  calibration: str
  proposals: bool


def from_config(config: Any) -> Options:
  """Reads the options.

  Args:
    config: a ConfigDict with the keys of configs/compile.py.

  Raises:
    errors.UserError: an unknown machine, a planned config that cannot be read or that trains
      nothing, or an unknown name of a program.
  """
  machine = topology.parse(config.topology)
  planned = _planned(config)
  programs.check(planned)
  names = sorted({name for kinds in programs.KINDS.values() for name in kinds})
  for name in config.programs:
    if name not in names:
      raise errors.UserError(f"config.programs: {name!r} is unknown: {errors.nearest(name, names)}")
  return Options(
    machine=machine,
    planned=planned,
    programs=tuple(config.programs),
    batch_per_device=config.batch_per_device,
    extract_batch=config.extract_batch,
    policy_batch=config.policy_batch,
    largest=config.largest,
    memory=config.memory,
    effort=config.effort,
    calibration=config.calibration,
    proposals=config.proposals,
  )


def _planned(config: Any) -> config_lib.ConfigDict:
  """The planned config; its own errors are said to be of the key that brings them."""
  try:
    changes = [f"--config.{change}" for change in shlex.split(config.changes)]
  except ValueError as error:
    raise errors.UserError(f"config.changes={config.changes}: {error}") from error
  _parse(config, "of", [])
  return _parse(config, "changes", changes)


def _parse(config: Any, key: str, changes: list[str]) -> config_lib.ConfigDict:
  try:
    return config_lib.parse(["main", f"--config={config.of}", *changes]).config
  except errors.UserError as error:
    raise errors.UserError(f"config.{key}={config[key]}: {error}") from error
