"""Metrics on a handful of samples, with every number worked out by hand, and what their texts
say.
"""

import dataclasses

import numpy as np
import pytest

from como_jax import errors, evaluate
from como_jax.evaluate import (
  appearance,
  consistency,
  directions,
  linear_probe,
  probes,
  retrieval,
  similarity,
  splits,
  success,
)


def test_cosines_by_hand():
  past = np.array([[1.0, 0], [0, 2], [3, 0], [1, 1], [0, 1]])
  future = np.array([[2.0, 0], [1, 0], [-1, 0], [1, 0], [0, 5]])
  found = consistency.s_pcfc(past, future, bins=4)
  values = np.array([1, 0, -1, 0.5**0.5, 1])
  np.testing.assert_allclose(found.values, values, atol=1e-12)
  assert (
    (found.mean, found.std) == pytest.approx((values.mean(), values.std()))
    and found.zeros == 0
    and found.text == "5 pairs"
  )
  assert (
    found.quartiles == pytest.approx((0, 0.5**0.5, 1))
    and found.histogram.tolist() == [1, 0, 1, 3]
    and found.edges.tolist() == [-1, -0.5, 0, 0.5, 1]
  )
  center = np.concatenate([past, future]).mean(0)
  a, b = past - center, future - center
  cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
  assert found.mean_centered == pytest.approx(cosine.mean())
  whole = consistency.s_pcfc(past, future)
  assert (
    len(whole.histogram) == 40
    and len(whole.edges) == 41
    and (whole.edges[0], whole.edges[-1]) == (-1, 1)
  )


@pytest.mark.parametrize("length, kept", [(2e-8, True), (0.9e-8, False)])
def test_short_latents_have_no_direction(length, kept):
  z = np.eye(4)
  short = z.copy()
  short[0] *= length
  found = consistency.s_pcfc(z, short)
  assert (found.zeros, len(found.values)) == ((0, 4) if kept else (1, 3))
  assert found.text == (
    "4 pairs" if kept else "3 pairs; 1 more left out: a latent of length zero has no direction"
  )
  assert consistency.s_pcfc(z, short * 3, floor=0.5).zeros == 1  # relative to the usual length
  nothing = consistency.s_pcfc(0 * z, 0 * z)
  assert (
    nothing.quartiles == pytest.approx((np.nan,) * 3, nan_ok=True) and nothing.histogram.sum() == 0
  )


def test_ranks_by_hand():
  z = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]]) + [5, 0, 0]
  found = consistency.effective_rank(z)
  share = np.array([8, 2]) ** 0.5 / (8**0.5 + 2**0.5)
  np.testing.assert_allclose(found.singular_values, [8**0.5, 2**0.5, 0], atol=1e-12)
  assert (found.entropy, found.participation, found.dimensions) == pytest.approx(
    (np.exp(-(share * np.log(share)).sum()), 100 / 68, 3)
  )
  whole = consistency.effective_rank(z, center=False)
  np.testing.assert_allclose(whole.singular_values, [(4 * 25 + 8) ** 0.5, 2**0.5, 0], atol=1e-12)
  for size, kept in ((2e-7, True), (0.5e-7, False)):  # of the length of all
    values = consistency.effective_rank(
      np.array([[1.0, 0], [-1, 0], [0, size], [0, -size]])
    ).singular_values
    assert (values > 0).tolist() == [True, kept]


def test_principal_axes_by_hand():
  z = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]]) + [7, 7]
  points, share = consistency.principal_components(z)
  np.testing.assert_allclose(np.abs(points), [[3, 0], [3, 0], [0, 1], [0, 1]], atol=1e-12)
  np.testing.assert_allclose(share, [0.9, 0.1])
  points, share = consistency.principal_components(z, 3)
  assert points.shape == (4, 3) and not points[:, 2].any() and share[2] == 0
  assert not consistency.principal_components(np.ones((3, 2)))[1].any()
  assert consistency.principal_components(z, 1)[0].shape == (4, 1)


def test_columns_and_their_scale():
  values = np.array([[1.0, 5, 1], [3, 5, 1 + 1e-7], [5, 5, 1 - 1e-7]])
  mean, scale, constant = probes.scale_of(values)
  np.testing.assert_allclose(mean, [3, 5, 1])
  np.testing.assert_allclose(scale, [(8 / 3) ** 0.5, 1, 1])
  assert probes.scale_of(np.zeros((3, 1)))[2].all()
  with np.errstate(all="raise"):
    np.testing.assert_array_equal(
      probes._mean(np.array([[np.nan, np.nan], [1, np.nan]]), axis=1), [np.nan, 1]
    )
  assert (
    constant.tolist() == [False, True, True]
    and not probes.scale_of(np.array([[1.0], [1 + 4e-7]]))[2][0]
  )


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


def test_gains_by_hand():
  episodes = np.array([0, 0, 1, 2, 2])
  base = linear_probe.probe(
    np.ones((5, 1)), np.array([-1.0, 1, 1, 2, 3]), episodes=episodes, held_out=episodes > 0
  )
  np.testing.assert_allclose(base.errors, [1, 4, 9])
  better = dataclasses.replace(base, errors=np.array([1.0, 2, 3]))
  gain, error = probes.gain(better, base, episodes)
  # episodes 11, 12, 21, 22
  assert gain == pytest.approx((0 + 2 + 6) / 3) and error == pytest.approx(
    np.std([0, 8 / 3, 8 / 3, 4]), rel=0.1
  )
  values, ids = np.array([1.0, 2, 6]), np.array([0, 1, 1])
  drawn = np.random.default_rng(0).integers(2, size=(3, 2))
  means = np.array([1.0, 8])[drawn].sum(1) / np.array([1, 2])[drawn].sum(1)
  assert (
    probes.bootstrap(values, ids, draws=3) == pytest.approx(np.std(means, ddof=1))
    and len(set(means)) > 1
  )
  flat = linear_probe.probe(
    np.ones((4, 1)),
    np.array([-1.0, 1, 3, 3]),
    episodes=np.array([0, 0, 1, 2]),
    held_out=np.array([0, 0, 1, 1]),
  )
  assert np.isnan(flat.r2) and flat.mse == pytest.approx(9)  # what is held out does not vary
  with pytest.raises(errors.UserError, match="different samples"):
    probes.gain(dataclasses.replace(base, index=np.array([1, 3, 4])), base, episodes)


def test_scalars_leave_out_what_is_no_number():
  @dataclasses.dataclass
  class Result:
    a: int = 3
    b: float = 0.5
    c: bool = True
    d: object = dataclasses.field(default_factory=lambda: np.float32(2))
    e: str = "x"
    f: object = None
    g: object = dataclasses.field(default_factory=lambda: np.zeros(2))

  assert evaluate.scalars(Result()) == {"a": 3.0, "b": 0.5, "d": 2.0} and evaluate.scalars(
    Result(), "p/"
  ) == {"p/a": 3.0, "p/b": 0.5, "p/d": 2.0}


def test_identity_by_hand():
  z = np.array([[0.0], [0], [1], [1], [2], [2], [0], [0], [1], [1], [0], [1]])
  labels = np.array(["a", "a", "b", "b", "c", "c", "a", "a", "b", "b", "b", "b"])
  episodes = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
  one_hot = np.concatenate([z == 0, z == 1, z == 2], 1).astype(float)
  split = splits.split_by_episode(episodes, 0.5, seed=1)
  found = appearance.identity(one_hot, labels, episodes=episodes, fraction=0.5, seed=1)
  right = {"a": [], "b": [], "c": []}
  fitted = linear_probe.fit(
    one_hot[split.train],
    np.stack([labels[split.train] == c for c in "abc"], 1).astype(float),
    episodes[split.train],
    shared=True,
    seed=1,
  )
  for guess, label in zip(
    fitted(one_hot[split.held_out]).argmax(1), labels[split.held_out], strict=False
  ):
    right[label].append("abc"[guess] == label)
  by_class = [np.mean(right[c]) if right[c] else np.nan for c in "abc"]
  np.testing.assert_array_equal(found.by_class, by_class)
  assert (
    found.accuracy == pytest.approx(np.nanmean(by_class))
    and found.chance == pytest.approx(1 / 3)
    and found.classes == ("a", "b", "c")
  )
  assert found.excess == pytest.approx((found.accuracy - 1 / 3) / (2 / 3))
  assert found.text == (
    f"linear classifier, 3 classes, {split}; mean of the classes' accuracies; ridge "
    f"{fitted.ridges[0]:.3g} times the samples"
  )
  for given, message in (
    ((z, labels[:5], episodes), "hold 12, 5 and 12 samples"),
    ((z, labels, episodes[:3]), "hold 12, 12 and 3 samples"),
    ((z[:0], labels[:0], episodes[:0]), "found only none$"),
    ((z, np.zeros(12), episodes), "found only 0.0$"),
  ):
    with pytest.raises(errors.UserError, match=message):
      appearance.identity(given[0], given[1], episodes=given[2])


def test_similarity_by_hand():
  z = np.array([[1.0, 0], [0, 1], [1, 0], [0, 0]])
  found = similarity.matrix(z, np.array(["x", "x", "y", "y"]), center="none")
  np.testing.assert_allclose(found.values, [[0, 1 / 4], [1 / 4, 0]])
  assert found.labels == ("x", "y") and found.counts.tolist() == [2, 2]
  alone = similarity.matrix(z[:3], np.array(["x", "x", "y"]), center="none").values
  assert np.isnan(alone[1, 1]) and alone[0, 1] == pytest.approx(0.5)
  # of a single pair
  assert similarity.matrix(z[:2], np.array(["x", "y"]), center="none").values[0, 1] == 0
  centered = similarity.matrix(z + 5, np.array(["x", "x", "y", "y"]))
  mean = z - z.mean(0)
  unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
  assert centered.values[0, 0] == pytest.approx(unit[0] @ unit[1]) and centered.values[
    0, 1
  ] == pytest.approx((unit[:2] @ unit[2:].T).mean())
  viewed = similarity.matrix(
    np.array([[1.0, 0], [3, 0], [0, 1], [0, 5]]),
    np.array([0, 1, 0, 1]),
    center="view",
    views=np.array([0, 0, 1, 1]),
  )
  np.testing.assert_allclose(viewed.values, [[0, -0.5], [-0.5, 0]], atol=1e-12)
  with pytest.raises(
    errors.UserError, match=r"^groups has shape \(5,\), expected \(4,\), one a latent$"
  ):
    similarity.matrix(z, np.zeros(5))
  np.testing.assert_allclose(
    directions.of_rows(np.array([[3.0, 4], [1e-9, 0], [0, 2e-8], [1, 0]])),
    [[0.6, 0.8], [0, 0], [0, 1], [1, 0]],
  )


def test_retrieval_uses_some_of_many():
  rng = np.random.default_rng(0)
  z, views, episodes = rng.normal(size=(30, 3)), np.arange(30) % 2, np.arange(30) // 2
  found = retrieval.across_views(z, z, views=views, episodes=episodes, limit=10)
  assert (
    found.queries <= 10
    and found.text
    == f"{found.queries} queries, neighbors from other views and other episodes, centring: view"
  )
  again, other = (
    retrieval.across_views(z, z, views=views, episodes=episodes, limit=10, seed=seed)
    for seed in (0, 1)
  )
  assert again == found != other
  assert retrieval.across_views(z, z, views=views, episodes=episodes).queries == 30
  many = rng.normal(size=(2002, 2))
  assert (
    retrieval.across_views(many, many, views=np.arange(2002) % 2, episodes=np.arange(2002)).queries
    == 2000
  )


@pytest.mark.parametrize(
  "count, fraction, held",
  [
    (2, 0.2, 1),
    (2, 0.9, 1),
    (10, 0.2, 2),
    (10, 0.25, 2),
    (10, 0.26, 3),
    (10, 0.01, 1),
    (10, 0.99, 9),
    (4, 0.5, 2),
  ],
)
def test_how_many_episodes_are_held_out(count, fraction, held):
  split = splits.split_by_episode(np.arange(count), fraction)
  assert (split.held_out_episodes, split.train_episodes, int(split.held_out.sum())) == (
    held,
    count - held,
    held,
  )


def test_splits_by_hand():
  assert splits.split_by_episode(np.arange(20)).held_out_episodes == 4
  lone = splits.split_by_episode(np.arange(9), 0.5, groups=np.arange(9))  # no group has two
  assert lone.held_out_episodes == 4
  assert splits.split_by_episode(np.arange(3), 0.1, groups=np.arange(3)).held_out_episodes == 1
  groups = np.array([0, 0, 0, 0, 1])
  assert not splits.split_by_episode(np.arange(5), 0.5, groups=groups).held_out[4]
  found = splits.given([5, 5, 6, 7], [True, True, False, False])
  assert (
    str(found) == "2 training episodes (2 samples), 1 held-out episodes (2 samples)"
    and found.train.tolist() == [False, False, True, True]
  )
  for held, message in (
    ([True] * 4, "4 of 4 samples"),
    ([False] * 4, "0 of 4 samples"),
    ([True], r"shape \(1,\) and 1 of 4 samples"),
  ):
    with pytest.raises(errors.UserError, match=message):
      splits.given([5, 5, 6, 7], held)
  folds = list(splits.folds_by_episode(np.repeat(np.arange(7), 2), 3))
  assert [fold.held_out_episodes for fold in folds] == [3, 2, 2] and len(
    list(splits.folds_by_episode([0, 1, 2]))
  ) == 3
  assert (
    len(list(splits.folds_by_episode(np.arange(20)))) == 5
    and len(list(splits.folds_by_episode(np.arange(4), 2))) == 2
  )
  orders = [
    [fold.held_out.tolist() for fold in splits.folds_by_episode(np.arange(20), seed=seed)]
    for seed in (0, 0, 1)
  ]
  assert orders[0] == orders[1] != orders[2]
  dealt = list(splits.folds_by_episode(np.arange(8), 4, groups=np.arange(8) // 4))
  assert all(fold.held_out[:4].sum() == fold.held_out[4:].sum() == 1 for fold in dealt)
  for call, message in (
    (lambda: list(splits.folds_by_episode(np.arange(4), 1)), "^folds is 1, expected at least 2$"),
    (
      lambda: splits.split_by_episode([1, 1], 0.5),
      "^a split by episode needs at least 2 episodes, found 1$",
    ),
    (
      lambda: splits.split_by_episode([1, 2], 0.5, groups=[1]),
      r"^groups has shape \(1,\), expected \(2,\) as episodes$",
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      call()


def test_students_t_of_the_printed_table():
  """Two-sided 95 % points for 1 to 10 degrees of freedom."""
  printed = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]
  assert [success._t95(n) for n in range(1, 11)] == printed
  assert [round(success._t95(n), 3) for n in (11, 15, 30, 1000)] == [2.201, 2.131, 2.042, 1.962]


def test_correlations_by_hand():
  """Newcombe 1998: continuity-corrected when positive, not when negative, 0 when a margin is
  empty.
  """
  assert success._correlation(14, 5, 0, 22) == pytest.approx(
    (14 * 22 - 0 - 41 / 2) / (19 * 22 * 14 * 27) ** 0.5
  )
  assert success._correlation(1, 9, 8, 2) == pytest.approx((2 - 72) / (10 * 10 * 9 * 11) ** 0.5)
  assert success._correlation(2, 1, 1, 2) == 0  # less than the correction
  assert [
    success._correlation(*counts)
    for counts in ((3, 0, 2, 0), (0, 0, 2, 3), (3, 2, 0, 0), (0, 3, 0, 2))
  ] == [0] * 4


def test_levels_and_records():
  wide, narrow = success.rate(5, 10), success.rate(5, 10, level=0.5)
  assert (
    narrow.low > wide.low and narrow.high < wide.high and wide == success.rate(5, 10, level=0.95)
  )
  assert wide.to_json() == {"value": 0.5, "low": wide.low, "high": wide.high, "count": 10}
  assert success._z(0.95) == pytest.approx(1.959964, abs=1e-6) and success._z(0.5) == pytest.approx(
    0.674490, abs=1e-6
  )
  for name, given in (
    ("mean_over_tasks", ({"a": (3, 9)},)),
    ("compare", ((3, 9), (5, 9))),
    ("compare_paired", ([True, False, True], [False, False, True])),
  ):
    function = getattr(success, name)
    default, same, half = (
      function(*given, **level) for level in ({}, {"level": 0.95}, {"level": 0.5})
    )
    assert default == same != half
  assert (
    success.compare((3, 9), (5, 8)).difference.count == 17
    and success.compare_paired([True, False, True], [False, False, True]).difference.count == 3
  )
  assert (
    success.mean_over_tasks({"a": (0, 3), "b": (0, 3)}).low == 0
    and success.mean_over_tasks({"a": (0, 3), "b": (3, 3)}).value == 0.5
  )
  for level in (0, 1):
    with pytest.raises(errors.UserError, match="expected a number between 0 and 1"):
      success.rate(1, 2, level=level)
  with pytest.raises(errors.UserError):
    success.rate(-1, 2)
  with pytest.raises(
    errors.UserError,
    match="^a paired comparison of 2 and 1 episodes: expected the same episodes of both$",
  ):
    success.compare_paired([True, False], [True])
