"""Kernel ridge: choice, invariance, limits."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.exam import kernel_ridge


def world(count=600, seed=0, noise=0.0):
  """Z [N, 4], targets (linear, curved, noise) [N, 3], groups of 3 [N]."""
  random = np.random.default_rng(seed)
  z = random.normal(size=(count, 4))
  targets = np.stack(
    [z @ [1.0, -2.0, 0.5, 0.0], np.sin(2 * z[:, 0]) * z[:, 1], random.normal(size=count)], axis=1
  )
  return (
    z,
    targets + noise * random.normal(size=targets.shape) + [5.0, 0.0, -3.0],
    np.arange(count) // 3,
  )


def share(probe, z, targets):
  """Error in units of the variance, per dimension."""
  return ((probe.predict(z) - targets) ** 2).mean(axis=0) / targets.var(axis=0)


def test_each_target_gets_what_suits_it():
  z, targets, groups = world()
  probe = kernel_ridge.fit(z, targets, groups=groups)
  error = share(probe, *world(seed=1)[:2])
  assert error[0] < 1e-4 and error[1] < 0.1 and 0.95 < error[2] < 1.1
  assert probe.chosen[0][0] is None and probe.chosen[1][0] is not None
  linear = kernel_ridge.fit(z, targets, groups=groups, kernels=("linear",))
  assert (
    share(linear, *world(seed=1)[:2])[1] > 0.8 and "RBF" not in linear.text and "RBF" in probe.text
  )


def test_linear_is_ridge_regression_in_closed_form():
  z, targets, groups = world(noise=1.0)
  probe = kernel_ridge.fit(z, targets[:, :1], groups=groups, kernels=("linear",))
  ridge = probe.chosen[0][1]
  values, vectors = np.linalg.eigh(np.cov(z.T, bias=True))
  # 4 directions: a mean square of 1 in sum
  white = (z - z.mean(axis=0)) @ vectors / np.sqrt(values) / 2
  weights = (
    np.linalg.inv(white.T @ white + ridge * np.eye(4))
    @ white.T
    @ (targets[:, 0] - targets[:, 0].mean())
  )
  np.testing.assert_allclose(
    probe.predict(z)[:, 0], white @ weights + targets[:, 0].mean(), rtol=1e-9
  )


@pytest.mark.parametrize("width", [4, 64, 2000])
def test_a_linear_map_to_more_numbers_changes_nothing(width):
  z, targets, groups = world(count=300)
  mixed = np.random.default_rng(3).normal(size=(4, width)) * np.geomspace(1, 30, width)
  plain = kernel_ridge.fit(z, targets, groups=groups)
  probe = kernel_ridge.fit((z @ mixed + 7).astype(np.float32), targets, groups=groups)
  new = world(seed=1)[0]
  assert probe.chosen == plain.chosen and probe.inputs.shape[1] == 4
  difference = (
    probe.predict((new @ mixed + 7).astype(np.float32)) - plain.predict(new)
  ) / targets.std(axis=0)
  assert np.abs(difference).max() < 0.01


def test_standardizing_alone_keeps_the_loud_directions_loud():
  random = np.random.default_rng(0)
  signal = random.normal(size=(400, 1))
  wide = signal @ np.ones((1, 300)) + 0.5 * random.normal(size=(400, 300))
  fitted = [
    kernel_ridge.fit(
      wide[:300], signal[:300], groups=np.arange(300), whiten=whiten, kernels=("linear",)
    )
    for whiten in (False, True)
  ]
  error = [share(probe, wide[300:], signal[300:])[0] for probe in fitted]
  assert error[0] < 0.02 and error[1] > 0.3


def test_knowing_nothing_costs_little():
  random = np.random.default_rng(0)
  z, targets = random.normal(size=(600, 400)), random.normal(size=(600, 3))
  error = share(
    kernel_ridge.fit(z[:450], targets[:450], groups=np.arange(450)), z[450:], targets[450:]
  )
  assert error.max() < 1.05


def test_inputs_that_are_all_the_same_predict_the_mean():
  targets = np.arange(12.0).reshape(12, 1)
  for kernels in (("linear", "rbf"), ("rbf",)):
    for whiten in (True, False):
      probe = kernel_ridge.fit(
        np.ones((12, 3)), targets, groups=np.arange(12), kernels=kernels, whiten=whiten
      )
      np.testing.assert_allclose(probe.predict(np.ones((2, 3))), 5.5)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_inputs_of_two_values_tell_their_classes(share):
  """Codes of a quantized latent: most samples are the same, so the median of all distances is 0."""
  random = np.random.default_rng(0)
  code = random.permutation(np.arange(400) < share * 400)
  targets = np.stack([3.0 * code, random.normal(size=400)], axis=1)
  for kernels in (("rbf",), kernel_ridge.KERNELS):
    probe = kernel_ridge.fit(
      np.stack([code, ~code], axis=1), targets, groups=np.arange(400) // 2, kernels=kernels
    )
    np.testing.assert_allclose(probe.predict([[0, 1], [1, 0]])[:, 0], [0, 3], atol=0.1)


def test_groups_stay_together_in_the_choice(monkeypatch):
  index = np.repeat(np.arange(40), 5)
  train, held = kernel_ridge.inner_split(index, 0)
  assert (
    not set(index[train]) & set(index[held])
    and len(set(index[held])) == 10
    and len(train) + len(held) == 200
  )
  assert set(held) != set(kernel_ridge.inner_split(index, 1)[1])
  monkeypatch.setattr(kernel_ridge, "SELECT", 60)
  train, held = kernel_ridge.inner_split(index, 0)
  assert len(train) + len(held) == 60 and len(held) == 15


def test_groups_decide_the_ridge():
  """Three copies of every sample: a split by sample would find that memory pays."""
  random = np.random.default_rng(0)
  z, targets = (
    np.repeat(random.normal(size=(100, 8)), 3, axis=0),
    np.repeat(random.normal(size=(100, 1)), 3, axis=0),
  )
  by_group = kernel_ridge.fit(z, targets, groups=np.repeat(np.arange(100), 3))
  by_sample = kernel_ridge.fit(z, targets, groups=np.arange(300))
  assert by_group.inner[0] > 0.8 and by_sample.inner[0] < 0.2


def test_one_choice_for_all_targets_of_a_class():
  z, targets, groups = world()
  chosen = kernel_ridge.fit(z, targets, groups=groups, blocks=[7, 7, 2]).chosen
  assert chosen[0] == chosen[1] and chosen[2] != chosen[0]
  assert len(set(kernel_ridge.fit(z, targets, groups=groups).chosen)) == 3


def test_a_prediction_in_pieces_is_whole(monkeypatch):
  z, targets, groups = world(count=120)
  probe = kernel_ridge.fit(z, targets, groups=groups)
  whole = probe.predict(z)
  monkeypatch.setattr(kernel_ridge, "CHUNK", 50)
  np.testing.assert_allclose(probe.predict(z), whole, rtol=1e-9)


def test_errors_are_one_line():
  z, targets, groups = world(count=12)
  bad = z.copy()
  bad[3, 1] = np.nan
  for arguments, text in (
    ((bad, targets, groups), r"inputs: 1 of 12 rows hold values that are not finite"),
    ((z[:5], targets, groups), "hold 5, 12 and 12 samples"),
    ((z, targets, np.zeros(12)), "at least 2 groups"),
    ((z[:, 0], targets, groups), r"inputs: expected two axes .*\[12\]"),
  ):
    with pytest.raises(errors.UserError, match=text):
      kernel_ridge.fit(arguments[0], arguments[1], groups=arguments[2])
  with pytest.raises(errors.UserError, match="'linaer' is not known: did you mean 'linear'"):
    kernel_ridge.fit(z, targets, groups=groups, kernels=("linaer",))
  with pytest.raises(errors.UserError, match=r"new inputs: expected \[M, 4\], found \[12, 3\]"):
    kernel_ridge.fit(z, targets, groups=groups).predict(z[:, :3])
