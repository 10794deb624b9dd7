"""Keys: what they depend on, and that they are what older runs drew from."""

import itertools

import jax
import numpy as np

from como_jax.train import rng

PINNED = [1594317749, 3191498846]


def numbers(seed, stream, step=0):
  return jax.random.key_data(rng.key(seed, stream, step)).tolist()


def test_seed_stream_and_step_each_give_another_key():
  places = list(itertools.product((0, 1), ("loss", "init"), (0, 1)))
  assert len({tuple(numbers(*place)) for place in places}) == len(places)


def test_a_key_is_the_same_in_every_run_and_inside_a_compiled_step():
  # Pinned: a run that goes on with another version must draw what it would have drawn.
  assert numbers(3, "loss", 7) == PINNED
  assert (
    numbers(3, "loss", np.int32(7))
    == jax.random.key_data(jax.jit(lambda step: rng.key(3, "loss", step))(7)).tolist()
    == PINNED
  )
