"""What a run keeps, and which of it is evaluated and exported."""

import jax
import numpy as np
import optax
import pytest

from como_jax.train import state
from tests import toy


def test_averaged_weights_start_as_a_copy_and_are_the_ones_to_evaluate():
  params = toy.params()
  now = state.create(params, optax.sgd(0.1), frozen=toy.FROZEN, ema=True)
  assert int(now.step) == 0 and set(now.ema) == {"head"} and now.params is params
  np.testing.assert_array_equal(now.ema["head"]["kernel"], params["head"]["kernel"])
  averaged = state.TrainState(
    step=now.step,
    params=now.params,
    opt_state=now.opt_state,
    ema=jax.tree.map(lambda x: x + 1, now.ema),
  )
  chosen = state.weights(averaged, frozen=toy.FROZEN)
  assert set(chosen) == set(params)
  for name, leaf in params["head"].items():
    np.testing.assert_array_equal(chosen["head"][name], leaf + 1)
  np.testing.assert_array_equal(chosen["encoder"]["kernel"], params["encoder"]["kernel"])


@pytest.mark.parametrize("ema", [True, False])
def test_frozen_parts_have_no_state(ema):
  now = state.create(toy.params(), optax.adam(0.1), frozen=toy.FROZEN, ema=ema)
  paths = [
    jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_leaves_with_path((now.opt_state, now.ema))
  ]
  assert any("head" in path for path in paths) and not any("encoder" in path for path in paths)
  assert (now.ema is None) == (not ema)
  if not ema:
    assert state.weights(now, frozen=toy.FROZEN) is now.params
