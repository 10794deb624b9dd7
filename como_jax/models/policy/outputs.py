"""Output heads of the autoregressive policy: regression, a mixture of Gaussians, diffusion.

Legend: B batch, ... axes of tokens, d dims of a token, D width of the hidden vectors, W width of
the denoiser, C components. Source: Li et al. (MAR), arXiv 2406.11838, for the diffusion loss of
single tokens.

A head turns a token's hidden vector into values. Each kind has the linear layers of a robot
(`layers`: {name: (input size, output size)}), the parameters that all robots share (`init`), a loss
(`loss`: one value for each value of the target) and a sampler (`sample`). `linear(layer, x)`
applies a layer of the example's robot. Everything here is float32.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import config_utils, modules, protocols
from como_jax.models.modules import Params
from como_jax.models.policy import blocks, diffusion

Linear = protocols.Linear
LOSSES: dict[str, Callable[[jax.Array], jax.Array]] = {
  "smooth_l1": lambda error: jnp.where(
    jnp.abs(error) < 1, 0.5 * jnp.square(error), jnp.abs(error) - 0.5
  ),
  "mse": jnp.square,
}


@dataclasses.dataclass(frozen=True)
class Regression:
  """One linear layer, trained with smooth-L1 (quadratic below 1) or the squared error.

  Attributes:
    kind: a key of `LOSSES`.
    zero: whether the layer starts at zero.
  """

  kind: str = "smooth_l1"
  zero: bool = True  # the layer starts at zero: at the mean of normalized targets

  def layers(self, width: int, dims: int) -> dict[str, tuple[int, int]]:
    """The layer "decode" from D = `width` to d = `dims`."""
    return {"decode": (width, dims)}

  def init(self, key: jax.Array, width: int) -> dict[str, Any]:
    """No shared parameters."""
    del key, width
    return {}

  def loss(
    self, params: Params, linear: Linear, hidden: jax.Array, target: jax.Array, key: jax.Array
  ) -> jax.Array:
    """The error of each value.

    Args:
      params: as from `init`.
      linear: applies a layer of the robot.
      hidden: [B, ..., D].
      target: [B, ..., d].
      key: of random numbers, where the loss needs them.

    Returns:
      [B, ..., d].
    """
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
    num_sampling_steps: int,
  ) -> jax.Array:
    """The values of tokens.

    Args:
      params: as from `init`.
      linear: applies a layer of the robot.
      hidden: [B, ..., D].
      key: of random numbers, where the sampler needs them.
      dims: d.
      num_sampling_steps: of a diffusion sampler.

    Returns:
      [B, ..., d].
    """
    del params, key, dims, num_sampling_steps
    return linear("decode", hidden)


@dataclasses.dataclass(frozen=True)
class Mixture:
  """A mixture of C Gaussians with diagonal variances.

  It is trained on the negative log-likelihood per dimension.

  Attributes:
    components: C.
    temperature: multiplies the deviations when sampling; 0 takes the mean of the likeliest
      component.
    zero: whether the layer starts at zero.
  """

  components: int = 5
  temperature: float = 1.0
  zero: bool = False  # equal components would stay equal

  def layers(self, width: int, dims: int) -> dict[str, tuple[int, int]]:
    """The layer "decode" from D = `width` to d = `dims`."""
    return {"decode": (width, self.components * (2 * dims + 1))}

  def init(self, key: jax.Array, width: int) -> dict[str, Any]:
    """No shared parameters."""
    del key, width
    return {}

  def loss(
    self, params: Params, linear: Linear, hidden: jax.Array, target: jax.Array, key: jax.Array
  ) -> jax.Array:
    """As `Regression.loss`; a token's likelihood is divided evenly over its d dims."""
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
    num_sampling_steps: int,
  ) -> jax.Array:
    """As `Regression.sample`."""
    del params, num_sampling_steps
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

  def _split(self, values: jax.Array, dims: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log weights [..., C], means [..., C, d], deviations [..., C, d] between e^-4 and e^2."""
    weights, rest = jnp.split(values, [self.components], axis=-1)
    means, spreads = jnp.split(
      rest.reshape((*rest.shape[:-1], self.components, 2 * dims)), 2, axis=-1
    )
    return jax.nn.log_softmax(weights), means, jnp.exp(3 * jnp.tanh(spreads / 3) - 1)


@dataclasses.dataclass(frozen=True)
class Diffusion:
  """A small MLP that denoises each token, conditioned on its hidden vector.

  The robot's layers encode the noisy token and decode the result.

  Attributes:
    objective: the training target and the sampler.
    layer: name of the robot's layer that encodes noisy tokens.
    width: W.
    depth: number of residual layers.
    zero: whether the layer "decode" starts at zero.
  """

  objective: diffusion.Flow | diffusion.DDPM
  layer: str
  width: int = 256
  depth: int = 3
  zero: bool = True

  def layers(self, width: int, dims: int) -> dict[str, tuple[int, int]]:
    """The layers from d = `dims` to W and back; the hidden `width` does not matter."""
    del width
    return {self.layer: (dims, self.width), "decode": (self.width, dims)}

  def init(self, key: jax.Array, width: int) -> dict[str, Any]:
    """{"denoiser": ...}: the MLP for hidden vectors of `width`, which all robots share."""
    network = self._network()
    return {
      "denoiser": network.init(
        key, jnp.zeros((1, self.width)), jnp.zeros((1,)), jnp.zeros((1, width))
      )["params"]
    }

  def loss(
    self, params: Params, linear: Linear, hidden: jax.Array, target: jax.Array, key: jax.Array
  ) -> jax.Array:
    """As `Regression.loss`: the squared error of the objective's target.

    Each token has a diffusion time of its own.
    """
    noised = self.objective.add_noise(key, target.reshape((-1, target.shape[-1])))
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
    num_sampling_steps: int,
  ) -> jax.Array:
    """As `Regression.sample`."""
    shape = (*hidden.shape[:-1], dims)

    def predict(x: jax.Array, time: jax.Array) -> jax.Array:
      return self._predict(
        params, linear, hidden, x.reshape(shape), time.reshape(shape[:-1])
      ).reshape(x.shape)

    noise_key, step_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, shape).reshape((-1, dims))
    return self.objective.sample(noise, predict, step_key, num_sampling_steps).reshape(shape)

  def _network(self) -> blocks.TokenDenoiser:
    return blocks.TokenDenoiser(self.width, self.depth)

  def _predict(
    self, params: Params, linear: Linear, hidden: jax.Array, x: jax.Array, time: jax.Array
  ) -> jax.Array:
    tokens = linear(self.layer, x).astype(jnp.float32)
    hidden = modules.apply(self._network(), params["denoiser"], tokens, time, hidden)
    return linear("decode", hidden)


def build(
  section: dict[str, Any], where: str, objective: diffusion.Flow | diffusion.DDPM
) -> tuple[protocols.OutputHead, protocols.OutputHead]:
  """The output heads of a policy's section.

  Args:
    section: the keys "motion_head", "action_head" and their settings "loss", "mixture" and
      "denoiser" are taken out of it.
    where: name of the section.
    objective: of diffusion heads.

  Returns:
    The heads of motions and of actions.

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
  built: list[protocols.OutputHead] = []
  for name, layer in (("motion_head", "noisy"), ("action_head", "encode")):
    kinds = {"regression": Regression(kind), "diffusion": Diffusion(objective, layer, **denoiser)}
    kinds |= {"gmm": mixture} if name == "motion_head" else {}
    built.append(config_utils.lookup(kinds, section.pop(name, "regression"), f"{where}.{name}"))
  return built[0], built[1]
