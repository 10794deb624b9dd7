"""The options of a rollout, read from a config once."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from como_jax import errors
from como_jax.sim import vector

# a policy with a checkpoint, or an actor inside the workers
POLICIES = ("checkpoint", *vector.ACTORS[1:])


@dataclasses.dataclass(frozen=True)
class Options:
  """The config of a rollout; configs/rollout.py says what each key means."""

  seed: int
  policy: str
  checkpoint: str
  robot: str
  num_sampling_steps: int | None
  guidance_scale: float | None
  simulator: str
  tasks: tuple[str, ...]
  image_size: int
  build: Mapping[str, Any]
  cameras: tuple[str, ...]
  scene: int
  episodes: int
  max_steps: int
  step_seconds: float
  execute: int
  ensemble: float
  workers: int
  videos: int
  timeout: float


def from_config(config: Any) -> Options:
  """Reads the options.

  Args:
    config: a ConfigDict with the keys of configs/rollout.py.

  Raises:
    errors.UserError: an unknown policy, or a checkpoint beside a policy that does not use it.
  """
  values = config.to_dict()
  policy, checkpoint = values["policy"], values["checkpoint"]
  if policy not in POLICIES:
    raise errors.UserError(
      f"config.policy={policy!r} is unknown: {errors.nearest(str(policy), POLICIES)}"
    )
  if checkpoint and policy != "checkpoint":
    raise errors.UserError(
      f"config.policy={policy!r} does not use config.checkpoint: leave one of them out"
    )
  return Options(**{field.name: values[field.name] for field in dataclasses.fields(Options)})
