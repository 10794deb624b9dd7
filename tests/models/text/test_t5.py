"""T5: buckets of distances, parity with transformers."""

import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models.text import t5
from tests.models.text import tiny
from tests.models.text.parity import apply, batch, compare, reference


def test_buckets_of_distances():
  """Of 32 as in published T5: 8 single distances to either side, then 8 that grow to 128."""
  distance = np.array(
    [-200, -128, -127, -20, -12, -11, -9, -8, -7, -1, 0, 1, 7, 8, 11, 12, 127, 128, 500]
  )
  with np.errstate(all="raise"):
    found = t5.bucket(distance, buckets=32, max_distance=128)
  assert found.tolist() == [15, 15, 15, 10, 9, 8, 8, 8, 7, 1, 0, 17, 23, 24, 24, 25, 31, 31, 31]


def test_bfloat16_t5_keeps_large_residuals():
  """Activations of published T5 reach 1e4 and more; small updates beside them must not be rounded
  away.
  """
  params, (ids, mask) = tiny.params("t5"), batch("t5")
  params["token"] = params["token"] * 1e4
  expected, _ = apply("t5", tiny.sizes("t5"), params, ids, mask)
  found, _ = apply("t5", tiny.sizes("t5"), params, ids, mask, jnp.bfloat16)
  np.testing.assert_allclose(np.asarray(found)[mask], np.asarray(expected)[mask], atol=0.02)


@pytest.mark.reference
@pytest.mark.parametrize(
  "name, projection", [("T5EncoderModel", "gated-gelu"), ("T5ForConditionalGeneration", "relu")]
)
def test_t5_parity(tmp_path, name, projection):
  model = reference(name, {**tiny.CONFIGS["t5"], "feed_forward_proj": projection})
  ids, mask = batch("t5", length=19)
  if name != "T5EncoderModel":  # with a decoder: saved whole, compared by its encoder
    encoder, save = model.get_encoder(), model.save_pretrained
    encoder.save_pretrained, model = save, encoder
  compare(model, "t5", tmp_path, ids, mask)


@pytest.mark.reference
@pytest.mark.parametrize("buckets, farthest", [(32, 128), (32, 64), (8, 10), (16, 100)])
def test_t5_buckets(buckets, farthest):
  torch = pytest.importorskip("torch")
  from transformers.models.t5 import modeling_t5

  distance = np.arange(-600, 601)
  theirs = modeling_t5.T5Attention._relative_position_bucket(
    torch.tensor(distance), True, buckets, farthest
  )
  np.testing.assert_array_equal(
    t5.bucket(distance, buckets=buckets, max_distance=farthest), theirs.numpy()
  )
