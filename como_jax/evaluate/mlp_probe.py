"""Probe MSE with a two-layer MLP instead of a linear layer.

Source: the CVPR version of CoMo, arXiv 2505.17006. Training stops early, by an inner split by
episode. It is plain JAX with a few lines of Adam, so that evaluation needs no optimizer library.

Legend: N samples, B batch, Z latent width, F hidden width, A target dimensions.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from como_jax.evaluate import arrays, probes, splits

Params = dict[str, jax.Array]
State = tuple[Params, Params, Params, jax.Array]


@dataclasses.dataclass(frozen=True)
class Network:
  """The network and its training.

  Attributes:
    hidden: width F of the hidden layer.
    epochs: maximum number of epochs.
    patience: epochs without improvement on the inner held-out episodes before training stops; the
      best parameters are kept.
    batch_size: samples per step.
    learning_rate: learning rate of Adam.
    weight_decay: decoupled weight decay of the matrices.
  """

  hidden: int = 256
  epochs: int = 200
  patience: int = 15
  batch_size: int = 256
  learning_rate: float = 1e-3
  weight_decay: float = 1e-3


NETWORK = Network()


def probe(
  z: Any,
  targets: Any,
  *,
  episodes: Any,
  names: Sequence[str] | None = None,
  held_out: Any = None,
  seed: int = 0,
  network: Network = NETWORK,
) -> probes.ProbeResult:
  """Held-out error of a two-layer MLP (Z -> hidden, GELU, -> A).

  Args:
    z: as for `linear_probe.probe`.
    targets: as for `linear_probe.probe`.
    episodes: as for `linear_probe.probe`.
    names: as for `linear_probe.probe`.
    held_out: as for `linear_probe.probe`.
    seed: as for `linear_probe.probe`, with the same split for the same seed; also the seed of the
      fit.
    network: the network and its training.

  Raises:
    errors.UserError: as for `linear_probe.probe`, or fewer than two training episodes.
  """
  z, targets, episodes, names = arrays.check(z, targets, episodes, names)
  split = splits.choose(episodes, held_out, seed=seed)
  best_epochs: list[int] = []

  def predict(
    inputs: np.ndarray, outputs: np.ndarray, ids: np.ndarray
  ) -> Callable[[np.ndarray], np.ndarray]:
    mean, scale, constant = probes.scale_of(inputs)

    def prepare(values: np.ndarray) -> np.ndarray:
      return np.where(constant, 0.0, (values - mean) / scale).astype(np.float32)

    inner = splits.split_by_episode(ids, 0.15, seed=seed)
    params, best = _fit(
      prepare(inputs), outputs.astype(np.float32), inner, seed=seed, network=network
    )
    best_epochs.append(best)
    return lambda new: np.asarray(_apply(params, prepare(new)), np.float64)

  def method() -> str:
    return (
      f"MLP {z.shape[1]}-{network.hidden}-{targets.shape[1]} (GELU), Adam "
      f"{network.learning_rate:g}, best of inner held-out episodes at epoch {best_epochs[0]} of at "
      f"most {network.epochs}"
    )

  return probes.run(predict, z, targets, episodes, names=names, chosen=[split], method=method)


def _fit(
  inputs: np.ndarray, outputs: np.ndarray, inner: splits.Split, *, seed: int, network: Network
) -> tuple[dict[str, jax.Array], int]:
  """Trains the network; returns its best parameters and their epoch."""
  rng = np.random.default_rng(seed)

  def draw(fan_in, fan_out):
    return jnp.asarray(rng.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in), jnp.float32)

  params = {
    "w1": draw(inputs.shape[1], network.hidden),
    "b1": jnp.zeros((1, network.hidden)),
    # The initial network (epoch 0) predicts the mean. So no network is kept that is worse than the
    # mean on the inner held-out episodes.
    "w2": jnp.zeros((network.hidden, outputs.shape[1])),
    "b2": jnp.zeros((1, outputs.shape[1])),
  }
  zeros = jax.tree.map(jnp.zeros_like, params)
  state = (params, zeros, zeros, jnp.zeros((), jnp.int32))
  train = jnp.asarray(inputs[inner.train]), jnp.asarray(outputs[inner.train])
  checks = jnp.asarray(inputs[inner.held_out]), jnp.asarray(outputs[inner.held_out])
  count = len(train[0])
  size = min(network.batch_size, count)
  steps = count // size
  best, best_epoch, best_loss = params, 0, float(_loss(params, *checks))
  for epoch in range(1, network.epochs + 1):
    order = rng.permutation(count)[: steps * size].reshape(steps, size)
    state, loss = _epoch(
      state,
      train,
      order,
      checks,
      learning_rate=network.learning_rate,
      weight_decay=network.weight_decay,
    )
    if float(loss) < best_loss:
      best, best_epoch, best_loss = state[0], epoch, float(loss)
    elif epoch - best_epoch >= network.patience:
      break
  return best, best_epoch


@jax.jit
def _apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
  # By default, accelerators round to bfloat16, which makes the metric less exact.
  dot = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
  return dot(jax.nn.gelu(dot(x, params["w1"]) + params["b1"]), params["w2"]) + params["b2"]


def _loss(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
  return jnp.mean((_apply(params, x) - y) ** 2)


@functools.partial(jax.jit, static_argnames=("learning_rate", "weight_decay"))
def _epoch(
  state: State,
  train: tuple[jax.Array, jax.Array],
  order: np.ndarray,
  checks: tuple[jax.Array, jax.Array],
  *,
  learning_rate: float,
  weight_decay: float,
) -> tuple[State, jax.Array]:
  """One epoch over the training samples in an order [steps, B].

  Args:
    state: (parameters, mean gradients, mean squared gradients, number of steps).
    train: inputs and outputs of the training samples.
    order: rows of each step.
    checks: inputs and outputs of the inner held-out samples.
    learning_rate: learning rate of Adam.
    weight_decay: decoupled weight decay of the matrices.

  Returns:
    (state, loss on the inner held-out samples).
  """
  x, y = train

  def step(state, index):
    params, first, second, count = state
    grads = jax.grad(_loss)(params, x[index], y[index])
    count = count + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, grads)
    time = count.astype(jnp.float32)
    unbias1, unbias2 = 1 - 0.9**time, 1 - 0.999**time
    moved = jax.tree.map(
      lambda p, m, v: p - learning_rate * (m / unbias1) / (jnp.sqrt(v / unbias2) + 1e-8),
      params,
      first,
      second,
    )
    decayed = {
      name: value - learning_rate * weight_decay * params[name] if name.startswith("w") else value
      for name, value in moved.items()
    }
    return (decayed, first, second, count), None

  state, _ = jax.lax.scan(step, state, order)
  return state, _loss(state[0], *checks)
