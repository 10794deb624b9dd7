"""A few hundred steps on four examples: sampled chunks reach the targets, for every objective."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from como_jax import models, trees
from tests.models.policy import small

DDPM = {"num_train_timesteps": 50, "prediction": "v", "sampler": "ddim"}
CASES = {
  "dit-flow": (small.DIT, {"dit.num_sampling_steps": 10}, 600, 0.1),
  "dit-ddpm": (
    small.DIT,
    {"dit.objective": "ddpm", "dit.ddpm": DDPM, "dit.num_sampling_steps": 10},
    600,
    0.1,
  ),
  "gpt": (small.GPT, {"gpt.inference": "decoded"}, 300, 0.01),
}


@pytest.mark.parametrize("name", CASES)
def test_samples_reach_the_targets(name):
  base, changes, steps, bound = CASES[name]
  changes = {
    "history": 1,
    "num_cameras": 1,
    "robots": {"arm": {"action": 3, "state": 2}},
    **changes,
  }
  model = models.build(small.section(base, **changes))
  params = small.made(base, **changes)[1]
  batch = small.batch(model)
  batch |= {
    "robot": jnp.zeros((4,), jnp.int32),
    "state_mask": jnp.ones((4,), bool),
    "latents_mask": jnp.ones((4, 2), bool),
    "actions_mask": jnp.ones((4, 4, 3), bool),
  }
  optimizer = optax.adam(optax.cosine_decay_schedule(4e-3, steps))
  trainable, fixed = trees.split(params, model.frozen)

  def loss(trainable, key):
    terms = model.losses(trees.join(trainable, fixed), batch, key)
    return sum(total / count for total, count in terms.values())

  def step(state, key):
    trainable, moments = state
    value, gradient = jax.value_and_grad(loss)(trainable, key)
    updates, moments = optimizer.update(gradient, moments)
    return (optax.apply_updates(trainable, updates), moments), value

  @small.jit
  def train(trainable, key):
    keys = jax.random.split(key, steps)
    (trainable, _), values = jax.lax.scan(step, (trainable, optimizer.init(trainable)), keys)
    params = trees.join(trainable, fixed)
    return (
      values,
      model.sample(params, batch, key, robot="arm"),
      model.sample_latents(params, batch, key),
    )

  values, actions, latents = train(trainable, jax.random.key(0))
  errors = [
    float(np.square(a - b).mean())
    for a, b in ((actions, batch["actions"]), (latents, batch["latents"]))
  ]
  assert max(errors) < bound, (errors, values[::50])
