"""The optax chain from a config section (METHOD section 4): clip, Adam or AdamW, schedule."""

import jax
import optax

from como_jax import errors, trees

# matrices only (Moto); stacked biases have two dimensions too, so names decide
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

  CoMo's released code: linear to 0.1x without warm-up; Moto's: cosine with a warm-up from 0.5x.
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
  """The optimizer of the trainable parameters, and its learning-rate schedule (for the log)."""
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
  """Number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
