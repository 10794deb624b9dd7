"""The image encoder: sizes, dtypes, shapes of frames, positions of another image size."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, models, trees
from como_jax.models import embed
from como_jax.models.backbones import mae_vit
from tests.models import tiny
from tests.models.refusals import refused, shape

KEY = jax.random.key(0)


@pytest.mark.parametrize("dtype, image_size", [("float32", 16), ("bfloat16", 32)])
def test_sizes_and_dtypes(dtype, image_size):
  model, params = tiny.made(tiny.MAE, dtype=dtype, image_size=image_size)
  tokens = jax.jit(model.encode_frames)(params, tiny.frames((2, image_size, image_size)))
  assert tokens.shape == (2, (image_size // 8) ** 2 + 1, 32) and tokens.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_frames_of_an_encoder():
  model, params = tiny.made(tiny.MAE)

  def encode(frames, keep):
    return model.encoder.apply({"params": params["encoder"]}, frames, keep)

  assert jax.eval_shape(encode, shape(2, 32, 32, 3), shape(2, 4, dtype=jnp.int32)).shape == (
    2,
    5,
    32,
  )
  refused(encode, shape(2, 32, 24, 3), shape(2, 4, dtype=jnp.int32))
  refused(encode, shape(2, 32, 32, 3), shape(1, 4, dtype=jnp.int32))
  refused(
    lambda frames: model.forward(params, {"frames": frames}, key=KEY),
    shape(2, 24, 24, 3, dtype=jnp.uint8),
  )


def test_positions_for_another_image_size():
  _, params = tiny.made(tiny.MAE)
  other = mae_vit.refit_positions(params["encoder"], 16)
  np.testing.assert_array_equal(other["position"], embed.sincos_2d(32, 2, cls=True))
  model, own = tiny.made(tiny.MAE, image_size=16)
  chex.assert_trees_all_equal_shapes(other, own["encoder"])
  spec = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
  assert jax.eval_shape(model.encode_frames, {"encoder": other}, spec).shape == (1, 5, 32)
  assert mae_vit.refit_positions(params["encoder"], 32)["position"] is params["encoder"]["position"]
  with pytest.raises(errors.UserError, match="patch 8"):
    mae_vit.refit_positions(params["encoder"], 20)


def test_weights_kept_in_the_dtype_of_their_products_change_no_token():
  settings = {"dtype": "bfloat16", "encoder.param_dtype": "bfloat16"}
  model, params = tiny.made(tiny.MOTION, dtype="bfloat16")
  half = models.build(tiny.section(tiny.MOTION, **settings))
  kept = mae_vit.stored(half.encoder, params["encoder"])
  frames = tiny.frames((2, 16, 16))
  np.testing.assert_array_equal(
    jax.jit(half.encode_frames)({"encoder": kept}, frames),
    jax.jit(model.encode_frames)(params, frames),
  )
  dtypes = {name: str(leaf.dtype) for name, leaf in trees.flatten(kept).items()}
  assert {name for name, dtype in dtypes.items() if dtype == "float32"} == {
    "cls",
    "position",
    "norm/scale",
    "norm/bias",
    *(f"blocks/norm_{part}/{leaf}" for part in ("attention", "mlp") for leaf in ("scale", "bias")),
  }
  assert set(dtypes.values()) == {"float32", "bfloat16"}
  # what a run starts from is cast when it is loaded
  assert jax.tree.map(lambda x: x.dtype, jax.eval_shape(half.init, KEY)["encoder"]) == jax.tree.map(
    lambda x: x.dtype, kept
  )
  others = jax.eval_shape(half.init, KEY)
  assert {leaf.dtype for leaf in jax.tree.leaves((others["idm"], others["fdm"]))} == {
    jnp.dtype("float32")
  }
