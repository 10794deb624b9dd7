"""One optimizer step as pure functions under `jax.jit`. A task supplies only its loss.

The order of a step: `compute_gradients` (or `accumulate_gradients`, part by part), then
`apply_gradients`. `TrainStep` compiles the two for a mesh.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from como_jax import errors, trees
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import rng
from como_jax.train.state import TrainState

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
# Term -> (sum, count): divided only after the sum over the global batch.
Terms = Mapping[str, tuple[jax.Array, jax.Array]]
Loss = Callable[..., Terms]  # (params, batch, key) -> terms
Weights = Mapping[str, float | None]  # Term -> its weight in the loss. None: it is only logged.


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """How the loss becomes an update.

  Attributes:
    weights: of each term in the total, None for one that is only logged. Every term needs a weight
      and every weight a term; else the step is refused when it is traced.
    frozen: path patterns of parameters that get no gradient. Their backward pass is not computed.
    seed: of the random keys. The key of a step depends on the seed and the step alone.
    num_microbatches: parts of the batch (config.train.accumulate), processed one after the other.
      Sums are divided by counts of the whole batch, so the result equals that of one large batch
      where the loss draws nothing at random.
    ema_decay: of the averaged weights, where the state has them.
    lr_schedule: step -> learning rate, to be logged.
  """

  weights: Weights
  frozen: tuple[str, ...]
  seed: int
  num_microbatches: int = 1
  ema_decay: float = 0.0
  lr_schedule: optax.Schedule | None = None


def total(terms: Terms, weights: Weights) -> jax.Array:
  """Weighted sum of the terms' means.

  Raises:
    errors.UserError: a term without a weight, which would silently not be trained, or a weight
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
  result = jnp.zeros(())
  for name, (value, count) in terms.items():
    weight = weights[name]
    if weight:  # neither None nor 0
      result = result + weight * value / jnp.maximum(count, 1)
  return result


def means(terms: Terms) -> dict[str, jax.Array]:
  """Mean of each term over what it counted; a count of 0 divides by 1."""
  return {name: value / jnp.maximum(count, 1) for name, (value, count) in terms.items()}


def compute_gradients(
  loss: Loss, params: Params, batch: Batch, key: jax.Array, options: StepOptions
) -> tuple[Params, Terms]:
  """Gradients of the total with respect to the trainable parameters, and the loss's terms."""
  trainable, fixed = trees.split(params, options.frozen)

  def objective(trainable):
    terms = loss(trees.join(trainable, fixed), batch, key)
    return total(terms, options.weights), terms

  return jax.grad(objective, has_aux=True)(trainable)


def accumulate_gradients(
  loss: Loss,
  params: Params,
  batch: Batch,
  key: jax.Array,
  options: StepOptions,
  mesh: jax.sharding.Mesh,
) -> tuple[Params, Terms]:
  """The same as `compute_gradients`, from `options.num_microbatches` parts of the batch."""
  parts = jax.tree.map(lambda x: _split_rows(x, options.num_microbatches, mesh), batch)
  keys = jax.random.split(key, options.num_microbatches)
  # Counts depend on the masks of a batch alone: XLA removes the model from this pass.
  counts = jax.lax.map(
    lambda part_and_key: {name: count for name, (_, count) in loss(params, *part_and_key).items()},
    (parts, keys),
  )
  counts = jax.tree.map(lambda count: count.sum(0), counts)

  def loss_of_part(params, part, part_key):
    """Sums of the part over counts of the whole batch."""
    terms = loss(params, part, part_key)
    return {name: (value, counts[name]) for name, (value, _) in terms.items()}

  def gradients_and_sums(part, part_key):
    grads, terms = compute_gradients(loss_of_part, params, part, part_key, options)
    return grads, {name: value for name, (value, _) in terms.items()}

  def add_part(carry, part_and_key):
    return jax.tree.map(jnp.add, carry, gradients_and_sums(*part_and_key)), None

  first = jax.tree.map(lambda x: x[0], (parts, keys))
  shapes = jax.eval_shape(gradients_and_sums, *first)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  (grads, sums), _ = jax.lax.scan(add_part, zeros, (parts, keys))
  return grads, {name: (sums[name], counts[name]) for name in sums}


def apply_gradients(
  state: TrainState, grads: Params, optimizer: optax.GradientTransformation, options: StepOptions
) -> TrainState:
  """The next state: parameters updated, averaged weights moved, the step counted."""
  trainable, fixed = trees.split(state.params, options.frozen)
  updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
  trainable = cast(Params, optax.apply_updates(trainable, updates))  # a tree like `trainable`
  ema = state.ema
  if ema is not None:
    decay = options.ema_decay
    ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, trainable)
  params = trees.join(trainable, fixed)
  return TrainState(step=state.step + 1, params=params, opt_state=opt_state, ema=ema)


class TrainStep:
  """The compiled step `(state, batch) -> (state, metrics)`; the state is donated."""

  def __init__(
    self,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    options: StepOptions,
    *,
    mesh: jax.sharding.Mesh,
    state: TrainState,
    constants: Mapping[str, Any] | None = None,
  ):
    """Compiles nothing yet: the first call does, or `lower`.

    Args:
      loss: `(params, batch, key) -> {term: (sum, count)}`; with `constants` it takes them as a
        fourth argument.
      optimizer: of the trainable parameters.
      options: how the loss becomes an update.
      mesh: devices; batches are split over it, the state is sharded by `parallel.rules`.
      state: the state or its shapes; decides the shardings.
      constants: arrays the loss needs and nobody trains (a perceptual network). They are arguments
        of the compiled program: captured as literals, XLA would fold them for minutes. Shapes
        instead of arrays are enough to lower the step.
    """
    self.mesh = mesh
    replicated = mesh_lib.replicated(mesh)
    self._constants = jax.tree.map(
      lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else jax.device_put(x, replicated),
      dict(constants or {}),
    )
    self._loss, self._optimizer, self._options = loss, optimizer, options
    shardings = rules.shardings(state, mesh)
    self._ready: jax.stages.Compiled | None = None
    self._compiled = jax.jit(
      self._step,
      in_shardings=(shardings, mesh_lib.batch_sharding(mesh), replicated),
      out_shardings=(shardings, replicated),
      donate_argnums=0,
    )

  def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state, and the metrics of this step as scalars on the devices."""
    return (self._ready or self._compiled)(state, batch, self._constants)

  @property
  def constants(self) -> Mapping[str, Any]:
    """The constants as the program takes them."""
    return self._constants

  def use(self, ready: jax.stages.Compiled) -> None:
    """Takes a program that is compiled already.

    Args:
      ready: as `compile` returns.
    """
    self._ready = ready

  def compile(self, state: Any, batch: Any) -> jax.stages.Compiled:
    """The compiled program, not run: the one that is in use already, if any."""
    return self._ready or self.lower(state, batch).compile()

  def lower(self, state: Any, batch: Any) -> jax.stages.Lowered:
    """The program, not run; shapes instead of arrays will do."""
    return self._compiled.lower(state, batch, self._constants)

  def trace(self, state: Any, batch: Any) -> jax.stages.Traced:
    """The program before it is lowered, for its jaxpr."""
    return self._compiled.trace(state, batch, self._constants)

  def _step(
    self, state: TrainState, batch: Batch, constants: Mapping[str, Any]
  ) -> tuple[TrainState, dict[str, jax.typing.ArrayLike]]:
    options = self._options
    key = rng.key(options.seed, "loss", state.step)
    loss = (lambda *args: self._loss(*args, constants)) if constants else self._loss
    with rules.activations(self.mesh):  # the models' logical axis names, bound to the mesh
      if options.num_microbatches == 1:
        grads, terms = compute_gradients(loss, state.params, batch, key, options)
      else:
        grads, terms = accumulate_gradients(loss, state.params, batch, key, options, self.mesh)
      next_state = apply_gradients(state, grads, self._optimizer, options)
    metrics: dict[str, jax.typing.ArrayLike] = {**means(terms)}
    metrics |= {"loss": total(terms, options.weights), "grad_norm": optax.global_norm(grads)}
    if options.lr_schedule is not None:
      metrics["learning_rate"] = options.lr_schedule(state.step)
    return next_state, metrics


def _split_rows(x: jax.Array, parts: int, mesh: jax.sharding.Mesh) -> jax.Array:
  """[B, ...] -> [parts, B / parts, ...]: part i has the rows i, i + parts, i + 2*parts, ...

  Each device gives rows of its own to every part, so no row moves between devices.
  """
  rows = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
  spec = jax.sharding.PartitionSpec(None, ("data", "fsdp"))
  return jax.lax.with_sharding_constraint(rows, jax.sharding.NamedSharding(mesh, spec))
