"""One optimizer step as a pure function under `jax.jit`. A task supplies only its loss."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from como_jax import errors, trees
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import rng
from como_jax.train.state import TrainState

# term -> (sum, count); divided only after the sum over the global batch
Terms = Mapping[str, tuple[jax.Array, jax.Array]]
Loss = Callable[..., Terms]
Weights = Mapping[str, float | None]  # term -> its weight in the loss; None: it is only logged


def total(terms: Terms, weights: Weights) -> jax.Array:
  """Weighted sum of the terms' means.

  Raises:
    errors.UserError: a term without a weight, which would train nothing unnoticed, or a weight
      without a term.
  """
  for name in terms:
    if name not in weights:
      raise errors.UserError(
        f"the loss has a term {name!r} without a weight: give it one, or None where it is only "
        f"logged; there are weights of {', '.join(weights) or 'no term'}"
      )
  for name in weights:
    if name not in terms:
      raise errors.UserError(
        f"there is a weight of {name!r}, but the loss has no such term: "
        f"{errors.nearest(name, terms)}"
      )
  return sum(
    (
      weights[name] * value / jnp.maximum(count, 1)
      for name, (value, count) in terms.items()
      if weights[name]
    ),
    start=jnp.zeros(()),
  )


def build(
  loss: Loss,
  optimizer: optax.GradientTransformation,
  *,
  weights: Weights,
  frozen: tuple[str, ...],
  seed: int,
  mesh: jax.sharding.Mesh,
  state: TrainState,
  accumulate: int = 1,
  ema: float = 0.0,
  rate: optax.Schedule | None = None,
  constants: Mapping[str, Any] | None = None,
):
  """The jitted train step `(state, batch) -> (state, metrics)`; the state is donated.

  Args:
    loss: `(params, batch, key) -> {term: (sum, count)}`; with `constants` it takes them as a fourth
      argument.
    weights: of each term in the total, None for one that is only logged; a term or weight without
      the other is refused when the step is traced.
    frozen: path patterns of parameters that get no gradient (their backward pass is not computed).
    state: the state or its shapes; decides the shardings.
    accumulate: splits the batch into this many parts, one after the other; the result equals one
      large batch, because sums are divided by counts of the whole batch.
    ema: decay of the averaged weights.
    constants: arrays the loss needs and nobody trains (a perceptual network). They are arguments of
      the compiled program: captured as literals, XLA would fold them for minutes. Shapes instead of
      arrays are enough to lower the step.
  """

  def part_rows(x):
    # Part i takes every accumulate-th row: of each device's rows, so that no row moves between
    # devices.
    rows = x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(
      rows, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, ("data", "fsdp")))
    )

  def gradients(params, batch, key, loss):
    trainable, fixed = trees.split(params, frozen)
    if accumulate == 1:

      def objective(trainable):
        terms = loss(trees.join(trainable, fixed), batch, key)
        return total(terms, weights), terms

      return jax.grad(objective, has_aux=True)(trainable)

    parts = jax.tree.map(part_rows, batch)
    keys = jax.random.split(key, accumulate)
    # Counts do not depend on the parameters, so this scan computes masks only: XLA drops the rest.
    counts = jax.lax.map(
      lambda part: {k: c for k, (_, c) in loss(params, *part).items()}, (parts, keys)
    )
    counts = jax.tree.map(lambda c: c.sum(0), counts)

    def objective(trainable, part, part_key):
      terms = {
        k: (s, counts[k])
        for k, (s, _) in loss(trees.join(trainable, fixed), part, part_key).items()
      }
      return total(terms, weights), {k: s for k, (s, _) in terms.items()}

    def body(carry, part):
      grads, sums = jax.grad(objective, has_aux=True)(trainable, *part)
      return jax.tree.map(jnp.add, carry, (grads, sums)), None

    zero = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      jax.eval_shape(
        jax.grad(objective, has_aux=True), trainable, *jax.tree.map(lambda x: x[0], (parts, keys))
      ),
    )
    (grads, sums), _ = jax.lax.scan(body, zero, (parts, keys))
    return grads, {k: (sums[k], counts[k]) for k in sums}

  def step(state: TrainState, batch, constants):
    key = rng.key(seed, "loss", state.step)
    bound = (lambda *args: loss(*args, constants)) if constants else loss
    grads, terms = gradients(state.params, batch, key, bound)
    trainable, fixed = trees.split(state.params, frozen)
    updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
    trainable = optax.apply_updates(trainable, updates)
    average = state.ema
    if average is not None:
      average = jax.tree.map(lambda old, new: ema * old + (1 - ema) * new, average, trainable)
    metrics = {name: value / jnp.maximum(count, 1) for name, (value, count) in terms.items()}
    metrics |= {"loss": total(terms, weights), "grad_norm": optax.global_norm(grads)}
    if rate is not None:
      metrics["learning_rate"] = rate(state.step)
    return TrainState(
      step=state.step + 1, params=trees.join(trainable, fixed), opt_state=opt_state, ema=average
    ), metrics

  placed = rules.shardings(state, mesh)
  constants = jax.tree.map(
    lambda x: (
      x if isinstance(x, jax.ShapeDtypeStruct) else jax.device_put(x, mesh_lib.replicated(mesh))
    ),
    dict(constants or {}),
  )
  compiled = jax.jit(
    _under(step, mesh),
    in_shardings=(placed, mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)),
    out_shardings=(placed, mesh_lib.replicated(mesh)),
    donate_argnums=0,
  )

  def call(state, batch):
    return compiled(state, batch, constants)

  # to look at the program without running it
  call.lower = lambda state, batch: compiled.lower(state, batch, constants)
  call.trace = lambda state, batch: compiled.trace(state, batch, constants)
  return call


def _under(function, mesh: jax.sharding.Mesh):
  """The function traced with the models' logical axis names bound to the mesh."""

  def traced(*args):
    with rules.activations(mesh):
      return function(*args)

  return traced
