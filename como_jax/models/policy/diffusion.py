"""Training targets and samplers of a denoiser: flow matching and DDPM, as pure functions of arrays.

Legend: B batch, ... axes of one example's sample, t time in [0, 1]: 0 is pure noise, 1 is data, for
both objectives (it is the network's input), k timestep of DDPM's schedule in [0,
num_train_timesteps).

Both objectives have the same two functions, so that a network is trained and sampled without
knowing the objective:
`add_noise(key, x)` gives the noisy sample, its t and the regression target;
`sample(noise, predict, key, num_sampling_steps)` goes from noise to data with `predict(x [B, ...],
t [B]) -> [B, ...]`.

Sources: Lipman et al., arXiv 2210.02747; Black et al. (pi0), arXiv 2410.24164 (time from a beta
distribution); Ho et al., arXiv 2006.11239; Nichol and Dhariwal, arXiv 2102.09672 (cosine schedule);
Song et al., arXiv 2010.02502 (DDIM).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from como_jax import errors
from como_jax.models import config_utils

Predict = Callable[[jax.Array, jax.Array], jax.Array]
TIMES = ("uniform", "beta", "logit_normal")
SCHEDULES = ("cosine", "linear")
PREDICTIONS = ("epsilon", "v", "sample")
SAMPLERS = ("ddim", "ddpm")


class NoisySample(NamedTuple):
  """A training example of the denoiser.

  Attributes:
    x: [B, ...], noisy.
    time: float32 [B], t.
    target: [B, ...], the network's regression target.
  """

  x: jax.Array
  time: jax.Array
  target: jax.Array


def per_example(values: jax.Array, like: jax.Array) -> jax.Array:
  """`values` [B] -> [B, 1, ...] of the rank of `like`."""
  return values.reshape((-1,) + (1,) * (like.ndim - 1))


def classifier_free_guidance(
  conditional: jax.Array, unconditional: jax.Array, guidance_scale: float
) -> jax.Array:
  """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

  Args:
    conditional: the prediction with the instruction.
    unconditional: the prediction without it.
    guidance_scale: 1 is the conditional prediction itself.
  """
  return unconditional + guidance_scale * (conditional - unconditional)


@dataclasses.dataclass(frozen=True)
class Flow:
  """Flow matching on straight lines: x_t = (1-t) noise + t data, sampled with Euler steps.

  The target is the velocity, data - noise.

  Attributes:
    time: distribution of t in training: "uniform"; "beta": t = cut * (1 - Beta(alpha, 1)), which as
      in pi0 favors noisy samples; "logit_normal": sigmoid of a Gaussian (Esser et al., arXiv
      2403.03206).
    alpha: of "beta".
    cut: of "beta", the largest t.
    mean: of the Gaussian.
    deviation: of the Gaussian.
  """

  time: str = "beta"
  alpha: float = 1.5
  cut: float = 0.999
  mean: float = 0.0
  deviation: float = 1.0

  def check(self, where: str) -> None:
    """Checks the values; `where` is the name of the section.

    Raises:
      errors.UserError: for a value that makes no sense.
    """
    config_utils.choice(TIMES, self.time, f"{where}.time")
    for name in ("alpha", "cut", "deviation"):
      if getattr(self, name) <= 0 or (name == "cut" and self.cut > 1):
        raise errors.UserError(
          f"{where}.{name} {getattr(self, name)} must be positive"
          + (", at most 1" if name == "cut" else "")
        )

  def times(self, key: jax.Array, count: int) -> jax.Array:
    """`count` random times t of training examples, float32 [count]."""
    if self.time == "uniform":
      return jax.random.uniform(key, (count,))
    if self.time == "beta":
      # Beta(alpha, 1) by the inverse of its distribution function: the general sampler has
      # rejection loops that take seconds to compile.
      return self.cut * (1 - jax.random.uniform(key, (count,)) ** (1 / self.alpha))
    return jax.nn.sigmoid(self.mean + self.deviation * jax.random.normal(key, (count,)))

  def add_noise(self, key: jax.Array, x: jax.Array) -> NoisySample:
    """A training example of data `x` [B, ...], float32."""
    time_key, noise_key = jax.random.split(key)
    time, noise = self.times(time_key, x.shape[0]), jax.random.normal(noise_key, x.shape)
    t = per_example(time, x)
    return NoisySample((1 - t) * noise + t * x, time, x - noise)

  def sample(
    self, noise: jax.Array, predict: Predict, key: jax.Array, num_sampling_steps: int
  ) -> jax.Array:
    """Euler steps of equal length, a deterministic sampler.

    Args:
      noise: [B, ...].
      predict: (x [B, ...], t [B]) -> velocity [B, ...].
      key: not used.
      num_sampling_steps: number of steps.

    Returns:
      [B, ...].
    """
    del key

    def step(x: jax.Array, time: jax.Array) -> tuple[jax.Array, None]:
      velocity = predict(x, jnp.full((x.shape[0],), time))
      return x + velocity / num_sampling_steps, None

    times = jnp.arange(num_sampling_steps, dtype=jnp.float32) / num_sampling_steps
    return jax.lax.scan(step, noise, times)[0]


@dataclasses.dataclass(frozen=True)
class DDPM:
  """Denoising diffusion: x_k = sqrt(a_k) data + sqrt(1-a_k) noise, a_k from almost 1 to almost 0.

  Attributes:
    num_train_timesteps: of the schedule, from which k is drawn uniformly in training.
    schedule: "cosine" (betas capped at 0.999) or "linear" (the betas of 1,000 timesteps, scaled to
      `num_train_timesteps`).
    prediction: "epsilon" (the noise), "v" (Salimans and Ho, arXiv 2202.00512), or "sample" (the
      data).
    sampler: "ddim" (deterministic) or "ddpm" (ancestral), both over evenly spaced timesteps that
      end at the cleanest.
    clip: bound of the data estimate at each step, in normalized units; 0 = none.
  """

  num_train_timesteps: int = 100
  schedule: str = "cosine"
  prediction: str = "v"
  sampler: str = "ddim"
  clip: float = 5.0

  def check(self, where: str) -> None:
    """Checks the values; `where` is the name of the section.

    Raises:
      errors.UserError: for a value that makes no sense.
    """
    config_utils.choice(SCHEDULES, self.schedule, f"{where}.schedule")
    config_utils.choice(PREDICTIONS, self.prediction, f"{where}.prediction")
    config_utils.choice(SAMPLERS, self.sampler, f"{where}.sampler")
    # With fewer timesteps than this the linear schedule has betas above 1.
    minimum = 21 if self.schedule == "linear" else 2
    if self.num_train_timesteps < minimum or self.clip < 0:
      raise errors.UserError(
        f"{where}: num_train_timesteps {self.num_train_timesteps} must be at least {minimum}, "
        f"clip {self.clip} not negative"
      )

  def alphas_cumprod(self) -> np.ndarray:
    """float32 [num_train_timesteps]: a_k, the share of the data's variance that is left."""
    count = self.num_train_timesteps
    if self.schedule == "cosine":
      edges = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
      betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    else:
      scale = 1000 / count
      betas = np.linspace(scale * 1e-4, scale * 0.02, count)
    return np.cumprod(1 - betas).astype(np.float32)

  def add_noise(self, key: jax.Array, x: jax.Array) -> NoisySample:
    """A training example of data `x` [B, ...], float32."""
    timestep_key, noise_key = jax.random.split(key)
    timestep, noise = (
      jax.random.randint(timestep_key, (x.shape[0],), 0, self.num_train_timesteps),
      jax.random.normal(noise_key, x.shape),
    )
    a = per_example(jnp.asarray(self.alphas_cumprod())[timestep], x)
    targets = {"epsilon": noise, "sample": x, "v": jnp.sqrt(a) * noise - jnp.sqrt(1 - a) * x}
    return NoisySample(
      jnp.sqrt(a) * x + jnp.sqrt(1 - a) * noise, self._time(timestep), targets[self.prediction]
    )

  def sample(
    self, noise: jax.Array, predict: Predict, key: jax.Array, num_sampling_steps: int
  ) -> jax.Array:
    """DDIM or ancestral sampling.

    Args:
      noise: [B, ...].
      predict: (x [B, ...], t [B]) -> prediction [B, ...].
      key: of the ancestral sampler's noise.
      num_sampling_steps: number of steps.

    Returns:
      [B, ...].

    Raises:
      errors.UserError: more steps than timesteps.
    """
    count = self.num_train_timesteps
    if num_sampling_steps > count:
      raise errors.UserError(
        f"num_sampling_steps {num_sampling_steps} is more than the num_train_timesteps {count} of "
        "the schedule"
      )
    alphas = self.alphas_cumprod()
    progress = np.arange(num_sampling_steps) / num_sampling_steps
    timestep = np.round(count * (1 - progress)).astype(np.int32) - 1
    before, after = alphas[timestep], np.append(alphas[timestep[1:]], np.float32(1))

    def step(x: jax.Array, inputs: tuple) -> tuple[jax.Array, None]:
      timestep, a, b, key = inputs
      predicted = predict(x, jnp.full((x.shape[0],), self._time(timestep)))
      data = self._data(x, predicted, a)
      if self.clip:
        data = jnp.clip(data, -self.clip, self.clip)
      # The noise for which this (clipped) estimate gives x.
      epsilon = (x - jnp.sqrt(a) * data) / jnp.sqrt(1 - a)
      # Ancestral sampling is DDIM with the posterior's variance as fresh noise (Song et al.,
      # equation 16).
      variance = (1 - b) / (1 - a) * (1 - a / b) if self.sampler == "ddpm" else jnp.zeros(())
      x = jnp.sqrt(b) * data + jnp.sqrt(jnp.maximum(1 - b - variance, 0)) * epsilon
      if self.sampler == "ddpm":
        x = x + jnp.sqrt(variance) * jax.random.normal(key, x.shape)
      return x, None

    keys = jax.random.split(key, num_sampling_steps)
    return jax.lax.scan(step, noise, (timestep, before, after, keys))[0]

  def _time(self, timestep: jax.Array) -> jax.Array:
    return 1 - (timestep + 1).astype(jnp.float32) / self.num_train_timesteps

  def _data(self, x: jax.Array, predicted: jax.Array, a: jax.Array) -> jax.Array:
    if self.prediction == "sample":
      return predicted
    if self.prediction == "v":
      return jnp.sqrt(a) * x - jnp.sqrt(1 - a) * predicted
    return (x - jnp.sqrt(1 - a) * predicted) / jnp.sqrt(a)


OBJECTIVES: dict[str, Any] = {"flow": Flow, "ddpm": DDPM}


def build(section: dict[str, Any], where: str) -> tuple[Flow | DDPM, int]:
  """The training objective of a policy's section, and the number of steps of its sampler.

  Args:
    section: the keys "objective", "flow", "ddpm" and "num_sampling_steps" are taken out of it.
    where: name of the section.

  Raises:
    errors.UserError: an unknown key or value, or more steps than timesteps.
  """
  built = {}
  for name, constructor in OBJECTIVES.items():
    built[name] = config_utils.instantiate(constructor, section.pop(name, {}), f"{where}.{name}")
    built[name].check(f"{where}.{name}")
  objective, steps = (
    config_utils.lookup(built, section.pop("objective", "flow"), f"{where}.objective"),
    section.pop("num_sampling_steps", 10),
  )
  maximum = objective.num_train_timesteps if isinstance(objective, DDPM) else steps
  if not 1 <= steps <= maximum:
    limit = f" and at most {where}.ddpm.num_train_timesteps {maximum}" if steps > maximum else ""
    raise errors.UserError(f"{where}.num_sampling_steps {steps} must be at least 1{limit}")
  return objective, steps
