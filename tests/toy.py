"""A two-layer model with a frozen part and a masked loss: enough to test the training machine
without a vision model.
"""

import jax
import jax.numpy as jnp
import numpy as np

from como_jax.train import optimizer, rng, state

FROZEN = ("encoder/.*",)
WEIGHTS = {"error": 1.0, "size": 0.1}


def params(seed=0, width=64):
  a, b, c = jax.random.split(jax.random.key(seed), 3)
  return {
    "encoder": {"kernel": jax.random.normal(a, (8, width)) / 3},
    "head": {
      "kernel": jax.random.normal(b, (width, width)) / 8,
      "bias": jnp.zeros(width),
      "out": jax.random.normal(c, (width, 3)) / 8,
    },
  }


def loss(params, batch, key):
  """Masked squared error, and a second term with another count; the key drops half of the inputs,
  so it changes value and gradient.
  """
  kept = 2.0 * jax.random.bernoulli(key, 0.5, (1, batch["x"].shape[-1]))
  hidden = jnp.tanh((batch["x"] * kept) @ params["encoder"]["kernel"])
  hidden = jnp.tanh(hidden @ params["head"]["kernel"] + params["head"]["bias"][None])
  error = jnp.square(hidden @ params["head"]["out"] - batch["y"]).sum(-1)
  return {
    "error": ((error * batch["mask"]).sum(), batch["mask"].sum()),
    "size": (jnp.square(hidden).sum(), jnp.asarray(hidden.size, jnp.float32)),
  }


def steady(params, batch, key):
  """The loss of one and the same key: the parts of an accumulated batch have keys of their own, and
  noise cannot be overfitted.
  """
  del key
  return loss(params, batch, jax.random.key(2))


def batch(step, size=16):
  """The batch of a step; the step is the data position."""
  r = np.random.default_rng(step)
  x = r.normal(size=(size, 8)).astype(np.float32)
  mask = (r.uniform(size=size) > 0.3).astype(np.float32)
  return {"x": x, "y": np.sin(x[:, :3]), "mask": mask}


def batches(start):
  while True:
    yield batch(start)
    start += 1


def make_optimizer(steps=20, **changes):
  settings = dict(
    name="adam",
    learning_rate=1e-2,
    b1=0.9,
    b2=0.99,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=0.5,
    schedule="linear",
    floor=0.1,
    warmup_steps=0,
    warmup_start=0.0,
  )
  return optimizer.build(optimizer.Settings(**{**settings, **changes}), steps=steps)


def fresh(tx, *, ema=False, width=64):
  return state.create(params(width=width), tx, frozen=FROZEN, ema=ema)


def key(step=0):
  return rng.key(0, "loss", step)
