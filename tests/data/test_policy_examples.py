"""Actions and instructions of an example."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import policy_examples


def test_actions_of_a_step():
  actions = np.arange(10.0).reshape(5, 2)
  for how, expected in (
    ("mean", [[1, 2], [6, 7], [8, 9]]),
    ("first", [[0, 1], [4, 5], [8, 9]]),
    ("last", [[2, 3], [8, 9], [8, 9]]),
  ):
    found = policy_examples.reduce_actions(actions, np.array([0, 2, 4]), np.array([2, 5, 5]), how)
    assert found.tolist() == expected and found.dtype == np.float32
  single = policy_examples.reduce_actions(actions, np.array([0, 3]), np.array([1, 4]), "mean")
  assert single.tolist() == [[0, 1], [6, 7]]


def test_instructions_have_one_shape():
  language = {"a": (np.zeros((2, 3)), np.ones(2, bool)), "b": (np.zeros((2, 4)), np.ones(2, bool))}
  for texts in (
    language,
    {"a": (np.zeros(3), np.ones(3, bool))},
    {"a": (np.zeros((2, 3)), np.ones(3, bool))},
    {},
  ):
    with pytest.raises(errors.UserError, match="^embeddings of instructions have shapes"):
      policy_examples._texts([], texts)
  assert policy_examples._texts([], {"a": language["a"]}) == ([], [])


def test_reduction_of_overlapping_steps():
  actions = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
  found = policy_examples.reduce_actions(
    actions, np.arange(9), np.minimum(np.arange(9) + 4, 9), "mean"
  )
  np.testing.assert_allclose(found, [actions[t : t + 4].mean(0) for t in range(9)], rtol=1e-6)
