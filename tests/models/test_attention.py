"""Attention: fused kernels agree with XLA's, are chosen where they can run, and lower for hardware
that is not here.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from como_jax import errors, model_presets, models
from como_jax.models import attention
from como_jax.parallel import flops, rules
from como_jax.parallel import mesh as mesh_lib
from tests.models import tiny

GPU = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")


def inputs(tokens, read, *, batch=2, heads=2, size=16, masked=False, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 4)
  query, key, value = (
    jax.random.normal(key, (batch, count, heads, size), dtype)
    for key, count in zip(keys, (tokens, read, read), strict=False)
  )
  mask = (
    jax.random.bernoulli(keys[3], 0.6, (batch, 1, 1, read)).at[..., 0].set(True) if masked else None
  )
  return query, key, value, mask


def value_and_gradient(function, query, key, value, mask):
  def summed(*given):
    out = function(*given, mask)
    return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

  (_, out), gradient = jax.jit(jax.value_and_grad(summed, argnums=(0, 1, 2), has_aux=True))(
    query, key, value
  )
  return out, *gradient


def accelerators(data=1, tensor=1, device_kind="TPU v5e", platform="tpu"):
  """A mesh of accelerators that are not there: enough to trace for."""
  device = jax.sharding.AbstractDevice(device_kind=device_kind, num_cores=1, platform=platform)
  return jax.sharding.AbstractMesh(
    (data, 1, tensor),
    ("data", "fsdp", "tensor"),
    (jax.sharding.AxisType.Auto,) * 3,
    abstract_device=device,
  )


class Traced:
  """What `rules.activations` reads of a mesh."""

  def __init__(self, abstract):
    self.abstract_mesh = abstract


def program(function, *arguments, mesh=None):
  with rules.activations(Traced(mesh or accelerators())):
    return str(jax.make_jaxpr(function)(*arguments))


@pytest.mark.parametrize("tokens, read, masked", [(20, 20, False), (130, 600, True)])
def test_the_kernel_of_tpus_equals_xla(tokens, read, masked):
  given = inputs(tokens, read, masked=masked)
  with pltpu.force_tpu_interpret_mode():
    fused = value_and_gradient(attention._pallas, *given)
  for one, other in zip(fused, value_and_gradient(attention._xla, *given), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-6)


def test_the_kernel_of_tpus_on_a_mesh():
  given, mesh = (
    inputs(20, 33, batch=4, masked=True),
    mesh_lib.make(data=2, fsdp=1, tensor=2, devices=jax.devices()[:4]),
  )

  def sharded(*given):
    with rules.activations(mesh):
      return attention._pallas(*given)

  with pltpu.force_tpu_interpret_mode():
    fused = value_and_gradient(sharded, *jax.device_put(given, mesh_lib.replicated(mesh)))
  for one, other in zip(fused, value_and_gradient(attention._xla, *given), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-6)


@GPU
@pytest.mark.parametrize(
  "tokens, read, masked", [(197, 197, False), (197, 420, True), (24, 421, True)]
)
def test_cudnn_equals_xla(tokens, read, masked):
  given = inputs(tokens, read, size=64, masked=masked, dtype=jnp.bfloat16)
  for one, other in zip(
    value_and_gradient(attention._cudnn, *given),
    value_and_gradient(attention._xla, *given),
    strict=True,
  ):
    np.testing.assert_allclose(
      np.asarray(one, np.float32), np.asarray(other, np.float32), atol=3e-2
    )


@pytest.mark.parametrize(
  "tokens, read, masked", [(197, 197, False), (197, 420, True), (24, 421, True)]
)
def test_cudnn_lowers_for_every_number_of_tokens(tokens, read, masked, monkeypatch):
  # no public way to lower for a cuDNN that is not here
  private = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")

  class Versions:
    cudnn_get_version = staticmethod(lambda: 91000)

  monkeypatch.setattr(private, "cuda_versions", Versions)
  *given, mask = inputs(tokens, read, size=64, masked=masked, dtype=jnp.bfloat16)

  def summed(*given):
    return jnp.sum(attention._cudnn(*given, mask).astype(jnp.float32))

  text = (
    jax.jit(jax.grad(summed, argnums=(0, 1, 2)))
    .trace(*given)
    .lower(lowering_platforms=("cuda",))
    .as_text()
  )
  assert text.count("custom_call @__cudnn$fmha") == 2  # forward and backward


@pytest.mark.parametrize(
  "kind, name, changes",
  [
    ("motion", "debug", {}),
    ("mae", "debug", {}),
    ("policy", "debug", {}),
    ("policy", "debug_gpt", {"language": {"width": 384, "num_tokens": 1}}),
    # another word: one of the two has an odd number of tokens
    ("policy", "debug_gpt", {"language": {"width": 384, "num_tokens": 2}}),
  ],
)
def test_every_model_can_be_traced_with_cudnn(kind, name, changes, monkeypatch):
  """Parameters, losses and actions; nothing is computed, so no GPU is needed."""
  calls = []

  def cudnn(*given):
    calls.append(given[0].shape)
    return attention_cudnn(*given)

  attention_cudnn = attention._cudnn
  monkeypatch.setattr(attention, "_cudnn", cudnn)
  monkeypatch.setattr(attention, "_library", lambda *given: "cudnn")
  monkeypatch.setattr(jax.nn, "dot_product_attention", _shape_of_the_result)
  section = model_presets.preset(kind, name) | changes
  model = models.build(section | {"dtype": "bfloat16", "attention_kernel": "fused"})
  key = jax.eval_shape(lambda: jax.random.key(0))
  params = jax.eval_shape(model.init, key)
  drawn = len(calls)
  if kind == "policy":
    batch = model.inputs_spec(2)
    jax.eval_shape(model.losses, params, batch, key)
    jax.eval_shape(lambda *given: model.sample(*given, robot=model.robots[0]), params, batch, key)
  else:
    jax.eval_shape(lambda p, x, k: model.forward(p, x, key=k), params, model.inputs_spec(2), key)
  assert 0 < drawn < len(calls)


def _shape_of_the_result(query, key, value, *, mask, **options):
  """Checks a mask as cuDNN does, and returns something of the right shape."""
  tokens, keys = query.shape[1], key.shape[1]
  assert not (tokens | keys) % 2 and key.shape == value.shape
  assert mask is None or mask.shape[2:] == (tokens, keys)
  return query + value.mean((1, 3), keepdims=True)


@pytest.mark.parametrize(
  "kernel, tokens, mesh, fused",
  [
    ("auto", 512, accelerators(), True),
    ("auto", 511, accelerators(), False),
    ("fused", 20, accelerators(), True),
    ("xla", 512, accelerators(), False),
    ("fused", 20, accelerators(data=2, tensor=2), True),
    ("fused", 20, accelerators(data=3), False),  # 2 examples, 3 devices
    ("fused", 20, accelerators(tensor=4), False),
  ],
)  # 2 heads, 4 devices
def test_where_a_fused_kernel_is_used(kernel, tokens, mesh, fused):
  *given, mask = inputs(tokens, tokens, masked=True)
  assert (
    "pallas_call"
    in program(lambda *given: attention.attend(*given, mask, kernel=kernel), *given, mesh=mesh)
  ) == fused


@pytest.mark.parametrize("size, fused", [(64, True), (128, True), (160, False), (256, True)])
def test_head_sizes_that_the_kernel_of_tpus_has(size, fused):
  *given, _ = inputs(512, 512, size=size)
  assert ("pallas_call" in program(attention.attend, *given)) == fused


@pytest.mark.parametrize(
  "tokens, size, dtype, kind, fused",
  [
    (32, 64, jnp.bfloat16, "NVIDIA H100 80GB HBM3", True),
    (31, 64, jnp.bfloat16, "NVIDIA H100 80GB HBM3", False),
    (32, 64, jnp.float32, "NVIDIA H100 80GB HBM3", False),
    (32, 60, jnp.bfloat16, "NVIDIA H100 80GB HBM3", False),
    (32, 136, jnp.bfloat16, "NVIDIA H100 80GB HBM3", False),
    (32, 64, jnp.bfloat16, "AMD Instinct MI300X", False),
  ],
)
def test_where_cudnn_is_used(tokens, size, dtype, kind, fused, monkeypatch):
  *given, mask = inputs(tokens, 40, size=size, masked=True, dtype=dtype)
  called = []
  monkeypatch.setattr(attention, "_cudnn", lambda query, *rest: called.append(rest[-1]) or query)
  program(
    lambda *given: attention.attend(*given, mask),
    *given,
    mesh=accelerators(device_kind=kind, platform="gpu"),
  )
  assert len(called) == fused and all(one is mask for one in called)


@pytest.mark.parametrize("cudnn, runs", [(attention._xla, True), (attention._cudnn, False)])
def test_a_machine_without_a_working_cudnn_falls_back(cudnn, runs, monkeypatch):
  monkeypatch.setattr(attention.jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(attention, "_cudnn", cudnn)
  attention._cudnn_runs.cache_clear()
  mesh, answers = mesh_lib.make(data=4, fsdp=1, tensor=2, devices=jax.devices()[:8]), []

  def asked(x):  # within a trace for a mesh of several devices, as in a train step
    with rules.activations(mesh):
      answers.append(attention._cudnn_runs())
      return 2 * x

  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    jax.jit(asked)(jax.device_put(np.ones(8, np.float32), mesh_lib.batch_sharding(mesh)))
  attention._cudnn_runs.cache_clear()
  assert (
    answers == [runs]
    and any("cuDNN's fused kernel does not run here" in str(one.message) for one in said) != runs
  )


def test_masks_of_pairs_and_cpus_have_no_fused_kernel():
  query, key, value, _ = given = inputs(20, 20)
  pairs = jnp.tril(jnp.ones((1, 1, 20, 20), bool))
  assert "pallas_call" not in program(
    lambda *given: attention.attend(*given, pairs, kernel="fused"), query, key, value
  )
  ours = attention.attend(*given, kernel="fused")
  np.testing.assert_array_equal(ours, attention.attend(*given, kernel="xla"))


def test_models_pass_the_choice_on():
  def kernels(kernel):
    model = models.build({**tiny.MOTION, "attention_kernel": kernel})
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = model.inputs_spec(2, 2, jittered=False)
    return program(
      lambda params, batch: model.forward(params, batch, key=jax.random.key(0)), params, batch
    ).count("pallas_call")

  assert kernels("xla") == kernels("auto") == 0
  assert kernels("fused") >= 3  # encoder, Q-former, decoder


def test_operations_of_a_kernel():
  *given, mask = inputs(256, 512, size=64)

  def count(function):
    with rules.activations(Traced(accelerators(data=2))):
      return flops.count(jax.make_jaxpr(lambda *given: function(*given, mask))(*given))

  assert count(attention._pallas) == count(attention._xla) == 2 * 2 * (2 * 2 * 256 * 512 * 64)


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


@pytest.mark.parametrize("kernel", ["xla", "pallas"])
def test_padding_after_the_tokens_is_not_read(kernel):
  query, key, value, _ = inputs(20, 20)
  exact = value_and_gradient(attention._xla, query, key, value, None)
  padded = [jnp.concatenate([x, jnp.full_like(x[:, :4], 3.0)], axis=1) for x in (query, key, value)]

  def shortened(*given):
    if kernel == "xla":
      return attention.attend(*given[:3], num_tokens=20)[:, :20]
    mask = (jnp.arange(24) < 20)[None, None, None]
    return attention._pallas(*given[:3], mask)[:, :20]

  with pltpu.force_tpu_interpret_mode():
    out, *gradients = value_and_gradient(shortened, *padded, None)
  np.testing.assert_allclose(out, exact[0], atol=2e-6)
  for gradient, expected in zip(gradients, exact[1:], strict=True):
    np.testing.assert_allclose(gradient[:, :20], expected, atol=2e-6)
    assert not np.any(gradient[:, 20:])
  with pytest.raises(ValueError, match="exclude each other"):
    attention.attend(query, key, value, jnp.ones((1, 1, 1, 20), bool), num_tokens=19)


def test_padded_tokens_need_neither_pads_nor_a_mask_around_cudnn(monkeypatch):
  private = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")

  class Versions:
    cudnn_get_version = staticmethod(lambda: 91000)

  monkeypatch.setattr(private, "cuda_versions", Versions)
  monkeypatch.setattr(attention, "_library", lambda *given: "cudnn")

  def text(tokens, num_tokens):
    query, key, value, _ = inputs(tokens, tokens, size=64, dtype=jnp.bfloat16)

    def summed(*given):
      out = attention.attend(*given, kernel="fused", num_tokens=num_tokens)
      return jnp.sum(out.astype(jnp.float32))

    traced = jax.jit(jax.grad(summed, argnums=(0, 1, 2))).trace(query, key, value)
    return traced.lower(lowering_platforms=("cuda",)).as_text()

  odd, even = text(197, None), text(198, 197)
  assert odd.count("stablehlo.pad") > 0 and even.count("stablehlo.pad") == 0
  for program in (odd, even):  # lengths, no bias
    assert program.count("custom_call @__cudnn$fmhaSoftmax") == 2
  assert "dense<197>" in even


@GPU
def test_cudnn_reads_no_padding():
  query, key, value, _ = inputs(198, 198, size=64, dtype=jnp.bfloat16)

  def padded(*given):
    return attention._cudnn(*given[:3], None, num_tokens=197)[:, :197]

  def exact(*given):
    return attention._xla(*(x[:, :197] for x in given[:3]), None)

  pairs = zip(
    value_and_gradient(padded, query, key, value, None),
    value_and_gradient(exact, query, key, value, None),
    strict=True,
  )
  for one, other in pairs:
    np.testing.assert_allclose(
      np.asarray(one, np.float32), np.asarray(other, np.float32), atol=3e-2
    )
