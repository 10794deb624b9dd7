"""The optax chain of a config section: gradient clipping, Adam or AdamW, schedule."""

import dataclasses
from typing import Any

import jax
import optax

from como_jax import errors, trees

# weight decay applies to matrices only (Moto), chosen by name: stacked biases are matrices too
DECAYED = (r"(.*/)?kernel", r"(.*/)?codebook")
SCHEDULES = ("linear", "cosine", "constant")
NAMES = ("adam", "adamw")


@dataclasses.dataclass(frozen=True)
class Settings:
  """The section train.optimizer of a config.

  Attributes:
    name: one of `NAMES`.
    learning_rate: the maximum.
    b1: Adam's decay of the first moment.
    b2: Adam's decay of the second moment.
    eps: Adam's epsilon.
    weight_decay: of AdamW.
    clip_norm: maximum global norm of the gradient; 0 = no clipping.
    schedule: one of `SCHEDULES`.
    floor: as in `learning_rate_schedule`.
    warmup_steps: as in `learning_rate_schedule`.
    warmup_start: as in `learning_rate_schedule`.
  """

  name: str
  learning_rate: float
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip_norm: float
  schedule: str
  floor: float
  warmup_steps: int
  warmup_start: float


def learning_rate_schedule(
  *,
  kind: str,
  learning_rate: float,
  steps: int,
  floor: float,
  warmup_steps: int,
  warmup_start: float,
) -> optax.Schedule:
  """Warm-up from `warmup_start` x rate, then decay to `floor` x rate at the last step.

  CoMo's released code decays linearly to 0.1x without warm-up. Moto's code uses cosine decay with a
  warm-up from 0.5x.

  Args:
    kind: one of `SCHEDULES`.
    learning_rate: the maximum.
    steps: of the whole run.
    floor: final learning rate, as a fraction of the maximum.
    warmup_steps: 0 = no warm-up.
    warmup_start: initial learning rate of the warm-up, as a fraction of the maximum.

  Raises:
    errors.UserError: unknown schedule.
  """
  decay_steps = max(1, steps - warmup_steps)
  if kind == "linear":
    decay = optax.linear_schedule(learning_rate, learning_rate * floor, decay_steps)
  elif kind == "cosine":
    decay = optax.cosine_decay_schedule(learning_rate, decay_steps, alpha=floor)
  elif kind == "constant":
    decay = optax.constant_schedule(learning_rate)
  else:
    raise errors.UserError(
      f"config.train.optimizer.schedule={kind!r} is unknown: {errors.nearest(kind, SCHEDULES)}"
    )
  if not warmup_steps:
    return decay
  warmup = optax.linear_schedule(learning_rate * warmup_start, learning_rate, warmup_steps)
  return optax.join_schedules([warmup, decay], [warmup_steps])


def build(settings: Settings, *, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Builds the optimizer of the trainable parameters and its learning-rate schedule (for the log).

  Args:
    settings: of the run.
    steps: of the whole run.

  Raises:
    errors.UserError: unknown optimizer or schedule.
  """
  rate = learning_rate_schedule(
    kind=settings.schedule,
    learning_rate=settings.learning_rate,
    steps=steps,
    floor=settings.floor,
    warmup_steps=settings.warmup_steps,
    warmup_start=settings.warmup_start,
  )
  adam: dict[str, Any] = dict(b1=settings.b1, b2=settings.b2, eps=settings.eps)
  if settings.name == "adam":
    core = optax.adam(rate, **adam)
  elif settings.name == "adamw":
    core = optax.adamw(rate, **adam, weight_decay=settings.weight_decay, mask=_decay_mask)
  else:
    raise errors.UserError(
      f"config.train.optimizer.name={settings.name!r} is unknown: "
      f"{errors.nearest(settings.name, NAMES)}"
    )
  return optax.chain(
    optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity(), core
  ), rate


def from_section(train: Any) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """`build` from the section `train` of a config: its `optimizer` and `steps`."""
  return build(Settings(**train.optimizer), steps=train.steps)


def _decay_mask(params: Any) -> Any:
  """Whether weight decay applies, for each leaf of the nested dict of parameters."""
  return trees.mask(params, DECAYED)


def count(tree: Any) -> int:
  """Counts the parameters of a pytree."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
