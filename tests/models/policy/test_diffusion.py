"""Objectives and samplers against numpy loops written from the papers' formulas, with fixed
noise.
"""

import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors
from como_jax.models.policy import diffusion

KEY = jax.random.key(0)
NOISE = np.asarray(jax.random.normal(jax.random.key(1), (3, 4, 2)))
DATA = np.asarray(jax.random.normal(jax.random.key(2), (3, 4, 2)))


def column(values):
  return np.asarray(values)[:, None, None]


@pytest.mark.parametrize("time", diffusion.TIMES)
def test_flow_corrupts_along_the_line(time):
  flow = diffusion.Flow(time=time)
  x, t, target = (np.asarray(part) for part in flow.add_noise(KEY, jnp.asarray(DATA)))
  assert t.shape == (3,) and np.all((t >= 0) & (t <= 1))
  # following the velocity ends at the data
  np.testing.assert_allclose(x + (1 - column(t)) * target, DATA, rtol=1e-5, atol=1e-5)
  # and going back at the noise
  np.testing.assert_allclose(x - column(t) * target, DATA - target, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  "model",
  [diffusion.Flow(time=time) for time in diffusion.TIMES]
  + [diffusion.DDPM(num_train_timesteps=1000, prediction="epsilon")],
)
def test_noise_does_not_depend_on_the_time(model):
  """Of 4,000 examples of one number, their ranks in time and in noise."""
  x = jnp.zeros((4000, 1))
  found = model.add_noise(KEY, x)
  noise = -found.target if isinstance(model, diffusion.Flow) else found.target  # of data that are 0
  ranks = [np.argsort(np.argsort(np.asarray(values).ravel())) for values in (found.time, noise)]
  assert abs(np.corrcoef(*ranks)[0, 1]) < 0.06


def test_times_have_the_distributions_they_say():
  """The share of times below some values, against the distribution functions."""
  values = np.array([0.05, 0.2, 0.5, 0.8, 0.95])
  normal = statistics.NormalDist()
  below = {
    "uniform": values,
    # t = 0.999 (1 - b), and Beta(1.5, 1) has b ** 1.5
    "beta": 1 - (1 - values / 0.999) ** 1.5,
    "logit_normal": [normal.cdf(math.log(value / (1 - value))) for value in values],
  }
  for name in diffusion.TIMES:
    times = np.asarray(diffusion.Flow(time=name).times(KEY, 20_000))
    # 3.4 deviations
    np.testing.assert_allclose(
      (times[:, None] < values).mean(0), below[name], atol=0.012, err_msg=name
    )


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_euler_is_exact_on_straight_lines(steps):
  flow = diffusion.Flow()
  out = flow.sample(jnp.asarray(NOISE), lambda x, t: jnp.asarray(DATA - NOISE), KEY, steps)
  np.testing.assert_allclose(out, DATA, rtol=1e-5, atol=1e-5)


def test_euler_solves_a_linear_field_as_a_loop_does():
  matrix = np.array([[0.3, -1.0], [0.7, 0.2]], np.float32)
  x = NOISE
  for i in range(5):
    x = x + (x @ matrix + i / 5) / 5
  out = diffusion.Flow().sample(
    jnp.asarray(NOISE), lambda x, t: x @ matrix + t[:, None, None], KEY, 5
  )
  np.testing.assert_allclose(out, x, rtol=1e-5, atol=1e-5)


def field(x, t):
  return 0.4 * np.tanh(np.asarray(x)) + t


def reference(model, steps):
  """Deterministic DDIM with the noise estimate, clipped data and evenly spaced levels."""
  levels = model.num_train_timesteps
  if model.schedule == "cosine":

    def f(u):
      return np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2

    betas = [min(1 - f((i + 1) / levels) / f(i / levels), 0.999) for i in range(levels)]
  else:
    betas = np.linspace(1e-4 * 1000 / levels, 0.02 * 1000 / levels, levels)
  signal, product = [], 1.0
  for beta in betas:
    product *= 1 - beta
    signal.append(product)
  x, chosen = (
    NOISE.astype(np.float64),
    [round(levels - i * levels / steps) - 1 for i in range(steps)],
  )
  for i, k in enumerate(chosen):
    a, b = signal[k], signal[chosen[i + 1]] if i + 1 < steps else 1.0
    predicted = field(x, 1 - (k + 1) / levels)
    if model.prediction == "epsilon":
      data = (x - np.sqrt(1 - a) * predicted) / np.sqrt(a)
    elif model.prediction == "v":
      data = np.sqrt(a) * x - np.sqrt(1 - a) * predicted
    else:
      data = predicted
    data = np.clip(data, -model.clip, model.clip)
    x = np.sqrt(b) * data + np.sqrt(1 - b) * (x - np.sqrt(a) * data) / np.sqrt(1 - a)
  return x


@pytest.mark.parametrize(
  "prediction, schedule, steps",
  [("epsilon", "cosine", 4), ("v", "cosine", 50), ("sample", "linear", 10)],
)
def test_ddim_equals_the_reference_loop(prediction, schedule, steps):
  model = diffusion.DDPM(num_train_timesteps=50, schedule=schedule, prediction=prediction, clip=2.0)
  out = model.sample(
    jnp.asarray(NOISE), lambda x, t: 0.4 * jnp.tanh(x) + t[:, None, None], KEY, steps
  )
  np.testing.assert_allclose(out, reference(model, steps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", diffusion.PREDICTIONS)
def test_ddim_with_a_perfect_network_finds_the_data(prediction):
  model = diffusion.DDPM(num_train_timesteps=30, prediction=prediction, clip=0.0)
  signal = jnp.asarray(model.alphas_cumprod())

  def perfect(x, t):
    a = signal[jnp.round((1 - t) * 30).astype(int) - 1][:, None, None]
    epsilon = (x - jnp.sqrt(a) * DATA) / jnp.sqrt(1 - a)
    return {
      "epsilon": epsilon,
      "sample": jnp.asarray(DATA),
      "v": jnp.sqrt(a) * epsilon - jnp.sqrt(1 - a) * DATA,
    }[prediction]

  np.testing.assert_allclose(
    model.sample(jnp.asarray(NOISE), perfect, KEY, 10), DATA, rtol=1e-3, atol=1e-3
  )


def test_ancestral_step_has_the_posterior_of_ddpm():
  """Two steps of a two-level chain: mean and variance from Ho et al., equations 6 and 7, the last
  step without noise.
  """
  model = diffusion.DDPM(num_train_timesteps=2, prediction="sample", sampler="ddpm", clip=0.0)
  a1, a2 = model.alphas_cumprod().astype(np.float64)
  beta = 1 - a2 / a1
  mean = np.sqrt(a1) * beta / (1 - a2) * DATA + np.sqrt(1 - beta) * (1 - a1) / (1 - a2) * NOISE
  deviation = np.sqrt((1 - a1) / (1 - a2) * beta)
  fresh = np.asarray(jax.random.normal(jax.random.split(KEY, 2)[0], NOISE.shape))
  seen = []

  def predict(x, t):
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), x, ordered=True)
    return jnp.asarray(DATA)

  out = jax.block_until_ready(model.sample(jnp.asarray(NOISE), predict, KEY, 2))
  jax.effects_barrier()
  np.testing.assert_allclose(seen[1], mean + deviation * fresh, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(out, DATA, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", diffusion.PREDICTIONS)
def test_ddpm_targets_agree_with_how_they_are_read(prediction):
  model = diffusion.DDPM(num_train_timesteps=20, prediction=prediction)
  x, t, target = model.add_noise(KEY, jnp.asarray(DATA))
  a = jnp.asarray(model.alphas_cumprod())[jnp.round((1 - t) * 20).astype(int) - 1][:, None, None]
  np.testing.assert_allclose(model._data(x, target, a), DATA, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("schedule", diffusion.SCHEDULES)
def test_schedules_go_from_data_to_noise(schedule):
  signal = diffusion.DDPM(num_train_timesteps=100, schedule=schedule).alphas_cumprod()
  assert signal[0] > 0.99 and signal[-1] < 1e-3 and np.all(np.diff(signal) < 0)


def test_guidance_of_one_is_none():
  np.testing.assert_allclose(
    diffusion.classifier_free_guidance(DATA, NOISE, 1.0), DATA, rtol=1e-6, atol=1e-6
  )
  np.testing.assert_allclose(
    diffusion.classifier_free_guidance(DATA, NOISE, 3.0), 3 * DATA - 2 * NOISE, rtol=1e-5, atol=1e-5
  )


def test_more_steps_than_timesteps_are_refused():
  with pytest.raises(errors.UserError, match="steps 30"):
    diffusion.DDPM(num_train_timesteps=25).sample(jnp.asarray(NOISE), field, KEY, 30)


@pytest.mark.parametrize(
  "settings, message",
  [
    (
      dict(num_train_timesteps=1),
      "^w: num_train_timesteps 1 must be at least 2, clip 5.0 not negative$",
    ),
    (dict(num_train_timesteps=2), None),
    (dict(num_train_timesteps=20, schedule="linear"), "must be at least 21"),
    (dict(num_train_timesteps=21, schedule="linear"), None),
    (dict(clip=-1), "clip -1 not negative$"),
    (dict(clip=0), None),
    (dict(schedule="cos"), "^w.schedule"),
    (dict(prediction="x"), "^w.prediction"),
    (dict(sampler="x"), "^w.sampler"),
  ],
)
def test_settings_of_ddpm(settings, message):
  made = diffusion.DDPM(**settings)
  if message is None:
    made.check("w")
    signal = made.alphas_cumprod()
    assert np.isfinite(signal).all() and (signal > 0).all()
  else:
    with pytest.raises(errors.UserError, match=message):
      made.check("w")


@pytest.mark.parametrize(
  "settings, message",
  [
    (dict(time="bta"), "^w.time is 'bta'"),
    (dict(alpha=0), "^w.alpha 0 must be positive$"),
    (dict(cut=0), "^w.cut 0 must be positive, at most 1$"),
    (dict(cut=1.01), "^w.cut 1.01 must be positive, at most 1$"),
    (dict(cut=1), None),
    (dict(deviation=0), "^w.deviation 0 must be positive$"),
    (dict(alpha=9), None),
  ],
)
def test_settings_of_flows(settings, message):
  flow = diffusion.Flow(**settings)
  if message is None:
    flow.check("w")
  else:
    with pytest.raises(errors.UserError, match=message):
      flow.check("w")
