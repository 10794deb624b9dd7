"""The autoregressive policy's masks against matrices written by hand."""

import jax.numpy as jnp
import numpy as np

from como_jax.models.policy import masks


def matrix(text):
  return np.array([[cell == "x" for cell in row] for row in text.split()])


# Columns: two context tokens; start and one token of the first motion; of the second; two action
# queries.
CAUSAL = """
  x.......
  xx......
  xxx.....
  xxxx....
  xxxxx...
  xxxxxx..
  xxxxxx..
  xxxxxx..
"""
# The second context token is not there, and neither is the second motion.
PARTLY = """
  x.......
  xx......
  x.x.....
  x.xx....
  x.xxx...
  x.xx.x..
  x.xx....
  x.xx....
"""
# The first context token is not there, and motion is hidden from the action queries.
HIDDEN = """
  x.......
  .x......
  .xx.....
  .xxx....
  .xxxx...
  .xxxxx..
  .x......
  .x......
"""


def made(context, motion, hidden, *, causal=True):
  allowed = masks.layout(2, 2, 1, 2, causal=causal)
  return np.asarray(
    masks.attention_mask(allowed, jnp.array([context]), jnp.array([motion]), jnp.array([hidden]), 1)
  )[0, 0]


def test_everything_there():
  np.testing.assert_array_equal(masks.layout(2, 2, 1, 2, causal=True), matrix(CAUSAL))
  np.testing.assert_array_equal(made([True, True], [True, True], False), matrix(CAUSAL))


def test_bidirectional_context_differs_within_the_context_only():
  expected = matrix(CAUSAL)
  expected[0, 1] = True
  np.testing.assert_array_equal(made([True, True], [True, True], False, causal=False), expected)


def test_missing_tokens_are_seen_by_themselves_only():
  np.testing.assert_array_equal(made([True, False], [True, False], False), matrix(PARTLY))


def test_hidden_motion():
  np.testing.assert_array_equal(made([False, True], [True, True], True), matrix(HIDDEN))


def test_several_tokens_a_motion():
  allowed = masks.layout(1, 1, 3, 1, causal=True)
  assert (
    allowed.shape == (6, 6)
    and allowed[:5, :5].sum() == 15
    and allowed[5].tolist() == [True] * 5 + [False]
  )
