"""Refusals at their limits and small functions of models, with numbers by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, models
from como_jax.models import attention, config_utils, pixels, sizes, transformer
from como_jax.models.policy import blocks, diffusion, outputs, projections, trunk
from como_jax.models.text import bert, layers, t5
from tests.models import tiny
from tests.models.policy import small

KEY = jax.random.key(0)
DDPM = {"dit.objective": "ddpm", "dit.ddpm": {"num_train_timesteps": 10}}


@pytest.mark.parametrize(
  "base, changes, message",
  [
    (tiny.MAE, {"mask_ratio": 1.0}, "^model.mask_ratio 1.0 must be at least 0 and below 1$"),
    (tiny.MAE, {"mask_ratio": -0.1}, "^model.mask_ratio -0.1"),
    (tiny.MAE, {"mask_ratio": 0.0}, None),
    (tiny.MAE, {"mask_ratio": 0.99}, None),
    (
      tiny.MAE,
      {"decoder.width": 18},
      r"^model.decoder.width 18 must be a multiple of 4 \(sin-cos positions\)$",
    ),
    (tiny.MAE, {"decoder.width": 12}, None),
    (
      tiny.MAE,
      {"attention_kernel": "fuzed"},
      "^model.attention_kernel is 'fuzed'; did you mean 'fused'",
    ),
    (tiny.MAE, {"attention_kernel": "xla"}, None),
    (tiny.MAE, {"dtype": "float16"}, "^model.dtype is 'float16'; did you mean 'bfloat16'"),
    (tiny.MAE, {"remat": "al"}, "^model.remat is 'al'"),
    (tiny.MAE, {"image_size": 36}, "^image_size 36 is not a multiple of the encoder's patch 8$"),
    (tiny.MAE, {"bottleneck": {}}, "^unknown key model.bottleneck"),
    (tiny.MOTION, {"tcl_gradient": "some"}, "^model.tcl_gradient is 'some'"),
    (tiny.MOTION, {"tcl_gradient": "released"}, None),
    (tiny.MOTION, {"encoder": {"kind": "mae_vit"}}, "^missing key model.encoder.size$"),
    (tiny.MOTION, {"bottleneck": {"kind": "vq"}}, "^missing key model.bottleneck.latent_dim$"),
    (
      tiny.MOTION,
      {"bottleneck.num_codes": 3},
      "^unknown key model.bottleneck.num_codes; .*for another kind give the section whole: ",
    ),
    (tiny.MOTION, {"encoder.kind": "vit"}, "^model.encoder.kind is 'vit'"),
    (tiny.MOTION, {"kind": "motoin"}, "^model.kind is 'motoin'; did you mean 'motion'"),
    (tiny.MOTION, {"bottleneck.initializer": "mae"}, None),
    (tiny.MOTION, {"attention_kernel": "fused"}, None),
    *(
      (tiny.MOTION, {f"{part}.{name}": "other"}, f"^model.{part}.{name} is 'other'")
      for part, names in (
        ("fdm", ("output", "condition", "features", "initializer")),
        ("idm", ("inputs", "token_types", "patch_order", "initializer")),
      )
      for name in names
    ),
    (small.DIT, {"pool": 0}, "^model.pool 0 does not divide the 2 patches"),
    (small.DIT, {"pool": 1}, None),
    (small.DIT, {"trunk.num_heads": 16}, None),
    (small.DIT, {"history": 0}, "^model.history 0 must be at least 1$"),
    (small.DIT, {"num_cameras": 0}, "^model.num_cameras 0 must"),
    (small.DIT, {"num_cameras": 1}, None),
    (small.DIT, {"language.num_tokens": 0}, "^model.language.num_tokens 0 must"),
    (small.DIT, {"language.width": 0}, "^model.language.width 0 must"),
    (small.DIT, {"latent.num_queries": 0}, "^model.latent.num_queries 0 must"),
    (small.DIT, {"latent.motion_horizon": 0}, "^model.latent.motion_horizon 0 must"),
    (small.DIT, {"action_horizon": 1}, None),
    (small.DIT, {"latent.latent_dim": 1}, None),
    (
      small.DIT,
      {"language_dropout": -0.1},
      "^model.language_dropout -0.1 must be at least 0 and below 1$",
    ),
    (small.DIT, {"language_dropout": 0.99}, None),
    (small.DIT, {"trunk.initializer": "mea"}, "^model.trunk.initializer is 'mea'"),
    (small.DIT, {"dit.initializer": "mea"}, "^model.dit.initializer is 'mea'"),
    (small.DIT, {"dit.num_heads": 5}, "^model.dit.width 24 is not a multiple of num_heads 5$"),
    (
      small.DIT,
      {"robots": {"a/b": {"action": 1, "state": 0}}},
      "^model.robots.a/b: a robot's name cannot be empty, contain '/' or be 'latent'$",
    ),
    (small.DIT, {"robots": {"": {"action": 1, "state": 0}}}, "^model.robots.: a robot's name"),
    (
      small.DIT,
      {"robots": {"a": {"action": 0, "state": 0}}},
      "^model.robots.a: action 0 must be at least 1 and state 0 at least 0$",
    ),
    (
      small.DIT,
      {"robots": {"a": {"action": 1, "state": -1}}},
      "^model.robots.a: action 1 must be at least 1 and state -1",
    ),
    (small.DIT, {"robots": {"a": {"action": 1, "state": 0}}}, None),
    (small.DIT, {"dit.num_sampling_steps": 1}, None),
    (small.DIT, {"dit.num_sampling_steps": 10, **DDPM}, None),
    (small.DIT, {"gpt": {"anything": 1}}, None),
    (
      small.DIT,
      {"dit.objective": "ddpm", "dit.num_sampling_steps": 0},
      "^model.dit.num_sampling_steps 0 must be at least 1$",
    ),
    *(
      (small.GPT, {f"gpt.{name}": "other"}, f"^model.gpt.{name} is 'other'")
      for name in (
        "prefix",
        "position",
        "inference",
        "tokens",
        "loss",
        "motion_head",
        "action_head",
        "objective",
        "activation",
        "initializer",
      )
    ),
    (
      small.GPT,
      {"gpt.num_heads": 3},
      "^model.gpt.width 16 must be model.trunk.width 16 and a multiple of num_heads 3$",
    ),
    (small.GPT, {"gpt.motion_dropout": 1.1}, "motion_dropout between 0 and 1"),
    (small.GPT, {"gpt.motion_dropout": -0.1}, "motion_dropout between"),
    (small.GPT, {"gpt.motion_dropout": 1}, None),
    (small.GPT, {"gpt.motion_dropout": 0}, None),
    (small.GPT, {"gpt.action_weight": -1}, "action_weight not negative$"),
    (small.GPT, {"gpt.action_weight": 0}, None),
    (small.GPT, {"gpt.depth": 0}, "^model.gpt: depth must be at least 1"),
    (small.GPT, {"gpt.depth": 1}, None),
    (small.GPT, {"gpt.action_head": "gmm"}, "^model.gpt.action_head is 'gmm'"),
    (
      small.GPT,
      {"gpt.gripper": {"arm": [-1]}},
      "^model.gpt.gripper.arm .-1.: dims must be below 3",
    ),
    (small.GPT, {"gpt.gripper": {"arm": [0, 2]}}, None),
    (
      small.GPT,
      {"gpt.gripper": {"arm": [0]}, "gpt.action_head": "diffusion"},
      "and action_head 'regression'$",
    ),
    (
      small.GPT,
      {"gpt.mixture": {"components": 0}},
      "mixture.components and denoiser's width and depth must be at least 1",
    ),
    (small.GPT, {"gpt.mixture": {"components": 1}}, None),
    (small.GPT, {"gpt.mixture": {"temperature": -1}}, "temperature not negative$"),
    (small.GPT, {"gpt.mixture": {"temperature": 0}}, None),
    (small.GPT, {"gpt.denoiser": {"width": 0}}, "must be at least 1"),
    (small.GPT, {"gpt.denoiser": {"width": 1, "depth": 1}}, None),
    (small.GPT, {"gpt.denoiser": {"height": 1}}, "^unknown key model.gpt.denoiser.height"),
  ],
)
def test_configs_at_their_limits(base, changes, message):
  if message is None:
    models.build(small.section(base, **changes))
    return
  with pytest.raises(errors.UserError, match=message):
    models.build(small.section(base, **changes))


def test_a_config_without_a_kind():
  with pytest.raises(errors.UserError, match="^missing key model.kind$"):
    models.build({})


@pytest.mark.parametrize(
  "settings, message",
  [
    (dict(time="bta"), "^w.time is 'bta'"),
    (dict(alpha=0), "^w.alpha 0 must be positive$"),
    (dict(cut=0), "^w.cut 0 must be positive, at most 1$"),
    (dict(cut=1.01), "^w.cut 1.01 must be positive, at most 1$"),
    (dict(cut=1), None),
    (dict(deviation=0), "^w.deviation 0 must be positive$"),
    (dict(alpha=9), None),
  ],
)
def test_settings_of_flows(settings, message):
  flow = diffusion.Flow(**settings)
  if message is None:
    flow.check("w")
  else:
    with pytest.raises(errors.UserError, match=message):
      flow.check("w")


def test_defaults_of_objectives():
  section = {}
  assert diffusion.build(section, "w") == (diffusion.Flow("beta", 1.5, 0.999, 0.0, 1.0), 10)
  assert diffusion.build({"objective": "ddpm", "num_sampling_steps": 3}, "w") == (
    diffusion.DDPM(100, "cosine", "v", "ddim", 5.0),
    3,
  )
  motion, action = outputs.build({}, "w", diffusion.Flow())
  assert motion == action == outputs.Regression("smooth_l1") and action.zero
  motion, action = outputs.build(
    {"motion_head": "gmm", "action_head": "diffusion"}, "w", diffusion.Flow()
  )
  assert (
    motion == outputs.Mixture(5, 1.0)
    and not motion.zero
    and action == outputs.Diffusion(diffusion.Flow(), "encode", 256, 3)
    and action.zero
  )
  assert outputs.build({"motion_head": "diffusion"}, "w", diffusion.Flow())[0].layer == "noisy"
  x = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 2.0])
  np.testing.assert_allclose(outputs.LOSSES["smooth_l1"](x), [2.5, 0.5, 0.125, 0, 0.125, 1.5])
  np.testing.assert_allclose(outputs.LOSSES["mse"](x), [9, 1, 0.25, 0, 0.25, 4])
  gpt = models.build(small.GPT).action_head
  assert (
    gpt.prefix,
    gpt.position,
    gpt.motion_dropout,
    gpt.inference,
    gpt.action_weight,
    gpt.gripper,
    gpt.supports_guidance,
  ) == ("causal", "learned", 0.5, "decoded", 1.0, {}, False)
  section = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
  gpt = models.build({**small.GPT, "gpt": section}).action_head
  assert (gpt.inference, gpt.num_sampling_steps) == ("hidden", 10)
  assert (gpt.latent.num_queries, gpt.latent.latent_dim) == (2, 3)
  assert models.build(small.DIT).action_head.supports_guidance


def test_layers_of_heads():
  assert outputs.Regression().layers(16, 3) == {"decode": (16, 3)} and outputs.Mixture(4).layers(
    16, 3
  ) == {"decode": (16, 28)}
  assert outputs.Diffusion(None, "noisy", 8, 2).layers(16, 3) == {"noisy": (3, 8), "decode": (8, 3)}
  weights, means, deviations = outputs.Mixture(2)._split(jnp.arange(10.0)[None], 2)
  np.testing.assert_allclose(
    np.exp(weights[0]), [1 / (1 + math.e), math.e / (1 + math.e)], rtol=1e-6
  )
  np.testing.assert_array_equal(means[0], [[2, 3], [6, 7]])
  np.testing.assert_allclose(
    deviations[0], np.exp(3 * np.tanh(np.array([[4, 5], [8, 9]]) / 3) - 1), rtol=1e-5
  )


def test_samples_of_a_mixture():
  mixture = outputs.Mixture(2)
  # a quarter around -5, the rest around 5; deviation 1 / e
  numbers = jnp.tile(jnp.array([[0.0, math.log(3.0), -5.0, 0.0, 5.0, 0.0]]), (4000, 1))
  options = dict(dims=1, num_sampling_steps=0)
  drawn = np.asarray(mixture.sample(None, lambda layer, x: x, numbers, KEY, **options))[:, 0]
  assert (drawn > 0).mean() == pytest.approx(0.75, abs=0.03) and drawn[
    drawn > 0
  ].std() == pytest.approx(1 / math.e, abs=0.02)
  cold = dataclasses.replace(mixture, temperature=0.5).sample(
    None, lambda layer, x: x, numbers, KEY, **options
  )
  assert np.asarray(cold)[drawn > 0].std() == pytest.approx(0.5 / math.e, abs=0.02)
  np.testing.assert_array_equal(
    dataclasses.replace(mixture, temperature=0.0).sample(
      None, lambda layer, x: x, numbers[:3], KEY, **options
    ),
    5,
  )


def test_diffusion_times_as_features():
  found = np.asarray(blocks.time_features(jnp.array([0.0, 0.5])))
  angle = 500 * np.exp(-np.log(10000) * np.arange(128) / 128)
  np.testing.assert_array_equal(found[0], [1] * 128 + [0] * 128)
  np.testing.assert_allclose(found[1], np.concatenate([np.cos(angle), np.sin(angle)]), atol=2e-4)
  assert blocks.time_features(jnp.zeros((2, 3))).shape == (2, 3, 256)
  x = jnp.array([[1.0, 3.0, 5.0, 7.0]])
  np.testing.assert_allclose(
    blocks.modulated_norm(x, jnp.full((1, 4), 10.0), jnp.full((1, 4), 1.0), epsilon=4.0),
    # variance 5, and 4
    10 + 2 * np.array([[-3, -1, 1, 3]]) / 3,
    rtol=1e-6,
  )


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


def test_pooled_patches_by_hand():
  tokens = jnp.concatenate(
    [jnp.full((1, 1, 1), 99.0), jnp.arange(16.0).reshape((1, 16, 1))], axis=1
  )
  assert trunk.pool(tokens, 1) is tokens
  np.testing.assert_array_equal(trunk.pool(tokens, 2)[0, :, 0], [99, 2.5, 4.5, 10.5, 12.5])
  np.testing.assert_array_equal(trunk.pool(tokens, 4)[0, :, 0], [99, 7.5])
  mask = jnp.array([[True, False]])
  assert trunk.drop_language(KEY, mask, 0.0) is mask


@pytest.mark.parametrize(
  "tokens, tiles",
  [
    (1, (128, 128)),
    (128, (128, 128)),
    (129, (256, 256)),
    (512, (512, 512)),
    (513, (768, 384)),
    (1024, (1024, 512)),
    (1025, (1152, 384)),
  ],
)
def test_tiles_of_tokens(tokens, tiles):
  assert attention._tiles(tokens) == tiles


def test_heads_of_attention():
  x = jnp.arange(24.0).reshape((1, 2, 12))
  assert attention.split_heads(x, 3).shape == (1, 2, 3, 4) and attention.split_heads(x, 3)[
    0, 1, 2
  ].tolist() == [20, 21, 22, 23]
  with pytest.raises(errors.UserError, match="^attention: width 12 is not a multiple of num_head"):
    attention.split_heads(x, 5)
  padded = attention._pad(jnp.ones((1, 2, 1, 1)), 2)
  assert padded[0, :, 0, 0].tolist() == [1, 1, 0, 0]
  query, other = jnp.zeros((1, 32, 1, 8)), jnp.zeros((1, 511, 1, 8))
  assert attention._worth(attention._cudnn, query, other) and not attention._worth(
    attention._cudnn, query[:, :31], other
  )
  long = jnp.zeros((1, 512, 1, 8))
  assert [
    attention._worth(attention._pallas, *given)
    for given in ((long, long), (long, other), (other, long))
  ] == [True, False, False]
  mesh = type("Mesh", (), {"shape": {"data": 2, "fsdp": 3}})
  assert [attention._size(mesh, axes) for axes in (None, "data", ("data", "fsdp"))] == [1, 2, 6]


def test_gelu_and_its_slope():
  x = jnp.linspace(-4, 4, 41)
  np.testing.assert_allclose(transformer.gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
  np.testing.assert_allclose(
    jax.vmap(jax.grad(transformer.gelu))(x),
    jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=False)))(x),
    atol=1e-6,
  )


@pytest.mark.parametrize(
  "text, size",
  [
    ("H/14", (1280, 32, 16, 5120, 14)),
    ("4x1x1/1", (4, 1, 1, 16, 1)),
    ("12x1x3/2", (12, 1, 3, 48, 2)),
  ],
)
def test_more_sizes(text, size):
  assert sizes.parse(text) == sizes.Size(*size)


@pytest.mark.parametrize("text", ["4x0x1/8", "4x1x0/8", "0x1x1/8", "6x1x3/8", "8x1x3/8"])
def test_sizes_that_cannot_be(text):
  with pytest.raises(errors.UserError, match="the width must be a multiple of the heads and of 4"):
    sizes.parse(text)


def test_colors_beyond_the_range_are_clipped():
  wild = pixels.denormalize(jnp.array([[[-9.0, 0.0, 9.0]]]))
  np.testing.assert_allclose(wild, [[[0, 0.456, 1]]], rtol=1e-6)
  assert pixels._side(49) == 7


@dataclasses.dataclass
class Part:
  a: int
  b: int = 2
  c: list = dataclasses.field(default_factory=list)
  parent: int = 0
  d: int = dataclasses.field(default=0, init=False)


def test_sections_become_parts():
  assert config_utils.instantiate(Part, {"a": 1, "c": [3]}, "w") == Part(
    1, 2, [3]
  ) and config_utils.instantiate(Part, {"b": 5}, "w", a=4) == Part(4, 5)
  for section, given, message in (
    ({}, {}, "^missing key w.a$"),
    ({"a": 1, "parent": 2}, {}, "^unknown key w.parent; valid: a, b, c$"),
    ({"a": 1, "d": 2}, {}, "^unknown key w.d; "),
    ({"a": 1}, {"a": 2}, "^unknown key w.a; "),
  ):
    with pytest.raises(errors.UserError, match=message):
      config_utils.instantiate(Part, section, "w", **given)
  with pytest.raises(
    errors.UserError,
    match="^unknown key model.bottleneck.x; this kind has no keys of its own; for another kind",
  ):
    config_utils.check({"x": 1}, "model.bottleneck", required=())
  assert config_utils.lookup({"x": 3}, "x", "w") == 3
  for name in ({"x": 1}, 3, "y"):
    with pytest.raises(errors.UserError, match="^w is "):
      config_utils.lookup({"x": 3}, name, "w")
  assert config_utils.plain({"a": {"b": (1, 2)}, "c": 3}) == {"a": {"b": (1, 2)}, "c": 3}


def test_means_of_texts():
  tokens = jnp.arange(12.0).reshape((2, 3, 2))
  np.testing.assert_array_equal(
    layers.mean(tokens, jnp.array([[True, True, False], [False, False, False]])), [[1, 2], [0, 0]]
  )
  np.testing.assert_array_equal(bert.POOLING["cls"](tokens, None), [[0, 1], [6, 7]])
  mask = layers.attend_to(jnp.array([[True, False, True]]))
  assert mask.shape == (1, 1, 3, 3) and mask[0, 0].tolist() == [[True, False, True]] * 3
  x = jnp.array([-2.0, 0.5, 3.0])
  np.testing.assert_allclose(
    layers.ACTIVATIONS["quick_gelu"](x), x / (1 + np.exp(-1.702 * x)), rtol=1e-5
  )
  assert (
    float(jnp.abs(layers.ACTIVATIONS["gelu"](x) - layers.ACTIVATIONS["gelu_new"](x)).max()) > 1e-5
  )
  np.testing.assert_allclose(layers.ACTIVATIONS["silu"](x), x / (1 + np.exp(-x)), rtol=1e-5)


def test_buckets_of_distances():
  """Of 32 as in published T5: 8 single distances to either side, then 8 that grow to 128."""
  distance = np.array(
    [-200, -128, -127, -20, -12, -11, -9, -8, -7, -1, 0, 1, 7, 8, 11, 12, 127, 128, 500]
  )
  with np.errstate(all="raise"):
    found = t5.bucket(distance, buckets=32, max_distance=128)
  assert found.tolist() == [15, 15, 15, 10, 9, 8, 8, 8, 7, 1, 0, 17, 23, 24, 24, 25, 31, 31, 31]
