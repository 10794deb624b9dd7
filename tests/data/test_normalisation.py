"""Normalisation of robots and latent motion: apply, invert, store, merge."""

import json

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import normalisation, statistics


def of(rows):
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  return accumulator.finish()


ROWS = np.random.default_rng(0).normal(size=(500, 3)) * [1, 50, 0] + [0, 7, 2]


def made(mode="standard"):
  return normalisation.Normaliser(mode, {"arm": {"action": of(ROWS), "state": of(ROWS[:, :2])}, "hand": {"action": of(ROWS[:, :1])}}, of(ROWS))


@pytest.mark.parametrize("mode", statistics.MODES)
def test_inverses_are_exact_and_json_changes_nothing(mode):
  first = made(mode)
  second = normalisation.Normaliser.from_json(json.loads(json.dumps(first.to_json())))
  x = ROWS[:24].reshape(2, 12, 3)
  for one in (first, second):
    np.testing.assert_allclose(one.inverse_actions("arm", one.actions("arm", x)), x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one.inverse_latents(one.latents(x)), x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one.inverse_state("arm", one.state("arm", x[..., :2])), x[..., :2], rtol=1e-12, atol=1e-12)
    half = x.astype(np.float32)
    assert one.actions("arm", half).dtype == np.float32
    np.testing.assert_allclose(one.inverse_actions("arm", one.actions("arm", half)), half, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(first.actions("arm", x), second.actions("arm", x))
  assert first.to_json() == second.to_json()


def test_units():
  rows = made().actions("arm", ROWS)
  np.testing.assert_allclose(rows.mean(0), 0, atol=1e-12)
  np.testing.assert_allclose(rows.std(0), [1, 1, 0], atol=1e-12)  # what never changes is only moved
  rows = made("quantile").actions("arm", ROWS)
  np.testing.assert_allclose(np.quantile(rows, [0.01, 0.99], axis=0)[:, :2], [[-1, -1], [1, 1]], atol=1e-9)
  assert made().actions("hand", np.array([1, 2])[:, None]).dtype == np.float32  # whole numbers are not cut


def test_mistakes_are_told():
  one = made()
  for call, message in (
    (lambda: one.actions("amr", ROWS), "no robot 'amr': did you mean 'arm'"),
    (lambda: one.state("hand", ROWS), "no state of robot 'hand'"),
    (lambda: one.actions("arm", ROWS[:, :2]), r"action of robot 'arm': got shape \[500, 2\], expected \[..., 3\]"),
    (lambda: one.latents(np.float32(1)), "latent motion: got shape"),
    (lambda: normalisation.Normaliser("standard", {}).latents(ROWS), "computed without labels"),
    (lambda: normalisation.Normaliser("standrad", {}), "did you mean 'standard'"),
    (lambda: normalisation.Normaliser.from_json({"mode": "standrad", "robots": {}, "latent": None}), "did you mean 'standard'"),
  ):
    with pytest.raises(errors.UserError, match=message):
      call()
  whole = one.to_json()
  for junk in ({}, [], {**whole, "robots": 3}, {**whole, "latent": {"count": 2}}, {**whole, "robots": {"a": {"state": whole["latent"]}}}):
    with pytest.raises(errors.UserError, match="not the normalisation of a policy"):
      normalisation.Normaliser.from_json(junk)


def test_merged_statistics():
  found, whole = normalisation.merge([of(ROWS[:100]), of(ROWS[100:400]), of(ROWS[400:])]), of(ROWS)
  for name in ("count", "mean", "std", "min", "max"):
    np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-9)
  np.testing.assert_allclose(found.q99[0], whole.q99[0], atol=0.3)
