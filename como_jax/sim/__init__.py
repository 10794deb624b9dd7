"""Simulators by name. A simulator's own packages are imported only when it is asked for."""

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


SIMULATORS = {"metaworld": _metaworld, "libero": _libero, "fetch": _fetch, "pusht": _pusht}
REQUIREMENTS = {
  "metaworld": "requirements-sim.txt",
  "libero": "requirements-libero.txt",
  "fetch": "requirements-fetch.txt",
  "pusht": "requirements-pusht.txt",
}


def load(name: str):
  """The module of a simulator: see `base` for what it holds.

  Raises:
    UserError: unknown name, or packages missing (says what to install).
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
  """One task of one simulator, for example `build("metaworld", "reach", cameras=("corner",),
  image_size=128)`.
  """
  return load(name).build(task, **settings)
