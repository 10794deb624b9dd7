"""The transformer of the autoregressive policy."""

import jax
import jax.numpy as jnp
import numpy as np

from como_jax.models.policy import network
from tests.models.policy import small

KEY = jax.random.key(5)


def test_jit_equals_eager():
  model, params = small.made(small.GPT)
  x, mask = jax.random.normal(KEY, (2, 3, 16)), jnp.tril(jnp.ones((1, 1, 3, 3), bool))

  def run(x):
    return model.action_head.network.apply({"params": params["gpt"]["network"]}, x, mask)[0]

  np.testing.assert_allclose(run(x), small.jit(run)(x), rtol=1e-5, atol=1e-5)


def test_tokens_one_by_one_give_what_all_of_them_give():
  """A cache that is written and then only read; its end is behind what was written."""
  model, params = small.made(small.GPT)
  body, own = model.action_head.network, params["gpt"]["network"]
  x, mask = jax.random.normal(KEY, (2, 3, 16)), jnp.tril(jnp.ones((1, 1, 3, 4), bool))

  @small.jit
  def both(params, x):
    cache, found = body.empty_cache(2, 4), []
    for i in range(3):
      token = x[:, i : i + 1], mask[:, :, i : i + 1]
      out, cache = network.extend(body, params, *token, i, cache)
      found.append(out)
    return (
      found,
      network.run(body, params, *token, cache),
      network.run(body, params, x, mask[..., :3]),
    )

  found, again, whole = both(own, x)
  np.testing.assert_allclose(jnp.concatenate(found, axis=1), whole, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(again, whole[:, 2:], rtol=1e-5, atol=1e-5)
