"""The Q-former: every input, its positions and its separator."""

import chex
import jax
import numpy as np
import pytest

from como_jax.models import pixels
from como_jax.models.motion import inputs
from tests.models import tiny
from tests.models.motion.forward import run


@pytest.mark.parametrize("variant", list(inputs.INPUTS))
def test_every_input_runs(variant):
  model, params = tiny.made(tiny.MOTION, **{"idm.inputs": variant})
  batch = tiny.batch_of(model.inputs_spec(1, 2, jittered=True))
  outputs = run(model, params, batch)
  chex.assert_tree_all_finite(outputs)
  frames, jittered = pixels.normalize(batch["frames"]), pixels.normalize(batch["jittered"])
  z = jax.jit(lambda first, second: model.encode(params, first, second).z)
  np.testing.assert_allclose(
    outputs["z_jittered"][:, 0], z(frames[:, 0], jittered[:, 0]), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    outputs["z_reversed"][:, 0], z(frames[:, 1], frames[:, 0]), rtol=1e-4, atol=1e-5
  )
  halves = inputs.INPUTS[variant].num_halves
  assert params["idm"]["qformer"]["position"].shape == (1, 3 + 5 * halves + (halves - 1), 24)
  assert ("separator" in params["idm"]["qformer"]) == (halves == 2)
