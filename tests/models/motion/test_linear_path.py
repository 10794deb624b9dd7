"""The linear path to z: by hand, at the start, for reversed and jittered pairs, and what it does
not go with.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, models, trees
from como_jax.models import pixels
from como_jax.models.motion import linear_path
from tests.models import tiny

ON = {"idm.components": 10}
KEY = jax.random.key(7)


def test_pooled_patches_are_means_of_squares_of_the_grid_without_cls():
  tokens = jnp.arange(2 * 17 * 3, dtype=jnp.float32).reshape(2, 17, 3)
  found = linear_path.pool_patches(tokens, 2)
  chex.assert_shape(found, (2, 4, 3))
  grid = np.asarray(tokens)[:, 1:].reshape(2, 4, 4, 3)
  np.testing.assert_allclose(
    found[:, 1], grid[:, :2, 2:].mean((1, 2)), rtol=1e-6
  )  # the second group lies to the right of the first
  np.testing.assert_allclose(linear_path.pool_patches(tokens, 1), tokens[:, 1:], rtol=0)


@pytest.mark.parametrize("pool, groups", [(1, 4), (2, 1)])
def test_z_starts_as_the_components(pool, groups):
  model, params = tiny.initialized(tiny.MOTION, **ON, **{"idm.components_pool": pool})
  kernel = params["idm"]["components"]["kernel"]
  chex.assert_shape(kernel, (groups, 32, 10))
  first, second = tiny.frames((3, 16, 16), 3), tiny.frames((3, 16, 16), 4)
  tokens = np.asarray(model.encode_frames(params, jnp.stack([first, second])))[:, :, 1:]
  difference = (
    (tokens[1] - tokens[0]) if pool == 1 else (tokens[1] - tokens[0]).mean(1, keepdims=True)
  )
  encode = jax.jit(lambda first, second: model.encode(params, first, second).z)
  z = encode(first, second)
  chex.assert_shape(z, (3, 12))
  expected = difference.reshape(3, -1) @ np.asarray(kernel).reshape(-1, 10) / groups
  np.testing.assert_allclose(z[:, :10], expected, rtol=1e-4, atol=1e-6)
  assert np.abs(expected).max() > 1e-3 and not z[:, 10:].any(), "the Q-former adds nothing yet"
  np.testing.assert_allclose(encode(second, first), -z, rtol=1e-4, atol=1e-6)
  # up to rounding: the two pictures lie in other places of the batch
  assert np.abs(encode(first, first)).max() < 1e-6 * np.abs(z).max()


def pairs_are_encoded(model, params, batch, outputs, **tolerances):
  """The z of a batch's first pairs are those of `encode`."""
  frames, jittered = pixels.normalize(batch["frames"]), pixels.normalize(batch["jittered"])
  encode = jax.jit(lambda first, second: model.encode(params, first, second).z)
  for name, pair in {
    "z": (frames[:, 0], frames[:, 1]),
    "z_reversed": (frames[:, 1], frames[:, 0]),
    "z_jittered": (frames[:, 0], jittered[:, 0]),
  }.items():
    np.testing.assert_allclose(outputs[name][:, 0], encode(*pair), **tolerances)


@pytest.mark.parametrize("kind", ["continuous", "kl"])
@pytest.mark.parametrize("gradient", ["all", "released"])
def test_pairs_of_a_clip_are_what_encode_says(kind, gradient):
  changes = {"bottleneck.kind": kind, "tcl_gradient": gradient, **ON}
  model, params = tiny.made(tiny.MOTION, **changes)  # no parameter is trivial: both paths speak
  batch = tiny.batch_of(model.inputs_spec(2, 3, jittered=True))
  outputs = jax.jit(lambda params, batch: model.forward(params, batch, key=KEY))(params, batch)
  frames = pixels.normalize(batch["frames"])
  pairs_are_encoded(model, params, batch, outputs, rtol=1e-4, atol=1e-5)
  off = {
    **params,
    "idm": {
      **params["idm"],
      "components": jax.tree.map(jnp.zeros_like, params["idm"]["components"]),
    },
  }
  linear = model.linear_path.apply(
    {"params": params["idm"]["components"]}, model.differences(params, frames[:, :2])
  )
  np.testing.assert_allclose(
    outputs["z"][:, 0] - model.encode(off, frames[:, 0], frames[:, 1]).z,
    linear.reshape(2, 12),
    rtol=1e-3,
    atol=1e-5,
  )


@pytest.mark.parametrize("gradient, trained", [("all", True), ("released", False)])
def test_who_trains_the_linear_path(gradient, trained):
  """Released: the jittered and reversed branches train the down-projection only."""
  model, params = tiny.made(tiny.MOTION, tcl_gradient=gradient, **ON, **{"idm.depth": 1})
  batch = tiny.batch_of(model.inputs_spec(1, 2, jittered=True))

  def squares(idm):
    outputs = model.forward({**params, "idm": idm}, batch, key=KEY)
    return jnp.stack([jnp.sum(outputs[name] ** 2) for name in ("z", "z_reversed", "z_jittered")])

  found = jax.jit(jax.jacrev(squares))(params["idm"])
  kernel, down = (
    np.asarray(leaf).reshape(3, -1).any(1)
    for leaf in (found["components"]["kernel"], found["bottleneck"]["down_1"]["kernel"])
  )
  assert kernel.tolist() == [True, trained, trained] and down.all()


def test_off_is_the_model_without_it():
  off, without = (
    models.build(tiny.section(tiny.MOTION, **changes))
    for changes in ({"idm.components": 0, "idm.components_pool": 3}, {})
  )
  shapes = [jax.eval_shape(model.init, KEY) for model in (off, without)]
  chex.assert_trees_all_equal(*shapes)
  assert off.linear_path is None and not [
    name for name in trees.flatten(shapes[0]) if "components" in name
  ]


@pytest.mark.parametrize(
  "changes, says",
  [
    ({"idm.components": 13}, r"model.idm.components=13, expected 0 \(off\) to 12"),
    ({"idm.components": -1}, "model.idm.components=-1"),
    (
      {**ON, "idm.components_pool": 3},
      "model.idm.components_pool=3 does not divide 2, the patches along a side: take one of 1, 2",
    ),
    (
      {**ON, "bottleneck.kind": "vq"},
      "model.idm.components=10 needs model.bottleneck.kind=continuous or kl, it is 'vq'",
    ),
    (
      {**ON, "idm.inputs": "rgb_diff"},
      "needs model.idm.inputs=feature_diff or none, it is 'rgb_diff'",
    ),
    ({**ON, "idm.patch_order": "shuffled"}, "needs model.idm.patch_order=raster, it is 'shuffled'"),
  ],
)
def test_what_it_does_not_go_with(changes, says):
  with pytest.raises(errors.UserError, match=says):
    models.build(tiny.section(tiny.MOTION, **changes))


def shifted(seed, right, down, size=64):
  """Two frames [1, H, W, 3], ImageNet-normalized, the second of which shows the first moved by so
  many pixels.
  """
  noise = jax.image.resize(
    jax.random.uniform(jax.random.key(seed), (16, 16, 3)), (size + 16, size + 16, 3), "cubic"
  )
  unit = jnp.clip(noise, 0, 1)
  first, second = unit[8:-8, 8:-8], unit[8 - down : size + 8 - down, 8 - right : size + 8 - right]
  return tuple(pixels.normalize(jnp.rint(255 * x[None]).astype(jnp.uint8)) for x in (first, second))


@pytest.mark.parametrize("right, down", [(3, -2), (0, 0)])
def test_flow_cells_are_the_shift_of_the_picture(right, down):
  found = jax.jit(linear_path.flow_cells, static_argnums=2)(*shifted(0, right, down), 16)
  chex.assert_shape(found, (1, 16, 2))
  np.testing.assert_allclose(np.median(found[0], axis=0), [right, down], atol=0.3)
  large = jax.jit(linear_path.flow_cells, static_argnums=2)(
    *(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) for x in shifted(0, right, down)), 16
  )
  # twice the pixels, the same share of the picture
  np.testing.assert_allclose(large, found, atol=1e-2)


def test_components_of_the_flow_read_pictures_and_not_tokens():
  model, params = tiny.made(tiny.MOTION, **ON, **{"idm.components_of": "flow"})
  batch = tiny.batch_of(model.inputs_spec(2, 3, jittered=True))
  outputs = jax.jit(lambda params, batch: model.forward(params, batch, key=KEY))(params, batch)
  frames = pixels.normalize(batch["frames"])
  pairs_are_encoded(model, params, batch, outputs, rtol=2e-3, atol=2e-4)
  still = model.linear_path.apply(
    {"params": params["idm"]["components"]},
    model.linear_path.differences(
      tuple(model.encode_frames(params, x) for x in (frames[:, 0], frames[:, 1])),
      (frames[:, 0], frames[:, 0]),
    ),
  )
  assert np.abs(still).max() < 1e-5, "equal pictures do not flow, whatever the tokens are"


def test_unknown_source_of_components():
  with pytest.raises(
    errors.UserError, match="model.idm.components_of='flows' is unknown: did you mean 'flow'"
  ):
    models.build(tiny.section(tiny.MOTION, **ON, **{"idm.components_of": "flows"}))


def test_pictures_of_any_size_are_shrunk_to_what_divides_or_refused():
  assert [
    linear_path.flow_downscale(*sizes)
    for sizes in ((64, 8), (128, 8), (224, 14), (16, 2), (256, 16), (30, 5))
  ] == [1, 2, 2, 1, 4, 0]
  section = tiny.section(tiny.MOTION, **ON, **{"idm.components_of": "flow"})
  chex.assert_shape(linear_path.flow_cells(*(jnp.zeros((1, 224, 224, 3)),) * 2, 196), (1, 196, 2))
  section["image_size"] = 24  # 3 x 3 patches: cells of 8 pixels
  assert models.build(section).linear_path.groups == 9
  path = models.build(section).linear_path.clone(num_patches=25)
  with pytest.raises(errors.UserError, match="pictures of 30 px do not divide into 5 x 5 cells"):
    linear_path.check(path, section["idm"], "continuous", 30)


def test_a_model_without_the_path_has_no_inputs_of_it():
  model, params = tiny.made(tiny.MOTION)
  with pytest.raises(ValueError, match="^the model has no linear path"):
    model.differences(params, tiny.frames((1, 2, 16, 16)))
