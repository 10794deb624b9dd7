"""The train state: one frozen pytree with everything that a run needs to continue."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from como_jax import trees


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """State of a run.

  Attributes:
    step: int32 scalar.
    params: all parameters, trainable and frozen.
    opt_state: optimizer state of the trainable parameters.
    ema: averaged trainable parameters; None without EMA.
  """

  step: jax.Array
  params: Any
  opt_state: Any
  ema: Any


def create(
  params, optimizer: optax.GradientTransformation, *, frozen: tuple[str, ...], ema: bool
) -> TrainState:
  """Creates a state at step 0; frozen leaves have no optimizer state.

  Args:
    params: of the model.
    optimizer: of the trainable parameters.
    frozen: patterns of the frozen leaves (`trees.split`).
    ema: whether to average the weights.
  """
  trainable, _ = trees.split(params, frozen)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(trainable),
    ema=jax.tree.map(jnp.copy, trainable) if ema else None,
  )


def weights(state: TrainState, *, frozen: tuple[str, ...]) -> dict:
  """Returns the parameters to evaluate and export: the averaged ones if the run has them."""
  if state.ema is None:
    return state.params
  return trees.join(state.ema, trees.split(state.params, frozen)[1])
