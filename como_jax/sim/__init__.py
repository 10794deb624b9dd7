"""Simulators by name; the packages of a simulator are imported only when it is loaded."""

from collections.abc import Callable

from como_jax import errors
from como_jax.sim import base


def _metaworld():
  from como_jax.sim import metaworld

  return metaworld


def _libero():
  from como_jax.sim import libero

  return libero


def _fetch():
  from como_jax.sim import fetch

  return fetch


def _pusht():
  from como_jax.sim import pusht

  return pusht


SIMULATORS: dict[str, Callable[[], base.Module]] = {
  "metaworld": _metaworld,
  "libero": _libero,
  "fetch": _fetch,
  "pusht": _pusht,
}
REQUIREMENTS = {
  "metaworld": "requirements-sim.txt",
  "libero": "requirements-libero.txt",
  "fetch": "requirements-fetch.txt",
  "pusht": "requirements-pusht.txt",
}


def load(name: str) -> base.Module:
  """Imports and returns the module of a simulator; see `base.Module`.

  Args:
    name: a key of `SIMULATORS`.

  Raises:
    UserError: unknown name, or missing packages (the message says what to install).
  """
  if name not in SIMULATORS:
    raise errors.UserError(f"simulator {name!r} is unknown: {errors.nearest(name, SIMULATORS)}")
  try:
    return SIMULATORS[name]()
  except ModuleNotFoundError as error:
    if (error.name or "").startswith("como_jax"):
      raise
    raise errors.UserError(
      f"simulator {name!r} needs the package {error.name!r}, which is not installed: "
      f"run `pip install -r {REQUIREMENTS[name]}`"
    ) from error


def build(name: str, task: str, **settings) -> base.Simulator:
  """Builds one task of one simulator.

  Example: `build("metaworld", "reach", cameras=("corner",), image_size=128)`.

  Args:
    name: a key of `SIMULATORS`.
    task: a key of the module's `TASKS`.
    **settings: further arguments of the module's `build`.

  Raises:
    UserError: as in `load`; also an unknown task, camera or setting.
  """
  return load(name).build(task, **settings)
