"""Hashed words: numbers that are part of checkpoints."""

import ml_collections
import numpy as np

from como_jax import language
from tests.language.small import TEXTS
from tests.language.small import cache as cache  # a fixture


def test_hash_is_what_it_was():
  """The numbers are part of checkpoints: a change here makes trained policies deaf."""
  encoder = language.build({"kind": "hash", "width": 8})
  tokens, mask = encoder(["Open the door!", "open the door", "the door open", "", "?!"])
  assert mask[:, 0].tolist() == [True, True, True, False, False]
  np.testing.assert_array_equal(tokens[0], tokens[1])
  assert np.abs(tokens[1] - tokens[2]).max() > 0.1, "the order of words counts"
  np.testing.assert_allclose(tokens[0, 0], np.array([0, 1, 0, -1, 0, 2, 0, -1]) / 7**0.5, atol=1e-6)
  assert encoder.fingerprint == "hash-8-pooled"


def test_hash_tokens_are_words():
  encoder = language.build(
    ml_collections.ConfigDict({"kind": "hash", "pooled": False, "num_tokens": 4})
  )
  tokens, mask = encoder(TEXTS)
  assert tokens.shape == (5, 4, 64) and mask.sum(axis=1).tolist() == [3, 0, 3, 4, 0]
  np.testing.assert_array_equal(tokens[0, 2], tokens[2, 2])  # "the door"
  assert (tokens[0, 1] != tokens[2, 1]).any()  # "open the", "close the"
  np.testing.assert_allclose(np.linalg.norm(tokens[mask], axis=-1), 1, atol=1e-6)


def test_hash_writes_nothing(cache):
  language.build({"kind": "hash"})(TEXTS)
  assert not cache.exists()
