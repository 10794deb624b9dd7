"""como_jax/models/text: shapes, padding, short floats."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, trees
from como_jax.convert import facts
from como_jax.models import text
from como_jax.models.text import layers
from tests.models.text import tiny
from tests.models.text.parity import apply, batch


@pytest.mark.parametrize("kind", text.KINDS)
def test_shapes_and_names(kind):
  encoder = text.build(kind, tiny.sizes(kind))
  ids, mask = batch(kind)
  spec = jax.eval_shape(encoder.init, jax.random.key(0), ids, mask)["params"]
  trees.merge(spec, tiny.params(kind), what=kind)
  tokens, pooled = jax.eval_shape(encoder.apply, {"params": spec}, ids, mask)
  chex.assert_shape((tokens, pooled), [(4, 9, encoder.width), (4, encoder.pooled_width)])


def test_layers_start_apart():
  made = jax.jit(text.build("clip", tiny.sizes("clip")).init)(jax.random.key(0), *batch("clip"))[
    "params"
  ]
  first, second = made["blocks"]["mlp"]["up"]["kernel"]
  assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", text.KINDS)
def test_padding_changes_nothing(kind):
  params, (ids, mask) = tiny.params(kind), batch(kind)
  tokens, pooled = apply(kind, tiny.sizes(kind), params, ids, mask)
  other = np.where(mask, ids, 7)
  again = apply(
    kind,
    tiny.sizes(kind),
    params,
    np.pad(other, ((0, 0), (0, 4)), constant_values=9),
    np.pad(mask, ((0, 0), (0, 4))),
  )
  np.testing.assert_allclose(np.asarray(again[0])[:, :9][mask], np.asarray(tokens)[mask], atol=1e-5)
  np.testing.assert_allclose(again[1], pooled, atol=1e-5)
  empty = apply(kind, tiny.sizes(kind), params, ids, np.zeros_like(mask))
  chex.assert_tree_all_finite(empty)


@pytest.mark.parametrize("kind", text.KINDS)
def test_bfloat16_is_close(kind):
  params, (ids, mask) = tiny.params(kind), batch(kind)
  expected = apply(kind, tiny.sizes(kind), params, ids, mask)
  short = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
  found = apply(kind, tiny.sizes(kind), short, ids, mask, jnp.bfloat16)
  chex.assert_type(found, jnp.float32)
  for ours, theirs in zip(found, expected, strict=True):
    difference = np.abs(np.asarray(ours - theirs))
    assert (
      difference.mean() < 0.03 * np.abs(np.asarray(theirs)).mean() + 0.02 and difference.max() > 0
    )


def test_unknown_settings_are_named():
  with pytest.raises(errors.UserError, match="bart.*valid: bert, clip, t5"):
    text.build("bart", {})
  with pytest.raises(errors.UserError, match="sizes.widht; did you mean 'width'"):
    text.build("bert", {"widht": 3})
  sizes = {**tiny.sizes("bert"), "activation": "gelo"}
  with pytest.raises(errors.UserError, match="activation is 'gelo'; did you mean 'gelu'"):
    jax.eval_shape(text.build("bert", sizes).init, jax.random.key(0), *batch("bert"))
  assert tuple(layers.ACTIVATIONS) == facts.ACTIVATIONS
