"""The optax chain of a config section: gradient clipping, Adam or AdamW, schedule."""

import jax
import optax

from como_jax import errors, trees

# weight decay applies to matrices only (Moto), chosen by name: stacked biases are matrices too
DECAYED = (r"(.*/)?kernel", r"(.*/)?codebook")
SCHEDULES = ("linear", "cosine", "constant")
NAMES = ("adam", "adamw")


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


def build(
  *,
  name: str,
  steps: int,
  learning_rate: float,
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
  clip_norm: float,
  schedule: str,
  floor: float,
  warmup_steps: int,
  warmup_start: float,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Builds the optimizer of the trainable parameters and its learning-rate schedule (for the log).

  Args:
    name: one of `NAMES`.
    steps: of the whole run.
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

  Raises:
    errors.UserError: unknown optimizer or schedule.
  """
  rate = learning_rate_schedule(
    kind=schedule,
    learning_rate=learning_rate,
    steps=steps,
    floor=floor,
    warmup_steps=warmup_steps,
    warmup_start=warmup_start,
  )
  if name == "adam":
    core = optax.adam(rate, b1=b1, b2=b2, eps=eps)
  elif name == "adamw":
    core = optax.adamw(
      rate,
      b1=b1,
      b2=b2,
      eps=eps,
      weight_decay=weight_decay,
      mask=lambda params: trees.mask(params, DECAYED),
    )
  else:
    raise errors.UserError(
      f"config.train.optimizer.name={name!r} is unknown: {errors.nearest(name, NAMES)}"
    )
  return optax.chain(
    optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(), core
  ), rate


def count(tree) -> int:
  """Counts the parameters of a pytree."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
