"""The masked autoencoder and its encoder."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import trees
from como_jax.models import mae, pixels, specs
from tests.models import tiny

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def made():
  model, params = tiny.initialized(tiny.MAE)
  batch = tiny.batch_of(model.inputs_spec(3))
  forward = jax.jit(lambda params, batch: model.forward(params, batch, key=KEY))
  return model, params, batch, forward, forward(params, batch)


def test_shapes(made):
  model, _, _, _, outputs = made
  shapes = {name: value.shape for name, value in outputs.items()}
  assert shapes == {
    "patches": (3, 16, 192),
    "target": (3, 16, 192),
    "mask": (3, 16),
    "pixels": (3, 32, 32, 3),
  }
  chex.assert_tree_all_finite(outputs)
  np.testing.assert_array_equal(outputs["mask"].sum(axis=1), 12)
  assert model.num_visible == 4


def test_jit_equals_eager(made):
  model, params, batch, _, outputs = made
  chex.assert_trees_all_close(model.forward(params, batch, key=KEY), outputs, rtol=1e-5, atol=1e-5)


def test_hidden_patches_are_not_seen_and_visible_ones_are_kept(made):
  _, params, batch, forward, outputs = made
  hidden = pixels.unpatchify(jnp.broadcast_to(outputs["mask"][..., None], (3, 16, 192)), 8) > 0
  other = {"frames": jnp.where(hidden, 255 - batch["frames"], batch["frames"])}
  np.testing.assert_array_equal(forward(params, other)["patches"], outputs["patches"])
  frames = pixels.normalize(batch["frames"])
  np.testing.assert_allclose(
    jnp.where(hidden, 0, outputs["pixels"]), jnp.where(hidden, 0, frames), atol=1e-6
  )
  assert np.abs(jnp.where(hidden, outputs["pixels"] - frames, 0)).max() > 0.1


def test_target_is_normalized_per_patch(made):
  target = made[4]["target"]
  np.testing.assert_allclose(target.mean(axis=-1), 0, atol=1e-5)
  np.testing.assert_allclose(target.var(axis=-1, ddof=1), 1, rtol=1e-3)
  model, params = tiny.made(tiny.MAE, normalize_target=False)
  batch = made[2]
  outputs = jax.jit(lambda params: model.forward(params, batch, key=KEY))(params)
  frames = pixels.normalize(batch["frames"])
  np.testing.assert_allclose(pixels.unpatchify(outputs["target"], 8), frames, rtol=1e-5, atol=1e-6)


def test_mask_depends_on_the_key_and_the_frame():
  ids_keep, ids_restore, mask = mae.random_mask(KEY, 4, 16, 4)
  np.testing.assert_array_equal(
    jnp.sort(ids_restore, axis=1), jnp.broadcast_to(jnp.arange(16)[None], (4, 16))
  )
  np.testing.assert_array_equal(jnp.take_along_axis(mask, ids_keep, axis=1), 0)
  assert len({tuple(row) for row in np.asarray(mask)}) == 4
  assert np.any(mask != mae.random_mask(jax.random.key(8), 4, 16, 4)[2])


def test_keeping_all_patches_is_not_masking(made):
  model, params, *_ = made
  frames = tiny.frames((2, 32, 32))
  ids_keep = jnp.broadcast_to(jnp.arange(16)[None], (2, 16))
  encode = jax.jit(
    lambda frames, ids_keep: model.encoder.apply({"params": params["encoder"]}, frames, ids_keep)
  )
  np.testing.assert_allclose(
    encode(frames, ids_keep), model.encode_frames(params, frames), rtol=1e-5, atol=1e-5
  )
  # The order of the kept patches is the order of the tokens: positions go with the patch.
  reverse = encode(frames, ids_keep[:, ::-1])
  np.testing.assert_allclose(
    reverse[:, :0:-1], encode(frames, ids_keep)[:, 1:], rtol=1e-4, atol=1e-4
  )


def test_encoder_tree_is_that_of_the_motion_model(made):
  _, motion = tiny.made(tiny.MOTION, image_size=32)
  chex.assert_trees_all_equal_shapes_and_dtypes(made[1]["encoder"], motion["encoder"])


def test_frozen_patterns(made):
  model, params, *_ = made
  fixed = [name for name, hit in trees.flatten(trees.mask(params, model.frozen)).items() if hit]
  assert fixed == ["decoder/position", "encoder/position"]


def test_the_decoder_adds_positions_to_patches_in_their_places():
  """With blocks that add nothing, the head sees the tokens themselves: CLS, and patches brought
  back to their order.
  """
  stack = specs.StackConfig(width=16, depth=1, num_heads=2, mlp_dim=32, initializer="mae")
  decoder = mae.Decoder(stack, grid=2, patch=2)
  # two of four patches are hidden
  tokens, ids_restore = jax.random.normal(KEY, (1, 3, 8)), jnp.array([[2, 0, 3, 1]])
  params = decoder.init(KEY, tokens, ids_restore)["params"]
  still = {
    name: part
    if name in ("embed", "mask_token", "position", "norm", "head")
    else jax.tree.map(jnp.zeros_like, part)
    for name, part in params.items()
  }
  own = jax.tree.map(np.asarray, params)
  words = np.asarray(tokens)[0] @ own["embed"]["kernel"] + own["embed"]["bias"]
  blank = own["mask_token"][0, 0]
  x = np.stack([blank, words[1], blank, words[2]]) + own["position"].reshape(-1, 16)[1:]
  x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
  expected = x @ own["head"]["kernel"] + own["head"]["bias"]
  np.testing.assert_allclose(
    decoder.apply({"params": still}, tokens, ids_restore)[0], expected, atol=1e-4
  )
