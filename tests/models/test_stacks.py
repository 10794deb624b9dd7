"""Transformer: names, dtypes, scan = loop, remat = none, masks, logical constraints."""

import dataclasses
import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, trees
from como_jax.models import attention, specs, stacks
from como_jax.parallel import flops

CONFIG = specs.StackConfig(width=12, depth=2, num_heads=2, mlp_dim=24, initializer="mae")
X = jax.random.normal(jax.random.key(1), (2, 5, 12))


def stack(**changes):
  return stacks.Stack(dataclasses.replace(CONFIG, **changes))


@pytest.fixture(scope="module")
def params():
  return jax.jit(stack().init)(jax.random.key(0), X)["params"]


@pytest.fixture(scope="module")
def plain(params):
  """(value, gradient) of the stack as it is."""
  return value_and_gradient(stack(), params)


@pytest.fixture(scope="module", params=[True, False], ids=["scan", "loop"])
def whole(request, params):
  """(whether layers are scanned, their parameters, (output, gradient) of the first two tokens when
  all are computed).
  """
  given = params if request.param else stacks.unstack_layers(params)
  return request.param, given, of_two_tokens(stack(scan=request.param), given, None)


def of_two_tokens(module, params, num_outputs):
  def loss(p):
    out = module.apply({"params": p}, X, num_outputs=num_outputs)[:, :2]
    return jnp.sum(jnp.square(out)), out

  (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  return out, gradient


def value_and_gradient(module, params):
  return jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.square(module.apply({"params": p}, X)))))(
    params
  )


def test_names_and_shapes(params):
  shapes = {name: leaf.shape for name, leaf in trees.flatten(params).items()}
  expected = {
    f"blocks/{norm}/{leaf}": (2, 12)
    for norm in ("norm_attention", "norm_mlp")
    for leaf in ("scale", "bias")
  }
  for name in ("query", "key", "value", "output"):
    expected |= {
      f"blocks/attention/{name}/kernel": (2, 12, 12),
      f"blocks/attention/{name}/bias": (2, 12),
    }
  expected |= {
    "blocks/mlp/up/kernel": (2, 12, 24),
    "blocks/mlp/up/bias": (2, 24),
    "blocks/mlp/down/kernel": (2, 24, 12),
    "blocks/mlp/down/bias": (2, 12),
  }
  assert shapes == expected


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(1, 3, 8), (2, 7, 16)])
def test_shape_and_dtype(dtype, shape):
  out, variables = jax.jit(stack(dtype=dtype).init_with_output)(jax.random.key(0), jnp.ones(shape))
  assert out.shape == shape and out.dtype == dtype
  chex.assert_tree_all_finite(out)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_scan_equals_loop(params, plain):
  loop_params = stacks.unstack_layers(params)
  value, gradient = plain
  loop_value, loop_gradient = value_and_gradient(stack(scan=False), loop_params)
  np.testing.assert_allclose(value, loop_value, rtol=1e-6)
  # The rounding of a sum goes with its largest terms, so each leaf is held to 1e-5 of its own
  # scale.
  both = (gradient, stacks.stack_layers(loop_gradient))
  scaled = [
    jax.tree.map(lambda g, ref: g / jnp.maximum(1.0, jnp.abs(ref).max()), tree, gradient)
    for tree in both
  ]
  chex.assert_trees_all_close(*scaled, rtol=1e-5, atol=1e-5)
  chex.assert_trees_all_equal(stacks.stack_layers(loop_params), params)
  assert set(loop_params) == {"blocks_0", "blocks_1"}


@pytest.mark.parametrize("remat", [name for name in stacks.REMAT if name != "none"])
def test_remat_changes_nothing(params, plain, remat):
  value, gradient = plain
  other_value, other_gradient = value_and_gradient(stack(remat=remat), params)
  np.testing.assert_allclose(value, other_value, rtol=1e-6)
  chex.assert_trees_all_close(gradient, other_gradient, rtol=1e-5, atol=1e-5)


def test_remat_recomputes(params):
  def text(remat):
    return str(
      jax.make_jaxpr(jax.grad(lambda p: jnp.sum(stack(remat=remat).apply({"params": p}, X))))(
        params
      )
    )

  assert "remat" not in text("none") and "checkpoint" not in text("none")
  assert "remat" in text("full") or "checkpoint" in text("full")


@pytest.mark.parametrize("remat", list(stacks.REMAT))
def test_first_tokens_equal_those_of_all(whole, remat):
  scan, params, (out, gradient) = whole
  part, part_gradient = of_two_tokens(stack(scan=scan, remat=remat), params, 2)
  np.testing.assert_allclose(part, out, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(part_gradient, gradient, rtol=1e-4, atol=1e-5)


def test_first_tokens_save_work(params):
  def operations(num_outputs):
    return flops.count(
      jax.make_jaxpr(lambda p: module.apply({"params": p}, X, num_outputs=num_outputs))(params)
    )

  module = stack()
  # query, output, MLP; scores and what they weigh
  token = 2 * (2 * 12 * 12 + 2 * 12 * 24) + 2 * 2 * 5 * 12
  assert operations(None) - operations(1) == 2 * 4 * token  # 2 examples, 4 of 5 tokens, one layer


def test_first_changes_no_parameter(params):
  chex.assert_trees_all_equal(
    jax.jit(lambda key: stack().init(key, X, num_outputs=2))(jax.random.key(0))["params"], params
  )


def test_mask_hides_tokens(params):
  causal = jnp.tril(jnp.ones((1, 1, 5, 5), bool))
  changed = X.at[:, 3:].add(1.0)
  apply = jax.jit(lambda x: stack().apply({"params": params}, x, causal))
  a, b = apply(X), apply(changed)
  np.testing.assert_array_equal(a[:, :3], b[:, :3])
  assert np.abs(a[:, 3:] - b[:, 3:]).max() > 1e-3


def test_logical_constraints_only_with_rules(params):
  def text():
    return str(jax.make_jaxpr(lambda p: stack().apply({"params": p}, X))(params))

  assert "sharding_constraint" not in text()
  mesh = jax.make_mesh((2, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  with (
    jax.set_mesh(mesh),
    nn.logical_axis_rules([("batch", "data"), ("heads", "tensor"), ("mlp", "tensor")]),
  ):
    assert "sharding_constraint" in text()
    sharded = jax.jit(lambda p: stack().apply({"params": p}, X))(params)
  np.testing.assert_allclose(
    sharded, jax.jit(stack().apply)({"params": params}, X), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(
  "changes, text",
  [({"remat": "dotss"}, "dots"), ({"initializer": "mea"}, "mae"), ({"num_heads": 5}, "5")],
)
def test_bad_settings_are_named(changes, text):
  with pytest.raises(errors.UserError, match=text):
    jax.eval_shape(stack(**changes).init, jax.random.key(0), X)


@pytest.mark.parametrize("multiple", [2, 4, 5])
def test_padding_changes_no_token(whole, multiple):
  scan, params, (out, gradient) = whole
  padded = stack(scan=scan, token_multiple=multiple)
  for num_outputs in (None, 2):
    part, part_gradient = of_two_tokens(padded, params, num_outputs)
    np.testing.assert_allclose(part, out, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(part_gradient, gradient, rtol=1e-4, atol=1e-5)
  everything = [jax.jit(one.apply)({"params": params}, X) for one in (padded, stack(scan=scan))]
  np.testing.assert_allclose(*everything, rtol=1e-5, atol=1e-6)


def test_padding_is_added_once_and_only_where_it_is_needed(params):
  def program(multiple, remat="none"):
    return str(
      jax.make_jaxpr(
        lambda p: jnp.sum(stack(token_multiple=multiple, remat=remat).apply({"params": p}, X))
      )(params)
    )

  assert program(1) == program(5) and " pad[" not in program(1)
  assert program(4).count(" pad[") == 1 and "f32[2,8,24]" in program(4)
  assert "f32[2,8,24]" not in program(1)
  with pytest.raises(ValueError, match="token_multiple"):
    stack(token_multiple=4).apply({"params": params}, X, jnp.ones((1, 1, 5, 5), bool))


def test_a_policy_that_keeps_attention_runs_the_fused_kernel_once(monkeypatch):
  # no public way to lower for a cuDNN that is not here
  private = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")

  class Versions:
    cudnn_get_version = staticmethod(lambda: 91000)

  monkeypatch.setattr(private, "cuda_versions", Versions)
  monkeypatch.setattr(attention, "_library", lambda *given: "cudnn")
  wide = dict(width=16, depth=3, dtype=jnp.bfloat16, attention_kernel="fused")
  x = jnp.ones((2, 6, 16))

  def calls(remat, scan, num_outputs=None):
    module = stack(**wide, remat=remat, scan=scan)
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]

    def loss(p):
      return jnp.sum(module.apply({"params": p}, x, num_outputs=num_outputs).astype(jnp.float32))

    traced = jax.jit(jax.grad(loss)).trace(params)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return tuple(len(re.findall(rf"call_target_name|{name}", text)) for name in FMHA)

  FMHA = (r"@__cudnn\$fmhaSoftmax\(", r"@__cudnn\$fmhaSoftmaxBackward\(")
  # the loop over layers holds one layer, and the last layer of a shortened stack is on its own
  assert calls("none", True) == calls("dots_attention", True) == (1, 1)
  assert calls("dots_no_batch", True) == (2, 1)
  assert calls("dots_no_batch", True, 2) == (4, 2) and calls("dots_attention", True, 2) == (2, 2)
  assert calls("dots_no_batch", False) == (6, 3) and calls("dots_attention", False) == (3, 3)
