"""Ridge regression: known worlds, numbers by hand, and what its texts say."""

import numpy as np
import pytest

from benchmarks import simulated_probe
from como_jax import errors
from como_jax.evaluate import appearance, linear_probe, mlp_probe, splits
from tests.evaluate.linear_worlds import linear_world


def asked(monkeypatch, module, name):
  """Remembers how a function is called."""
  calls, function = [], getattr(module, name)
  monkeypatch.setattr(
    module, name, lambda *given, **more: calls.append((given[1:], more)) or function(*given, **more)
  )
  return calls


def test_how_episodes_are_held_out(monkeypatch):
  one, several = (
    asked(monkeypatch, splits, "split_by_episode"),
    asked(monkeypatch, splits, "folds_by_episode"),
  )
  z, episodes, groups = (
    np.random.default_rng(0).normal(size=(40, 2)),
    np.arange(40) // 4,
    np.arange(40) // 20,
  )
  linear_probe.probe(z, z, episodes=episodes)
  linear_probe.probe(z, z, episodes=episodes, held_out=splits.Share(0.4, groups), seed=3)
  appearance.identity(z, groups, episodes=episodes)
  appearance.identity(z, groups, episodes=episodes, fraction=0.4, seed=3, groups=groups)
  assert [(given, more["seed"], more["groups"] is groups) for given, more in one] == [
    ((0.2,), 0, False),
    ((0.4,), 3, True),
  ] * 2
  linear_probe.cross_validate(z, z, episodes=episodes)
  linear_probe.cross_validate(z, z, episodes=episodes, folds=2, seed=3, groups=groups)
  outer = [
    (given, more["seed"], more["groups"] is groups) for given, more in several if "groups" in more
  ]
  assert outer == [((5,), 0, False), ((2,), 3, True)]
  assert {(given, more["seed"]) for given, more in several if "groups" not in more} == {
    ((5,), 0),
    ((5,), 3),
  }, "of the ridge"


def test_texts_of_probes():
  z, episodes = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) // 4
  targets = np.concatenate([z, np.ones((40, 1))], 1)
  found = linear_probe.probe(z, targets, episodes=episodes, names=("x", "y", "still"))
  assert found.text == (
    "ridge regression, ridge 1e-08 to inf times the samples, chosen by 5 folds over training "
    "episodes for each dimension; targets standardized by the training episodes (1 = nothing "
    "known); 8 training episodes (32 samples), 2 held-out episodes (8 samples); constant in "
    "training, left out: still; fitted on half of the training episodes: 0.000"
  )
  folds = linear_probe.cross_validate(np.tile(z, 2), z, episodes=episodes)
  assert folds.text == (
    "ridge regression, ridge 1e-08 times the samples, chosen by 5 folds over training episodes "
    "for each dimension; targets standardized by the training episodes (1 = nothing known); 5 "
    "folds by episode (first: 8 training episodes (32 samples), 2 held-out episodes (8 samples)); "
    "mean and standard error over folds, which share training data"
  )
  assert (
    found.names == ("x", "y", "still")
    and folds.names == ("dimension 0", "dimension 1")
    and found.folds == 1
    and folds.half is None
  )


@pytest.mark.parametrize("episodes", [[0, 0, 0, 1, 1, 1], [0] * 6])
def test_a_line_by_hand(episodes):
  inputs = np.stack([np.arange(6.0), np.full(6, 7.0)], 1)
  # a single episode is cut into stretches
  fitted = linear_probe.fit(inputs, 2 * inputs[:, :1] + 1, np.array(episodes))
  # a column that never moved says nothing
  np.testing.assert_allclose(fitted(np.array([[3.0, 7], [10, -9]])), [[7], [21]], rtol=1e-5)
  # one sample has a mean
  assert linear_probe.fit(np.ones((1, 2)), np.full((1, 1), 4.0), np.zeros(1))(np.zeros((1, 2))) == 4


def test_linear_world_is_zero():
  z, targets, episodes = linear_world()
  for result in (
    linear_probe.probe(z, targets, episodes=episodes),
    linear_probe.cross_validate(z, targets, episodes=episodes, folds=3),
  ):
    assert result.mse < 1e-10 and result.mse_by_dimension.max() < 1e-10 and result.r2 > 1 - 1e-10
    np.testing.assert_allclose(result.true, targets[result.index])
    assert (
      "ridge 1e-08 times" in result.text
      and "standardized" in result.text
      and "episodes" in result.text
    )


def test_noise_is_one():
  z, _, episodes = linear_world(4000)
  targets = np.random.default_rng(1).normal(size=(4000, 2)) * np.array([3.0, 0.1])
  result = linear_probe.probe(z, targets, episodes=episodes, names=("x", "y"))
  np.testing.assert_allclose(result.mse_by_dimension, 1.0, atol=0.12)
  np.testing.assert_allclose(result.mse_raw_by_dimension / np.array([9.0, 0.01]), 1.0, atol=0.12)
  assert abs(result.r2) < 0.05 and 0 < result.standard_error < 0.1


def test_known_noise_level():
  """A target that is half z and half noise has a normalized MSE of one half."""
  rng = np.random.default_rng(0)
  z = rng.normal(size=(6000, 4))
  result = linear_probe.cross_validate(
    z, z[:, :1] + rng.normal(size=(6000, 1)), episodes=np.arange(6000) // 30
  )
  assert abs(result.mse - 0.5) < 0.03 and 0 < result.standard_error < 0.03 and result.folds == 5
  assert sorted(result.index) == list(range(6000))


def test_dependent_columns_are_no_trouble():
  z, targets, episodes = linear_world()
  doubled = np.concatenate([z, z, np.ones((len(z), 1))], axis=1).astype(np.float32)
  result = linear_probe.probe(doubled, targets, episodes=episodes)
  assert result.mse < 1e-9


def test_more_dimensions_than_samples_is_finite():
  z = np.random.default_rng(0).normal(size=(40, 100))
  assert np.isfinite(linear_probe.probe(z, z[:, :2], episodes=np.arange(40) // 4).mse)


@pytest.mark.parametrize("width", [16, 512])
def test_the_error_does_not_grow_with_the_width(width):
  """The same information in a narrow and a wide z, 0.5 at best; without a ridge 512 numbers score
  1.0 and more.
  """
  found = simulated_probe.measure(width, seed=1)
  assert 0.45 < found["tuned"] <= found["probe"] < found["tuned"] + 0.03 and found["probe"] < 0.9
  assert found["smallest ridge"] > {16: 0.5, 512: 1.0}[width]


def test_what_cannot_be_read_scores_what_the_mean_scores():
  z, _, episodes = simulated_probe.world(256, seed=0)
  targets = np.random.default_rng(9).normal(size=(len(z), 2))
  held_out = episodes >= simulated_probe.FITTED
  mean = linear_probe.probe(np.ones((len(z), 1)), targets, episodes=episodes, held_out=held_out).mse
  assert linear_probe.probe(z, targets, episodes=episodes, held_out=held_out).mse < mean + 0.01
  assert (
    mlp_probe.probe(
      z,
      targets,
      episodes=episodes,
      held_out=held_out,
      network=mlp_probe.Network(epochs=20, patience=3),
    ).mse
    < mean + 0.01
  )


def test_each_dimension_has_its_own_ridge_and_shared_ones_one():
  rng = np.random.default_rng(0)
  z, episodes = rng.normal(size=(200, 3)), np.arange(200) // 10
  outputs = np.stack([z[:, 0], rng.normal(size=200)], 1)
  fitted = linear_probe.fit(z, outputs, episodes)
  assert fitted.ridges[0] == linear_probe.RIDGES[0] and fitted.ridges[1] > 1
  assert len(set(linear_probe.fit(z, outputs, episodes, shared=True).ridges)) == 1


def test_a_ridge_by_hand():
  z = np.random.default_rng(0).normal(size=(30, 4)) * [1, 2, 3, 4] + 5
  outputs, ridges = z @ np.array([[1.0, 0], [0, 1], [1, 1], [0, 2]]), np.array([0.25, 4.0])
  x, y = (z - z.mean(0)) / z.std(0), outputs - outputs.mean(0)
  for rows in (30, 3):  # more windows than numbers, and fewer
    part = linear_probe._fitted(z[:rows], outputs[:rows], ridges)
    x, y = (z[:rows] - z[:rows].mean(0)) / z[:rows].std(0), outputs[:rows] - outputs[:rows].mean(0)
    for a, ridge in enumerate(ridges):
      weights = np.linalg.solve(x.T @ x + rows * ridge * np.eye(4), x.T @ y[:, a])
      np.testing.assert_allclose(
        part(z)[:, a],
        (z - z[:rows].mean(0)) / z[:rows].std(0) @ weights + outputs[:rows, a].mean(),
        rtol=1e-8,
      )
  mean = linear_probe._fitted(z, outputs, np.array([np.inf, np.inf]))
  np.testing.assert_allclose(mean(z), np.broadcast_to(outputs.mean(0), (30, 2)))


def test_too_few_windows_are_told():
  z, targets, episodes = simulated_probe.world(256, seed=1)
  held_out = episodes >= simulated_probe.FITTED
  few = linear_probe.probe(z, targets, episodes=episodes, held_out=held_out)
  assert few.half - few.mse > linear_probe.TOO_FEW and "too few windows for 256 numbers" in few.text
  z, targets, episodes = simulated_probe.world(16, seed=1)
  enough = linear_probe.probe(z, targets, episodes=episodes, held_out=held_out)
  assert (
    enough.half == pytest.approx(enough.mse, abs=linear_probe.TOO_FEW)
    and "too few" not in enough.text
  )
  # By hand: each half of the training episodes alone, scored on the same held-out windows in the
  # units of all of them.
  names = np.random.default_rng(0).permutation(np.arange(simulated_probe.FITTED))
  alone = [
    linear_probe.probe(
      z[rows], targets[rows], episodes=episodes[rows], held_out=held_out[rows]
    ).mse_raw_by_dimension
    for rows in (held_out | np.isin(episodes, names[k::2]) for k in (0, 1))
  ]
  assert enough.half == pytest.approx((np.mean(alone, 0) / targets[~held_out].var(0)).mean())


def test_constant_z_knows_nothing():
  _, targets, episodes = linear_world()
  assert abs(linear_probe.probe(np.ones((600, 8)), targets, episodes=episodes).mse - 1) < 0.2


def test_constant_target_is_left_out_and_named():
  z, targets, episodes = linear_world()
  targets[:, 1] = 0.3
  result = linear_probe.probe(z, targets, episodes=episodes, names=("x", "gripper", "y"))
  assert np.isnan(result.mse_by_dimension[1]) and result.mse < 1e-10 and "gripper" in result.text


def test_scale_of_targets_does_not_matter():
  z, targets, episodes = linear_world()
  targets = targets + np.random.default_rng(2).normal(size=targets.shape) * targets.std(axis=0)
  first, second = (
    linear_probe.probe(z, scale * targets, episodes=episodes) for scale in (1.0, 1000.0)
  )
  np.testing.assert_allclose(first.mse, second.mse, rtol=1e-9)
  np.testing.assert_allclose(first.mse_raw * 1e6, second.mse_raw, rtol=1e-9)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"z": np.full((10, 2), np.nan)}, "nan"),
    ({"z": np.zeros((9, 2))}, "same number"),
    ({"names": ("x",)}, "names"),
    ({"episodes": np.zeros(10)}, "2 episodes"),
    ({"z": np.zeros(10)}, "two axes"),
  ],
)
def test_bad_input(change, message):
  given = {
    "z": np.ones((10, 2)),
    "targets": np.zeros((10, 2)),
    "episodes": np.arange(10),
    "names": None,
  } | change
  with pytest.raises(errors.UserError, match=message):
    linear_probe.probe(
      given["z"], given["targets"], episodes=given["episodes"], names=given["names"]
    )


def test_probe_split_is_the_public_one():
  z, targets, episodes = linear_world()
  held = splits.split_by_episode(episodes, 0.2, seed=5).held_out
  np.testing.assert_array_equal(
    linear_probe.probe(z, targets, episodes=episodes, seed=5).index, np.flatnonzero(held)
  )


def test_a_given_split_must_not_cut_an_episode():
  episodes, z = np.repeat(np.arange(4), 5), np.zeros((20, 1))
  with pytest.raises(
    errors.UserError, match="1 episodes have samples on both sides of the split, the first: 1"
  ):
    linear_probe.probe(z, z, episodes=episodes, held_out=np.arange(20) >= 7)


def test_errors_are_in_units_of_the_training_side():
  """A constant z predicts the training mean: by hand, with sides whose means and spreads differ."""
  train, held = np.array([[-1.0, 4], [1, 8], [-1, 4], [1, 8]]), np.array([[3.0, 6], [9, 6]])
  targets, episodes = np.concatenate([train, held]), np.array([0, 0, 1, 1, 2, 3])
  result = linear_probe.probe(np.ones((6, 2)), targets, episodes=episodes, held_out=episodes >= 2)
  np.testing.assert_allclose(result.predicted, [[0, 6], [0, 6]], atol=1e-12)
  np.testing.assert_allclose(result.mse_raw_by_dimension, [(9 + 81) / 2, 0], atol=1e-12)
  # variances of the training side: 1 and 4
  np.testing.assert_allclose(result.mse_by_dimension, [45 / 1, 0 / 4], atol=1e-12)
  # of the held-out side: 9 and none
  np.testing.assert_allclose(result.r2_by_dimension, [1 - 45 / 9, np.nan])
  np.testing.assert_allclose(result.errors, [9 / 2, 81 / 2])
  assert result.mse == pytest.approx(22.5) and result.mse_raw == pytest.approx(22.5)


def standard_error(by_sample, episodes):
  """That of a probe whose held-out samples have these errors: z and the training targets say 0 +-
  1, the held-out targets are the roots.
  """
  targets = np.concatenate([[-1.0, 1.0], np.sqrt(by_sample)])[:, None]
  episodes = np.concatenate([[-2, -1], episodes])
  return linear_probe.probe(
    np.ones((len(targets), 1)), targets, episodes=episodes, held_out=episodes >= 0
  ).standard_error


def test_the_standard_error_counts_episodes_and_not_samples():
  # Two episodes of errors 0 and 1, drawn again: means of 0, 1/2 and 1 with chances of 1/4, 1/2 and
  # 1/4. Samples drawn one by one would give 0.5 / sqrt(200).
  by_sample, episodes = np.repeat([0.0, 1.0], 100), np.repeat([0, 1], 100)
  assert standard_error(by_sample, episodes) == pytest.approx(np.sqrt(1 / 8), rel=0.1)
  # An episode of a single sample weighs little where the other is drawn too.
  uneven = np.array([1.0, *np.zeros(99)]), np.array([0, *np.ones(99)])
  means = np.array([1, 1 / 100, 1 / 100, 0])
  assert standard_error(*uneven) == pytest.approx(means.std(), rel=0.1)
  assert standard_error(np.ones(5), np.zeros(5)) is None, "one episode says nothing about others"
  assert standard_error(np.ones(6), np.arange(6) // 2) == pytest.approx(0, abs=1e-12)


def test_folds_give_the_mean_and_the_standard_error_over_folds():
  # Two folds of one episode each; z knows nothing, so each fold's error is (the distance of the
  # means squared + 1) / 1.
  targets = np.array([-1.0, 1, 2, 4, 2, 4])[:, None]
  result = linear_probe.cross_validate(
    np.ones((6, 1)), targets, episodes=np.array([0, 0, 1, 1, 1, 1]), folds=2
  )
  assert (result.folds, result.mse) == (
    2,
    pytest.approx(10),
  ) and result.standard_error == pytest.approx(0, abs=1e-9)
  spread = np.array([-1.0, 1, 1, 5])[:, None]  # means 0 and 3, variances 1 and 4
  result = linear_probe.cross_validate(
    np.ones((4, 1)), spread, episodes=np.array([0, 0, 1, 1]), folds=2
  )
  by_fold = np.array([(9 + 4) / 1, (9 + 1) / 4])
  assert result.mse == pytest.approx(by_fold.mean()) and result.standard_error == pytest.approx(
    np.ptp(by_fold) / 2
  )
  assert result.mse_raw == pytest.approx((13 + 10) / 2) and result.r2 == pytest.approx(
    ((1 - 13 / 4) + (1 - 10)) / 2
  )
