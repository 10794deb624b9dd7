"""What a denoiser learns and how samples are drawn from it: flow matching and DDPM, as pure
functions of arrays.

Legend: B batch, ... axes of one example's sample, t progress in [0, 1]: 0 is pure noise, 1 is data,
for both objectives (it is what the network is told), k level of DDPM's schedule in [0, levels).

Both objectives have the same two functions, so that a network is trained and sampled without
knowing which it serves:
`corrupt(key, x)` gives the noised sample, its t and the regression target; `sample(noise, predict,
key, steps)` walks
from noise to data with `predict(x [B, ...], t [B]) -> [B, ...]`.
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


class Noised(NamedTuple):
  """A training example of the denoiser.

  Attributes:
    x: [B, ...], noised.
    time: float32 [B], t.
    target: [B, ...], what the network has to predict.
  """

  x: jax.Array
  time: jax.Array
  target: jax.Array


def per_example(values: jax.Array, like: jax.Array) -> jax.Array:
  """[B] -> [B, 1, ...] of the rank of `like`."""
  return values.reshape((-1,) + (1,) * (like.ndim - 1))


def guided(conditional: jax.Array, unconditional: jax.Array, weight: float) -> jax.Array:
  """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598); weight 1 is the conditional
  prediction itself.
  """
  return unconditional + weight * (conditional - unconditional)


@dataclasses.dataclass(frozen=True)
class Flow:
  """Flow matching on straight lines: x_t = (1-t) noise + t data, the target is the velocity data -
  noise; Euler steps.

  Attributes:
    time: distribution of t in training: "uniform"; "beta": t = cut * (1 - Beta(alpha, 1)), which as
      in pi0 dwells on noisy samples; "logit_normal": sigmoid of a Gaussian (Esser et al., arXiv
      2403.03206).
    mean: of the Gaussian. deviation: of the Gaussian.
  """

  time: str = "beta"
  alpha: float = 1.5
  cut: float = 0.999
  mean: float = 0.0
  deviation: float = 1.0

  def check(self, where: str) -> None:
    """Raises errors.UserError for a value that makes no sense."""
    config_utils.lookup(dict.fromkeys(TIMES), self.time, f"{where}.time")
    for name in ("alpha", "cut", "deviation"):
      if getattr(self, name) <= 0 or (name == "cut" and self.cut > 1):
        raise errors.UserError(
          f"{where}.{name} {getattr(self, name)} must be positive"
          + (", at most 1" if name == "cut" else "")
        )

  def times(self, key: jax.Array, count: int) -> jax.Array:
    """float32 [count]."""
    if self.time == "uniform":
      return jax.random.uniform(key, (count,))
    if self.time == "beta":
      # Beta(alpha, 1) by inverting its distribution function: the general one needs rejection loops
      # that compile for seconds.
      return self.cut * (1 - jax.random.uniform(key, (count,)) ** (1 / self.alpha))
    return jax.nn.sigmoid(self.mean + self.deviation * jax.random.normal(key, (count,)))

  def corrupt(self, key: jax.Array, x: jax.Array) -> Noised:
    """X [B, ...], float32."""
    time_key, noise_key = jax.random.split(key)
    time, noise = self.times(time_key, x.shape[0]), jax.random.normal(noise_key, x.shape)
    t = per_example(time, x)
    return Noised((1 - t) * noise + t * x, time, x - noise)

  def sample(self, noise: jax.Array, predict: Predict, key: jax.Array, steps: int) -> jax.Array:
    """`steps` Euler steps of equal length from noise [B, ...]; deterministic, the key is not
    used.
    """
    del key

    def step(x: jax.Array, time: jax.Array) -> tuple[jax.Array, None]:
      velocity = predict(x, jnp.full((x.shape[0],), time))
      return x + velocity / steps, None

    return jax.lax.scan(step, noise, jnp.arange(steps, dtype=jnp.float32) / steps)[0]


@dataclasses.dataclass(frozen=True)
class DDPM:
  """Denoising diffusion: x_k = sqrt(a_k) data + sqrt(1-a_k) noise, a_k falling from almost 1 to
  almost 0.

  Attributes:
    levels: of the schedule, from which k is drawn evenly in training.
    schedule: "cosine" (betas capped at 0.999) or "linear" (the betas of 1,000 levels, scaled to
      `levels`).
    prediction: "epsilon" (the noise), "v" (Salimans and Ho, arXiv 2202.00512), or "sample" (the
      data).
    sampler: "ddim" (deterministic) or "ddpm" (ancestral), both over evenly spaced levels that end
      at the cleanest.
    clip: bound of the data estimate at each step, in normalized units; 0 = none.
  """

  levels: int = 100
  schedule: str = "cosine"
  prediction: str = "v"
  sampler: str = "ddim"
  clip: float = 5.0

  def check(self, where: str) -> None:
    """Raises errors.UserError for a value that makes no sense."""
    config_utils.lookup(dict.fromkeys(SCHEDULES), self.schedule, f"{where}.schedule")
    config_utils.lookup(dict.fromkeys(PREDICTIONS), self.prediction, f"{where}.prediction")
    config_utils.lookup(dict.fromkeys(SAMPLERS), self.sampler, f"{where}.sampler")
    # The linear schedule has no betas below 1 for fewer levels than this.
    least = 21 if self.schedule == "linear" else 2
    if self.levels < least or self.clip < 0:
      raise errors.UserError(
        f"{where}: levels {self.levels} must be at least {least}, clip {self.clip} not negative"
      )

  def signal(self) -> np.ndarray:
    """float32 [levels]: a_k, the share of the data's variance that is left."""
    if self.schedule == "cosine":
      edges = np.cos((np.arange(self.levels + 1) / self.levels + 0.008) / 1.008 * np.pi / 2) ** 2
      betas = np.minimum(1 - edges[1:] / edges[:-1], 0.999)
    else:
      scale = 1000 / self.levels
      betas = np.linspace(scale * 1e-4, scale * 0.02, self.levels)
    return np.cumprod(1 - betas).astype(np.float32)

  def corrupt(self, key: jax.Array, x: jax.Array) -> Noised:
    """X [B, ...], float32."""
    level_key, noise_key = jax.random.split(key)
    level, noise = (
      jax.random.randint(level_key, (x.shape[0],), 0, self.levels),
      jax.random.normal(noise_key, x.shape),
    )
    a = per_example(jnp.asarray(self.signal())[level], x)
    targets = {"epsilon": noise, "sample": x, "v": jnp.sqrt(a) * noise - jnp.sqrt(1 - a) * x}
    return Noised(
      jnp.sqrt(a) * x + jnp.sqrt(1 - a) * noise, self._time(level), targets[self.prediction]
    )

  def sample(self, noise: jax.Array, predict: Predict, key: jax.Array, steps: int) -> jax.Array:
    """`steps` steps from noise [B, ...]; the key is for the ancestral sampler's noise.

    Raises:
      errors.UserError: more steps than levels.
    """
    if steps > self.levels:
      raise errors.UserError(f"steps {steps} is more than the {self.levels} levels of the schedule")
    signal = self.signal()
    level = np.round(self.levels * (1 - np.arange(steps) / steps)).astype(np.int32) - 1
    now, after = signal[level], np.append(signal[level[1:]], np.float32(1))

    def step(x: jax.Array, inputs: tuple) -> tuple[jax.Array, None]:
      level, a, b, key = inputs
      predicted = predict(x, jnp.full((x.shape[0],), self._time(level)))
      data = self._data(x, predicted, a)
      if self.clip:
        data = jnp.clip(data, -self.clip, self.clip)
      # The noise that leads from this (clipped) estimate to x.
      epsilon = (x - jnp.sqrt(a) * data) / jnp.sqrt(1 - a)
      # Ancestral sampling is DDIM with the posterior's variance as fresh noise (Song et al.,
      # equation 16).
      variance = (1 - b) / (1 - a) * (1 - a / b) if self.sampler == "ddpm" else jnp.zeros(())
      x = jnp.sqrt(b) * data + jnp.sqrt(jnp.maximum(1 - b - variance, 0)) * epsilon
      if self.sampler == "ddpm":
        x = x + jnp.sqrt(variance) * jax.random.normal(key, x.shape)
      return x, None

    return jax.lax.scan(step, noise, (level, now, after, jax.random.split(key, steps)))[0]

  def _time(self, level: jax.Array) -> jax.Array:
    return 1 - (level + 1).astype(jnp.float32) / self.levels

  def _data(self, x: jax.Array, predicted: jax.Array, a: jax.Array) -> jax.Array:
    if self.prediction == "sample":
      return predicted
    if self.prediction == "v":
      return jnp.sqrt(a) * x - jnp.sqrt(1 - a) * predicted
    return (x - jnp.sqrt(1 - a) * predicted) / jnp.sqrt(a)


OBJECTIVES: dict[str, Any] = {"flow": Flow, "ddpm": DDPM}


def build(section: dict[str, Any], where: str) -> tuple[Flow | DDPM, int]:
  """Takes "objective", "flow", "ddpm" and "steps" out of a policy's section: (the one that
  "objective" names, steps of its sampler).

  Raises:
    errors.UserError: an unknown key or value, or more steps than levels.
  """
  built = {}
  for name, constructor in OBJECTIVES.items():
    built[name] = config_utils.instantiate(constructor, section.pop(name, {}), f"{where}.{name}")
    built[name].check(f"{where}.{name}")
  objective, steps = (
    config_utils.lookup(built, section.pop("objective", "flow"), f"{where}.objective"),
    section.pop("steps", 10),
  )
  most = objective.levels if isinstance(objective, DDPM) else steps
  if not 1 <= steps <= most:
    limit = f" and at most {where}.ddpm.levels {most}" if steps > most else ""
    raise errors.UserError(f"{where}.steps {steps} must be at least 1{limit}")
  return objective, steps
