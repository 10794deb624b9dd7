"""Runs a motion model."""

import jax

KEY = jax.random.key(7)


def run(model, params, batch, key=KEY):
  return jax.jit(lambda params, batch, key: model.forward(params, batch, key=key))(
    params, batch, key
  )
