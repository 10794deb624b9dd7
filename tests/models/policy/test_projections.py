"""Layers of one robot: each example gets those of its own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from como_jax import models
from como_jax.models.policy import projections
from tests.models.policy import small

KEY = jax.random.key(0)


def test_robots_keep_to_their_own():
  made = projections.EmbodimentProjections(
    {
      "one": {"decode": (2, 3)},
      "two": {"decode": (1, 2), "state": (1, 2)},
      "latent": {"decode": (1, 1)},
    }
  )
  params = {
    "one": {"decode": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}},
    "two": {
      "decode": {"kernel": jnp.full((1, 2), 10.0), "bias": jnp.ones(2)},
      "state": {"kernel": jnp.ones((1, 2)), "bias": jnp.zeros(2)},
    },
  }
  x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
  np.testing.assert_array_equal(
    made.apply(params, "decode", x, jnp.array([0, 1])), [[3, 3, 3], [31, 31, 0]]
  )
  np.testing.assert_array_equal(made.apply(params, "decode", x, "two"), [[11, 11], [31, 31]])
  np.testing.assert_array_equal(made.apply(params, "state", x, jnp.array([0, 1])), [[0, 0], [3, 3]])
  assert made.robots == ("one", "two")
  alike = projections.EmbodimentProjections(
    {name: {"encode": (2, 3), "decode": (2, 3)} for name in ("ab", "ba", "ac")}
  ).init(KEY)
  drawn = {
    np.asarray(alike[name][layer]["kernel"]).tobytes()
    for name in alike
    for layer in ("encode", "decode")
  }
  assert len(drawn) == 6


def test_a_head_starts_from_its_name_alone():
  robots = {"arm": {"action": 3, "state": 2}}
  both = models.build(small.DIT).action_head.projections.init(KEY)
  chex.assert_trees_all_equal(
    both["arm"],
    models.build({**small.DIT, "robots": robots}).action_head.projections.init(KEY)["arm"],
  )
