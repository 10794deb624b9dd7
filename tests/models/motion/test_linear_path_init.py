"""Where the linear path starts: principal components of training pairs, measured once, in the
weights.
"""

import chex
import jax
import numpy as np
import pytest

from como_jax.models import pixels
from como_jax.models.motion import linear_path_init
from tests.assembly.test_motion_data import text_of
from tests.models import tiny


def test_principal_components_have_unit_mean_square_and_are_those_of_the_largest_variance():
  rng = np.random.default_rng(0)
  directions = np.linalg.qr(rng.normal(size=(40, 40)))[0]
  rows = (rng.normal(size=(300, 40)) * 2.0 ** -np.arange(40).clip(0, 6) @ directions.T).astype(
    np.float32
  )
  found = linear_path_init.principal_directions(rows, 4)
  chex.assert_shape(found, (40, 4))
  z = rows @ found
  np.testing.assert_allclose(z.T @ z / 300, np.eye(4), atol=2e-3)
  _, sizes, right = np.linalg.svd(rows, full_matrices=False)
  np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.sqrt(300) / sizes[:4], rtol=1e-3)
  np.testing.assert_allclose(
    np.abs(np.sum(found / np.linalg.norm(found, axis=0) * right[:4].T, axis=0)), 1, rtol=1e-4
  )
  largest = np.abs(found).argmax(0)
  assert (found[largest, np.arange(4)] > 0).all()
  np.testing.assert_array_equal(found, linear_path_init.principal_directions(-rows, 4))


def test_too_few_differences_are_refused():
  rows = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
  expected = (
    "config.model.idm.components={}: the first {} training pairs have only {} independent "
    "differences: take {} at most"
  )
  assert text_of(lambda: linear_path_init.principal_directions(rows, 7)) == expected.format(
    7, 6, 6, 6
  )
  assert text_of(
    lambda: linear_path_init.principal_directions(np.concatenate([rows[:2]] * 3), 3)
  ) == expected.format(3, 6, 2, 2)
  for bad in (np.zeros_like(rows), np.full_like(rows, np.nan)):
    assert (
      "the first 6 training pairs do not differ or are not finite: check config.encoder_weights"
      in text_of(lambda bad=bad: linear_path_init.principal_directions(bad, 2))
    )


@pytest.mark.parametrize("pool", [1, 2])
def test_z_of_the_pairs_that_were_looked_at_is_white(pool, capsys):
  model, params = tiny.initialized(
    tiny.MOTION, **{"idm.components": 5, "idm.components_pool": pool}
  )
  batches = [tiny.batch_of(model.inputs_spec(4, 3), seed=seed) for seed in range(6)]
  left = iter(batches)
  parts = linear_path_init.init_from_pairs(model, {"encoder": params["encoder"]}, left, pairs=38)
  assert len(list(left)) == 1, "five batches of eight pairs are enough"
  assert (
    "5 numbers of z start as principal components of the feature difference of 38 training pairs"
    in capsys.readouterr().out
  )
  kernel = parts["idm"]["components"]["kernel"]
  assert kernel.shape == params["idm"]["components"]["kernel"].shape
  ready = {**params, "idm": {**params["idm"], **parts["idm"]}}
  frames = pixels.normalize(np.concatenate([batch["frames"] for batch in batches[:5]]))
  encode = jax.jit(lambda first, second: model.encode(ready, first, second).z)
  z = np.stack([encode(frames[:, i], frames[:, i + 1]) for i in (0, 1)], axis=1).reshape(-1, 12)[
    :38, :5
  ]
  np.testing.assert_allclose(z.T @ z / 38, np.eye(5), atol=5e-3)
