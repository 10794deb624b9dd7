"""The train state: one frozen pytree of everything a run needs to go on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from como_jax import trees


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Step, parameters (trainable and frozen), optimizer state and averaged weights (of the trainable
  ones; None without EMA).
  """

  step: jax.Array
  params: Any
  opt_state: Any
  ema: Any


def create(
  params, optimizer: optax.GradientTransformation, *, frozen: tuple[str, ...], ema: bool
) -> TrainState:
  """A state at step 0; frozen leaves have no optimizer state."""
  trainable, _ = trees.split(params, frozen)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(trainable),
    ema=jax.tree.map(jnp.copy, trainable) if ema else None,
  )


def weights(state: TrainState, *, frozen: tuple[str, ...]) -> dict:
  """The parameters to evaluate and export: the averaged ones where a run keeps them."""
  if state.ema is None:
    return state.params
  return trees.join(state.ema, trees.split(state.params, frozen)[1])
