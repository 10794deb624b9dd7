"""How an autoregressive policy turns a token's hidden vector into numbers: regression, a mixture of
Gaussians, diffusion.

Legend: B batch, ... axes of tokens, d numbers of a token, D width of the hidden vectors, W width of
the denoiser, C components. Source: Li et al. (MAR), arXiv 2406.11838, for the diffusion loss of
single tokens.

Each kind says which linear layers a head needs (`layers`), what parameters all heads share
(`init`), how wrong hidden vectors are (`loss`: one number for each number of the target) and what
they mean (`sample`). `linear(layer, x)` applies a layer of the head in question. Everything here is
float32.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import config_utils
from como_jax.models.policy import blocks, diffusion

Linear = Callable[[str, jax.Array], jax.Array]
Params = Mapping[str, Any]
LOSSES: dict[str, Callable[[jax.Array], jax.Array]] = {
  "smooth_l1": lambda error: jnp.where(
    jnp.abs(error) < 1, 0.5 * jnp.square(error), jnp.abs(error) - 0.5
  ),
  "mse": jnp.square,
}


@dataclasses.dataclass(frozen=True)
class Regression:
  """One linear layer, trained with smooth-L1 (its quadratic part ends at 1) or the squared
  error.
  """

  kind: str = "smooth_l1"
  zero: bool = True  # the layer starts at zero: at the mean of normalized targets

  def layers(self, width: int, dims: int) -> dict[str, tuple[int, int]]:
    return {"decode": (width, dims)}

  def init(self, key: jax.Array, width: int) -> dict[str, Any]:
    del key, width
    return {}

  def loss(
    self, params: Params, linear: Linear, hidden: jax.Array, target: jax.Array, key: jax.Array
  ) -> jax.Array:
    """Hidden [B, ..., D], target [B, ..., d] -> [B, ..., d]."""
    del params, key
    return LOSSES[self.kind](linear("decode", hidden) - target)

  def sample(
    self,
    params: Params,
    linear: Linear,
    hidden: jax.Array,
    key: jax.Array,
    *,
    dims: int,
    steps: int,
  ) -> jax.Array:
    """Hidden [B, ..., D] -> [B, ..., d]."""
    del params, key, dims, steps
    return linear("decode", hidden)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A mixture of C Gaussians with diagonal variances, trained on the negative log-likelihood a
  number.

  Attributes:
    temperature: multiplies the deviations when sampling; 0 takes the mean of the likeliest
      component.
  """

  components: int = 5
  temperature: float = 1.0
  zero: bool = False  # equal components would stay equal

  def layers(self, width: int, dims: int) -> dict[str, tuple[int, int]]:
    return {"decode": (width, self.components * (2 * dims + 1))}

  def init(self, key: jax.Array, width: int) -> dict[str, Any]:
    del key, width
    return {}

  def loss(
    self, params: Params, linear: Linear, hidden: jax.Array, target: jax.Array, key: jax.Array
  ) -> jax.Array:
    """As Regression's; a token's likelihood is shared out evenly over its d numbers."""
    del params, key
    weights, means, deviations = self._split(linear("decode", hidden), target.shape[-1])
    scaled = (target[..., None, :] - means) / deviations
    density = -jnp.sum(
      0.5 * jnp.square(scaled) + jnp.log(deviations) + 0.5 * jnp.log(2 * jnp.pi), axis=-1
    )
    likelihood = jax.nn.logsumexp(weights + density, axis=-1, keepdims=True)
    return jnp.broadcast_to(-likelihood / target.shape[-1], target.shape)

  def sample(
    self,
    params: Params,
    linear: Linear,
    hidden: jax.Array,
    key: jax.Array,
    *,
    dims: int,
    steps: int,
  ) -> jax.Array:
    """As Regression's."""
    del params, steps
    weights, means, deviations = self._split(linear("decode", hidden), dims)
    which_key, noise_key = jax.random.split(key)
    which = (
      jax.random.categorical(which_key, weights)
      if self.temperature
      else jnp.argmax(weights, axis=-1)
    )
    mean, deviation = (
      jnp.take_along_axis(x, which[..., None, None], axis=-2)[..., 0, :]
      for x in (means, deviations)
    )
    return mean + self.temperature * deviation * jax.random.normal(noise_key, mean.shape)

  def _split(self, numbers: jax.Array, dims: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log weights [..., C], means [..., C, d], deviations [..., C, d] between e^-4 and e^2."""
    weights, rest = jnp.split(numbers, [self.components], axis=-1)
    means, spreads = jnp.split(
      rest.reshape((*rest.shape[:-1], self.components, 2 * dims)), 2, axis=-1
    )
    return jax.nn.log_softmax(weights), means, jnp.exp(3 * jnp.tanh(spreads / 3) - 1)


@dataclasses.dataclass(frozen=True)
class Diffusion:
  """A small MLP that denoises each token under its hidden vector; the head encodes the noisy token
  and decodes the result.

  Attributes:
    objective: what it learns and how it is sampled.
    layer: name of the head's layer that encodes noisy tokens.
    width: W. depth: residual layers.
  """

  objective: diffusion.Flow | diffusion.DDPM
  layer: str
  width: int = 256
  depth: int = 3
  zero: bool = True

  def layers(self, width: int, dims: int) -> dict[str, tuple[int, int]]:
    del width
    return {self.layer: (dims, self.width), "decode": (self.width, dims)}

  def init(self, key: jax.Array, width: int) -> dict[str, Any]:
    """{"denoiser": ...}: the MLP, which all robots share."""
    network = self._network()
    return {
      "denoiser": network.init(
        key, jnp.zeros((1, self.width)), jnp.zeros((1,)), jnp.zeros((1, width))
      )["params"]
    }

  def loss(
    self, params: Params, linear: Linear, hidden: jax.Array, target: jax.Array, key: jax.Array
  ) -> jax.Array:
    """As Regression's: the squared error of the objective's target, each token at a diffusion time
    of its own.
    """
    noised = self.objective.corrupt(key, target.reshape((-1, target.shape[-1])))
    predicted = self._predict(
      params, linear, hidden, noised.x.reshape(target.shape), noised.time.reshape(target.shape[:-1])
    )
    return jnp.square(predicted - noised.target.reshape(target.shape))

  def sample(
    self,
    params: Params,
    linear: Linear,
    hidden: jax.Array,
    key: jax.Array,
    *,
    dims: int,
    steps: int,
  ) -> jax.Array:
    """As Regression's."""
    shape = (*hidden.shape[:-1], dims)

    def predict(x: jax.Array, time: jax.Array) -> jax.Array:
      return self._predict(
        params, linear, hidden, x.reshape(shape), time.reshape(shape[:-1])
      ).reshape(x.shape)

    noise_key, step_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, shape).reshape((-1, dims))
    return self.objective.sample(noise, predict, step_key, steps).reshape(shape)

  def _network(self) -> blocks.TokenDenoiser:
    return blocks.TokenDenoiser(self.width, self.depth)

  def _predict(
    self, params: Params, linear: Linear, hidden: jax.Array, x: jax.Array, time: jax.Array
  ) -> jax.Array:
    tokens = linear(self.layer, x).astype(jnp.float32)
    return linear(
      "decode", self._network().apply({"params": params["denoiser"]}, tokens, time, hidden)
    )


def build(
  section: dict[str, Any], where: str, objective: diffusion.Flow | diffusion.DDPM
) -> tuple[Any, Any]:
  """Takes "motion_head", "action_head" and their settings "loss", "mixture", "denoiser" out of a
  policy's section.

  Returns:
    What motions and what actions are made with.

  Raises:
    errors.UserError: an unknown key or value.
  """
  kind = section.pop("loss", "smooth_l1")
  config_utils.lookup(LOSSES, kind, f"{where}.loss")
  mixture = config_utils.instantiate(Mixture, section.pop("mixture", {}), f"{where}.mixture")
  denoiser = dict(section.pop("denoiser", {}))
  config_utils.check(denoiser, f"{where}.denoiser", required=(), optional=("width", "depth"))
  if mixture.components < 1 or mixture.temperature < 0 or min(denoiser.values(), default=1) < 1:
    raise errors.UserError(
      f"{where}: mixture.components and denoiser's width and depth must be at least 1, "
      "temperature not negative"
    )
  built = []
  for name, layer in (("motion_head", "noisy"), ("action_head", "encode")):
    kinds = {"regression": Regression(kind), "diffusion": Diffusion(objective, layer, **denoiser)}
    kinds |= {"gmm": mixture} if name == "motion_head" else {}
    built.append(config_utils.lookup(kinds, section.pop(name, "regression"), f"{where}.{name}"))
  return built[0], built[1]
