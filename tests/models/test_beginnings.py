"""What models start from, what their parts agree about, and which products run in short floats."""

import collections
import math
import statistics

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from jax.extend.random import define_prng_impl

from como_jax import models, trees
from como_jax.models import attention, text
from como_jax.models.policy import blocks
from como_jax.models.text import t5
from tests.models import tiny
from tests.models.policy import small
from tests.models.text import tiny as text_tiny

KEY = jax.random.key(0)
CASES = {
  "mae": (tiny.MAE, {}),
  "motion": (
    tiny.MOTION,
    {
      "fdm.features": "direct",
      "fdm.condition": "concat",
      "fdm.initializer": "vit",
      "idm.initializer": "vit",
    },
  ),
  "residual": (tiny.MOTION, {"fdm.features": "residual", "fdm.output": "residual"}),
  "vq": (tiny.MOTION, {"bottleneck": {"kind": "vq", "latent_dim": 4, "num_codes": 5}}),
  "dit": (small.DIT, {}),
  "gpt": (
    small.GPT,
    {
      "gpt.motion_head": "gmm",
      "gpt.action_head": "diffusion",
      "gpt.denoiser": {"width": 16, "depth": 1},
    },
  ),
}
ZERO = {
  "residual": ("fdm/head/kernel", "fdm/features_head/kernel"),
  "dit": (
    "dit/denoiser/blocks/modulation/kernel",
    "dit/denoiser/modulation_out/kernel",
    "heads/arm/decode/kernel",
    "heads/hand/decode/kernel",
    "heads/latent/decode/kernel",
  ),
  "gpt": (
    "gpt/action_output/denoiser/modulation_0/kernel",
    "gpt/action_output/denoiser/modulation_out/kernel",
    "heads/arm/decode/kernel",
    "heads/hand/decode/kernel",
  ),
}
VIT = {"motion": ("fdm/", "idm/")}  # the others' products start as MAE's
NORMAL = ("cls", "mask_token", "time/in/kernel", "time/out/kernel")


# Every draw has the same bits. A normal is then one deviation; these are a uniform of (-1, 1) and a
# normal cut at two deviations.
UNIFORM = math.erf(0.5**0.5)
TRUNCATED = statistics.NormalDist().inv_cdf((1 + UNIFORM * math.erf(2**0.5)) / 2)
BITS = int((1 + UNIFORM) / 2 * 2**32)
CONSTANT = define_prng_impl(
  key_shape=(1,),
  seed=lambda seed: jnp.zeros(1, jnp.uint32),
  split=lambda key, shape: jnp.zeros((*shape, 1), jnp.uint32),
  random_bits=lambda key, width, shape: jnp.full(shape, BITS >> 32 - width, f"uint{width}"),
  fold_in=lambda key, data: key,
  name="constant",
  tag="constant",
)


def expected(kind, name, shape):
  """A leaf's number when all draws have the same bits."""
  last = name.split("/")[-1]
  if last in ("bias", "scale"):
    return float(last == "scale")
  if name in ZERO.get(kind, ()):
    return 0.0
  if last == "codebook":
    return UNIFORM / 5  # within 1 / codes
  if name.endswith(NORMAL):
    return 0.02
  if last != "kernel" or name.startswith(VIT.get(kind, "no such")):
    return 0.02 * TRUNCATED
  shape = shape[1:] if "blocks/" in name else shape
  inputs = np.prod(shape[:-1])  # of a patch, all of it
  return UNIFORM * (6 / (inputs + shape[-1])) ** 0.5  # Glorot's, as MAE's


@pytest.mark.parametrize("kind", CASES)
def test_first_parameters(kind):
  base, changes = CASES[kind]
  key = jax.random.key(0, impl=CONSTANT)
  params = trees.flatten(small.jit(models.build(small.section(base, **changes)).init)(key))
  assert set(ZERO.get(kind, ())) <= set(params)
  for name, leaf in params.items():
    if (
      name.endswith("position")
      and name.startswith(("encoder", "decoder"))
      or (name == "fdm/position" and kind in ("residual", "vq"))
    ):
      continue  # sines and cosines, see test_embed
    np.testing.assert_allclose(leaf, expected(kind, name, leaf.shape), rtol=1e-5, err_msg=name)


def products(jaxpr, found):
  """How many products have operands of which type."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      found["/".join(sorted({variable.aval.dtype.name for variable in equation.invars}))] += 1
    for inner in core.jaxprs_in_params(equation.params):
      products(inner, found)
  return dict(found)


def trace(monkeypatch, function, *given):
  """(products by type, epsilons of norms by name, kernels that attention was asked for) of a
  function.
  """
  epsilons, kernels = collections.defaultdict(set), set()
  attend, norm = attention.attend, blocks.modulated_norm

  def record(call, args, kwargs, context):
    module = context.module
    if context.method_name == "__call__" and isinstance(module, nn.LayerNorm | t5.Norm):
      epsilons[module.name].add(module.epsilon)
    return call(*args, **kwargs)

  monkeypatch.setattr(
    attention,
    "attend",
    lambda *given, kernel, **more: kernels.add(kernel) or attend(*given, kernel=kernel, **more),
  )
  monkeypatch.setattr(
    blocks,
    "modulated_norm",
    lambda *given, epsilon: epsilons["modulated"].add(epsilon) or norm(*given, epsilon=epsilon),
  )
  with nn.intercept_methods(record):
    jaxpr = jax.make_jaxpr(function)(*given).jaxpr
  return products(jaxpr, collections.Counter()), dict(epsilons), kernels


THREE = ("norm", "norm_attention", "norm_mlp")
PRODUCTS = {  # in bfloat16 and in float32
  "mae": (tiny.MAE, {"encoder.epsilon": 0.1, "decoder.epsilon": 0.2}, 18, 1),  # the pixels
  # two of the bottleneck; heads
  "motion": (
    tiny.MOTION,
    {"fdm.features": "direct", "encoder.epsilon": 0.1, "idm.epsilon": 0.2, "fdm.epsilon": 0.3},
    39,
    4,
  ),
  # what decodes, for two robots and for motion
  "dit": (small.DIT, {"encoder.epsilon": 0.1, "trunk.epsilon": 0.2, "dit.epsilon": 0.3}, 42, 3),
  "gpt": (small.GPT, {"encoder.epsilon": 0.1, "trunk.epsilon": 0.2, "gpt.epsilon": 0.3}, 30, 3),
  # denoisers of single tokens
  "diffused": (small.GPT, {"gpt.motion_head": "diffusion", "gpt.action_head": "diffusion"}, 33, 29),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_settings_reach_every_layer(monkeypatch, kind):
  """Short floats for products, the epsilon of each section for its norms, the kernel for every
  attention.
  """
  base, changes, short, whole = PRODUCTS[kind]
  model = models.build(
    small.section({**base, "attention_kernel": "xla"}, dtype="bfloat16", **changes)
  )
  params, spec = jax.eval_shape(model.init, KEY), model.inputs_spec(2)
  run = (
    (lambda *given: model.losses(*given, KEY))
    if base["kind"] == "policy"
    else lambda *given: model.forward(*given, key=KEY)
  )
  found, epsilons, kernels = trace(monkeypatch, run, params, spec)
  assert found == {"bfloat16": short, "float32": whole} and kernels == {"xla"}
  if kind != "diffused":
    layers = {
      value for name, value in changes.items() if name.endswith("epsilon") and name != "dit.epsilon"
    }
    assert {name: epsilons[name] for name in THREE} == dict.fromkeys(THREE, layers)
    assert (
      epsilons.get("norm_language", {0.2}) == {0.2}
      and epsilons.get("modulated", {0.3}) == {0.3}
      and ("modulated" in epsilons) == (kind == "dit")
    )


@pytest.mark.parametrize("base, short, whole", [(small.DIT, 40, 1), (small.GPT, 44, 2)])
def test_settings_reach_every_layer_that_samples(monkeypatch, base, short, whole):
  model, params = small.made(base, dtype="bfloat16")
  found, _, kernels = trace(
    monkeypatch, lambda *given: model.sample(*given, KEY, robot="arm"), params, model.inputs_spec(2)
  )
  assert found == {"bfloat16": short, "float32": whole} and kernels == {"auto"}


@pytest.mark.parametrize("kind", text.KINDS)
def test_norms_of_texts(monkeypatch, kind):
  encoder = text.build(kind, {**text_tiny.sizes(kind), "epsilon": 0.25})
  given = jax.ShapeDtypeStruct((2, 5), jnp.int32), jax.ShapeDtypeStruct((2, 5), bool)
  assert trace(monkeypatch, encoder.init, KEY, *given)[1] == dict.fromkeys(THREE, {0.25})
