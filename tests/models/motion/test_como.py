"""The motion model: outputs, pairs, gradients, and the settings in which paper and released code
differ.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from jax.extend import core

from como_jax import errors, models, trees
from como_jax.models import pixels
from como_jax.models.backbones import mae_vit
from como_jax.models.motion import bottleneck, inputs
from tests.models import tiny
from tests.models.motion.forward import run

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def clip():
  """Model, initial parameters, a batch of two clips of three frames with jittered ones, and the
  outputs.
  """
  model, params = tiny.initialized(tiny.MOTION)
  batch = tiny.batch_of(model.inputs_spec(2, 3, jittered=True))
  return model, params, batch, run(model, params, batch)


def test_shapes_and_dtypes(clip):
  model, _, _, outputs = clip
  image, z = (2, 2, 16, 16, 3), (2, 2, 12)
  assert {name: value.shape for name, value in outputs.items()} == {
    "pixels": image,
    "target": image,
    "current": image,
    "z": z,
    "z_reversed": z,
    "z_jittered": z,
  }
  assert {value.dtype for value in outputs.values()} == {jnp.dtype("float32")}
  chex.assert_tree_all_finite(outputs)
  assert model.latent.size == 12


def test_another_size_in_bfloat16():
  changes = {
    "dtype": "bfloat16",
    "image_size": 32,
    "idm.num_queries": 2,
    "bottleneck.latent_dim": 8,
    "fdm.output": "residual",
  }
  model, params = tiny.made(tiny.MOTION, **changes)
  params = {
    **params,
    "fdm": {**params["fdm"], "head": jax.tree.map(jnp.zeros_like, params["fdm"]["head"])},
  }
  outputs = run(model, params, tiny.batch_of(model.inputs_spec(2)))
  assert outputs["z"].shape == (2, 1, 16) and outputs["pixels"].shape == (2, 1, 32, 32, 3)
  assert {value.dtype for value in outputs.values()} == {jnp.dtype("float32")}
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  # no rounding to bfloat16
  np.testing.assert_allclose(outputs["pixels"], outputs["current"], rtol=1e-5, atol=1e-6)


def test_jit_equals_eager(clip):
  model, params, batch, outputs = clip
  chex.assert_trees_all_close(model.forward(params, batch, key=KEY), outputs, rtol=1e-4, atol=1e-5)


def test_pairs_are_what_encode_and_decode_say(clip):
  model, params, batch, outputs = clip
  frames, jittered = pixels.normalize(batch["frames"]), pixels.normalize(batch["jittered"])
  encode = jax.jit(lambda first, second: model.encode(params, first, second).z)
  for i in range(2):
    first, second = frames[:, i], frames[:, i + 1]
    pairs = {
      "z": (first, second),
      "z_reversed": (second, first),
      "z_jittered": (first, jittered[:, i]),
    }
    for name, pair in pairs.items():
      np.testing.assert_allclose(outputs[name][:, i], encode(*pair), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["current"][:, i], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs["target"][:, i], second, rtol=1e-5, atol=1e-6)
  decoded = jax.jit(lambda first, z: model.decode(params, first, z)["pixels"])(
    frames[:, 0], outputs["z"][:, 0]
  )
  np.testing.assert_allclose(decoded, outputs["pixels"][:, 0], rtol=1e-4, atol=1e-5)


def test_given_features_are_used(clip):
  model, params, batch, outputs = clip
  frames = pixels.normalize(batch["frames"])
  tokens = jax.jit(model.encode_frames)(params, frames)
  without_encoder = {"idm": params["idm"], "fdm": params["fdm"]}

  def encode(params, pair):
    return model.encode(params, frames[:, 0], frames[:, 1], tokens=pair).z

  z = jax.jit(encode)(without_encoder, (tokens[:, 0], tokens[:, 1]))
  np.testing.assert_allclose(z, outputs["z"][:, 0], rtol=1e-4, atol=1e-5)


def test_tokens_in_a_batch_take_the_place_of_the_encoder(clip):
  model, params, batch, outputs = clip
  without_encoder = {"idm": params["idm"], "fdm": params["fdm"]}
  tokens = {
    name: jax.jit(model.encode_images)(params, batch[images])
    for name, images in (("frame_tokens", "frames"), ("jittered_tokens", "jittered"))
  }
  found = run(model, without_encoder, {"frames": batch["frames"], **tokens})
  chex.assert_trees_all_close(found, outputs, rtol=1e-4, atol=1e-5)
  half = run(
    model,
    without_encoder,
    {"frames": batch["frames"], "frame_tokens": tokens["frame_tokens"].astype(jnp.float16)},
  )
  assert set(found) - set(half) == {"z_reversed", "z_jittered"} and half["z"].dtype == jnp.float32
  np.testing.assert_allclose(half["z"], outputs["z"], atol=2e-3)


@pytest.mark.parametrize(
  "variant, images", [("feature_diff", 5), ("none", 5), ("future", 5), ("rgb_diff", 9)]
)
def test_encoder_runs_once_a_frame(variant, images):
  """Three frames and two jittered ones are five images; rgb_diff must also encode two differences a
  branch.
  """
  model = models.build(tiny.section(tiny.MOTION, **{"idm.inputs": variant}))
  seen = []

  def count(call, args, kwargs, context):
    if isinstance(context.module, mae_vit.Encoder) and context.method_name == "__call__":
      seen.append(args[0].shape[0])
    return call(*args, **kwargs)

  params = jax.eval_shape(model.init, KEY)
  spec = model.inputs_spec(2, 3, jittered=True)
  with nn.intercept_methods(count):
    jax.eval_shape(lambda params, batch: model.forward(params, batch, key=KEY), params, spec)
  assert seen == [2 * images]


def test_no_backward_pass_of_a_frozen_encoder(clip):
  model, params, batch, _ = clip

  def scans(jaxpr):
    found = 0
    for equation in jaxpr.eqns:
      found += equation.primitive.name == "scan"
      found += sum(scans(inner) for inner in core.jaxprs_in_params(equation.params))
    return found

  def gradient(trained):
    rest = {name: value for name, value in params.items() if name not in trained}
    fn = jax.grad(
      lambda some: jnp.sum(model.forward({**rest, **some}, batch, key=KEY)["pixels"] ** 2)
    )
    return scans(jax.make_jaxpr(fn)({name: params[name] for name in trained}).jaxpr)

  # One scan forwards for each of encoder, Q-former and FDM; one backwards for each that is trained.
  assert gradient(("idm", "fdm")) == 5
  assert gradient(("encoder", "idm", "fdm")) == 6


def test_frozen_patterns(clip):
  model, params, *_ = clip
  frozen = [name for name, hit in trees.flatten(trees.mask(params, model.frozen)).items() if hit]
  assert frozen and all(name.startswith("encoder/") for name in frozen)
  assert len(frozen) == len(trees.flatten(params["encoder"]))


def test_identical_frames_differ_by_exactly_zero(clip):
  model, params, batch, _ = clip
  frames = pixels.normalize(batch["frames"])
  tokens = jax.jit(model.encode_frames)(params, jnp.stack([frames[:, 0], frames[:, 0]], axis=1))
  _, difference = inputs.INPUTS["feature_diff"].make_halves(tokens[:, 0], tokens[:, 1])
  np.testing.assert_array_equal(difference, 0)
  keys = jax.random.split(KEY)
  # the released order: unaligned patches
  shuffled = [inputs.shuffle_patches(key, tokens[:, 0]) for key in keys]
  assert np.abs(shuffled[1] - shuffled[0])[:, 1:].max() > 0.1
  np.testing.assert_array_equal(shuffled[1][:, 0], shuffled[0][:, 0])


def test_patch_order(clip):
  _, params, batch, raster = clip
  model = models.build(tiny.section(tiny.MOTION, **{"idm.patch_order": "shuffled"}))
  one, same, other = (run(model, params, batch, key)["z"] for key in (KEY, KEY, jax.random.key(8)))
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - other).max() > 1e-3 and np.abs(one - raster["z"]).max() > 1e-3
  np.testing.assert_array_equal(run(clip[0], params, batch, jax.random.key(8))["z"], raster["z"])
  frames = pixels.normalize(batch["frames"])
  label = jax.jit(lambda: model.encode(params, frames[:, 0], frames[:, 1]).z)
  np.testing.assert_array_equal(label(), label())  # without a key one fixed permutation


def test_token_types(clip):
  _, params, batch, legacy = clip
  gradients = {}
  for kind in ("legacy", "distinct"):
    model = models.build(tiny.section(tiny.MOTION, **{"idm.token_types": kind}))

    def total(qformer, model=model):
      changed = {**params, "idm": {**params["idm"], "qformer": qformer}}
      z = model.forward(changed, batch, key=KEY)["z"]
      return jnp.sum(z**2), z

    gradient, z = jax.jit(jax.grad(total, has_aux=True))(params["idm"]["qformer"])
    gradients[kind] = np.abs(gradient["token_type"]).max(axis=1), z
  np.testing.assert_array_equal(gradients["legacy"][0][1], 0)
  assert gradients["distinct"][0][1] > 0 and gradients["legacy"][0][0] > 0
  np.testing.assert_allclose(gradients["legacy"][1], legacy["z"], rtol=1e-4, atol=1e-5)
  assert np.abs(gradients["distinct"][1] - legacy["z"]).max() > 1e-4


@pytest.mark.parametrize("setting", ["all", "released"])
def test_tcl_gradient(clip, setting):
  """As released, the extra branches train the down-projection and nothing else; values are the same
  either way.
  """
  _, params, batch, outputs = clip
  model = models.build(tiny.section(tiny.MOTION, tcl_gradient=setting))

  def branches(idm):
    out = model.forward({**params, "idm": idm}, batch, key=KEY)
    return jnp.sum(out["z_reversed"] ** 2) + jnp.sum(out["z_jittered"] ** 3), out

  def forward(idm):
    return jnp.sum(model.forward({**params, "idm": idm}, batch, key=KEY)["z"] ** 2)

  both = jax.jit(lambda idm: (*jax.grad(branches, has_aux=True)(idm), jax.grad(forward)(idm)))
  gradient, out, main = both(params["idm"])
  chex.assert_trees_all_close(out, outputs, rtol=1e-4, atol=1e-5)
  size = {
    name: max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient[name]))
    for name in gradient
  }
  assert size["bottleneck"] > 0
  assert (size["qformer"] == 0) if setting == "released" else (size["qformer"] > 0)
  # the forward pair trains the Q-former in both
  assert np.abs(main["qformer"]["projection"]["kernel"]).max() > 0


@pytest.mark.parametrize("kind", list(bottleneck.BOTTLENECKS))
def test_every_bottleneck_runs(kind):
  model, params = tiny.made(tiny.MOTION, **{"bottleneck.kind": kind})
  outputs = run(model, params, tiny.batch_of(model.inputs_spec(2, 3, jittered=True)))
  chex.assert_tree_all_finite(outputs)
  extra = {
    name: value.shape
    for name, value in outputs.items()
    if name in ("codes", "codebook", "commitment", "kl")
  }
  vq = {"codes": (2, 2, 3), "codebook": (2, 2), "commitment": (2, 2)}
  assert extra == {"continuous": {}, "vq": vq, "pre_vq": vq, "kl": {"kl": (2, 2)}}[kind]
  assert outputs["z_jittered"].shape == (2, 2, 12)


def test_names_of_the_tree(clip):
  names = set(trees.flatten(clip[1]))
  expected = {
    "encoder": "patch/kernel cls position norm/scale",
    "fdm": "up_0/kernel up_1/bias pool/kernel patch/kernel position head/kernel",
    "idm/qformer": (
      "queries separator position token_type projection/kernel blocks/mlp/up/kernel norm/scale"
    ),
    "idm/bottleneck": "down_0/kernel down_1/bias",
  }
  for part, leaves in expected.items():
    assert {f"{part}/{leaf}" for leaf in leaves.split()} <= names


def test_config_dict_is_accepted():
  config = ml_collections.ConfigDict(tiny.MOTION)
  config.lock()
  assert models.build(config).latent.size == 12


@pytest.mark.parametrize(
  "key, value, text",
  [
    ("kind", "motoin", "motion"),
    ("idm.num_querys", 3, "num_queries"),
    ("idm.inputs", "feature_dif", "feature_diff"),
    ("idm.token_types", "lagacy", "legacy"),
    ("idm.patch_order", "rastr", "raster"),
    ("bottleneck.kind", "vqq", "vq"),
    ("bottleneck.num_codes", 8, "model.bottleneck.num_codes"),
    ("fdm.output", "residul", "residual"),
    ("tcl_gradient", "al", "all"),
    ("fdm.condition", "ad", "add"),
    ("fdm.features", "non", "none"),
    ("encoder.kind", "mae_vitt", "mae_vit"),
    ("encoder.size", "L16", "L/16"),
    ("dtype", "bfloat", "bfloat16"),
    ("remat", "ful", "full"),
    ("attention_kernel", "fusde", "fused"),
    ("tcl", 1, "tcl_gradient"),
    ("image_size", 17, "17"),
    ("idm.initializer", "vti", "vit"),
    ("idm.width", 25, "25"),
  ],
)
def test_misspelled_settings_are_named(key, value, text):
  with pytest.raises(errors.UserError, match=text):
    model = models.build(tiny.section(tiny.MOTION, **{key: value}))
    jax.eval_shape(model.init, KEY)


def test_missing_keys_are_named():
  config = tiny.section(tiny.MOTION)
  del config["idm"]["num_queries"]
  with pytest.raises(errors.UserError, match="model.idm.num_queries"):
    models.build(config)
  with pytest.raises(errors.UserError, match="model.kind"):
    models.build({})


def test_faster_layers_compute_the_same(clip):
  model, params, batch, outputs = clip
  for changes in ({"token_multiple": 8}, {"fused_qkv": True}, {"remat": "dots_attention"}):
    other = models.build(tiny.section(tiny.MOTION, **changes))
    chex.assert_trees_all_close(run(other, params, batch), outputs, rtol=1e-4, atol=1e-6)
    assert str(jax.make_jaxpr(lambda b, m=other: m.forward(params, b, key=KEY))(batch)) != str(
      jax.make_jaxpr(lambda b: model.forward(params, b, key=KEY))(batch)
    ) or changes.get("remat")
