"""The MLP probe's optimizer and stopping, and numbers of drawn frames, by hand."""

import jax
import numpy as np
import optax
import pytest

from como_jax import errors
from como_jax.evaluate import mlp_probe, outcomes, reconstruction, splits


def parameters(seed=0):
  rng = np.random.default_rng(seed)
  shapes = {"w1": (3, 5), "b1": (1, 5), "w2": (5, 2), "b2": (1, 2)}
  return {name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}


def test_an_epoch_is_adam_with_decoupled_decay_of_the_matrices():
  rng, params = np.random.default_rng(1), parameters()
  x, y = np.float32(rng.normal(size=(6, 3))), np.float32(rng.normal(size=(6, 2)))
  order = np.array([[0, 3], [5, 1], [2, 4]])
  optimizer = optax.adamw(
    0.01,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.5,
    mask={"w1": True, "b1": False, "w2": True, "b2": False},
  )
  zeros = jax.tree.map(np.zeros_like, params)
  state, loss = mlp_probe._epoch(
    (params, zeros, zeros, np.int32(0)),
    (x, y),
    order,
    (x[:2], y[:2]),
    learning_rate=0.01,
    weight_decay=0.5,
  )
  state, _ = mlp_probe._epoch(
    state, (x, y), order[:1], (x[:2], y[:2]), learning_rate=0.01, weight_decay=0.5
  )
  expected, inner = params, optimizer.init(params)
  for index in order.tolist() + order[:1].tolist():
    update, inner = optimizer.update(
      jax.grad(mlp_probe._loss)(expected, x[index], y[index]), inner, expected
    )
    expected = optax.apply_updates(expected, update)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state[0], expected
  )
  assert int(state[3]) == 4 and loss > 0


def test_the_network_by_hand():
  params, x = parameters(), np.float32(np.random.default_rng(2).normal(size=(4, 3)))
  hidden = np.asarray(jax.nn.gelu(x @ params["w1"] + params["b1"]))
  found = mlp_probe._apply(params, x)
  np.testing.assert_allclose(found, hidden @ params["w2"] + params["b2"], rtol=1e-5, atol=1e-5)
  assert float(mlp_probe._loss(params, x, np.float32(found) + 0.5)) == pytest.approx(0.25, rel=1e-5)


NETWORK = mlp_probe.Network(
  hidden=7, epochs=9, patience=3, batch_size=4, learning_rate=0.1, weight_decay=0.2
)


def fit(monkeypatch, losses, *, before=5.0, samples=11):
  """(number of the kept epoch, kept parameters, calls of `_epoch`) with scripted losses."""
  calls, script = [], iter(losses)

  def epoch(state, train, order, checks, **how):
    assert [len(side) for pair in (train, checks) for side in pair] == [samples] * 2 + [2] * 2
    calls.append((order, how))
    return ({"epoch": len(calls)}, *state[1:]), next(script)

  monkeypatch.setattr(mlp_probe, "_epoch", epoch)
  monkeypatch.setattr(mlp_probe, "_loss", lambda params, x, y: before)
  held = np.arange(samples + 2) >= samples
  inner = splits.Split(~held, held, 2, 1)
  inputs = np.float32(np.random.default_rng(0).normal(size=(samples + 2, 3)))
  params, best = mlp_probe._fit(inputs, inputs[:, :2], inner, seed=4, network=NETWORK)
  return best, params, calls


def test_the_best_epoch_is_kept_and_patience_ends(monkeypatch):
  best, params, calls = fit(monkeypatch, [4.0, 3.0, 3.0, 3.5, 3.2, 1.0])
  # as good is no better, and three epochs without end it
  assert (best, params, len(calls)) == (2, {"epoch": 2}, 5)
  for order, how in calls:
    assert (order.shape, how) == ((2, 4), {"learning_rate": 0.1, "weight_decay": 0.2})
    assert len(set(order.reshape(-1))) == 8 and order.max() <= 10
  assert not np.array_equal(calls[0][0], calls[1][0])
  best, params, calls = fit(monkeypatch, [4.0, 3.0, 3.5, 3.6, 2.0, 2.5, 1.0, 0.9, 0.8, 0.7])
  assert (best, len(calls)) == (9, 9)
  best, params, calls = fit(monkeypatch, [6.0] * 9)
  # no epoch was better than none
  assert (best, len(calls)) == (0, 3) and set(params) == {"w1", "b1", "w2", "b2"}
  assert fit(monkeypatch, [4.0] * 9, samples=3)[2][0][0].shape == (1, 3)


def test_first_parameters(monkeypatch):
  _, params, _ = fit(monkeypatch, [6.0] * 9)
  rng = np.random.default_rng(4)
  np.testing.assert_allclose(params["w1"], rng.normal(size=(3, 7)) / 3**0.5, rtol=1e-5)
  assert params["w2"].shape == (7, 2) and not params["w2"].any(), (
    "before the first epoch the mean is predicted"
  )
  assert (
    params["b1"].shape == (1, 7)
    and params["b2"].shape == (1, 2)
    and not params["b1"].any()
    and not params["b2"].any()
  )


def test_what_the_probe_fits(monkeypatch):
  calls, held = [], []
  monkeypatch.setattr(
    mlp_probe,
    "_fit",
    lambda inputs, outputs, inner, **how: (
      calls.append((inputs, outputs, inner, how)) or ("params", 6)
    ),
  )
  monkeypatch.setattr(mlp_probe, "_apply", lambda params, inputs: np.zeros((len(inputs), 1)))
  split = splits.split_by_episode
  monkeypatch.setattr(
    splits,
    "split_by_episode",
    lambda ids, fraction, **how: held.append((fraction, how)) or split(ids, fraction, **how),
  )
  rng, episodes = np.random.default_rng(0), np.arange(40) // 2
  z = np.concatenate([rng.normal(3, 5, size=(40, 2)), np.full((40, 1), 7.0)], 1)
  found = mlp_probe.probe(z, z[:, 0], episodes=episodes)
  assert held == [(0.2, {"seed": 0, "groups": None}), (0.15, {"seed": 0})]
  ((inputs, outputs, inner, how),) = calls
  assert how == dict(
    seed=0,
    network=mlp_probe.Network(
      hidden=256, epochs=200, patience=15, batch_size=256, learning_rate=1e-3, weight_decay=1e-3
    ),
  )
  assert (
    inputs.dtype == outputs.dtype == np.float32
    and not inputs[:, 2].any()
    and inner.held_out_episodes == 2
  )
  np.testing.assert_allclose(inputs[:, :2].mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(inputs[:, :2].std(0), 1, rtol=1e-5)
  assert found.text.startswith(
    "MLP 3-256-1 (GELU), Adam 0.001, best of inner held-out episodes at epoch 6 of at most 200; "
    "targets"
  )
  held.clear()
  mlp_probe.probe(z, z[:, 0], episodes=episodes, held_out=splits.Share(0.3, episodes % 2), seed=2)
  assert (
    held[0][0] == 0.3
    and held[0][1]["seed"] == held[1][1]["seed"] == 2
    and held[0][1]["groups"] is not None
  )
  given = mlp_probe.probe(
    z, z[:, 0], episodes=episodes, held_out=episodes > 16, network=mlp_probe.Network(hidden=8)
  )
  assert given.index.tolist() == list(range(34, 40)) and "MLP 3-8-1" in given.text


def frames(*levels, size=12):
  return np.stack([np.full((size, size, 3), level, np.float64) for level in levels])


def test_errors_of_frames_by_hand():
  target, current = frames(0.5, 0.5), frames(0.5, 0.5)
  # 12 of 144 pixels move; one of 144 in one channel
  current[0, :3, :4], current[1, 0, 0, 1] = 0.4, 0.551
  predicted = target.copy()
  predicted[0, :6] += 0.2
  found = reconstruction.measure(predicted, target, current=current)
  np.testing.assert_allclose(found["mse"], [0.02, 0])
  np.testing.assert_allclose(found["copy_mse"], [0.01 * 12 / 144, 0.051**2 / 432])
  np.testing.assert_allclose(found["psnr"], [-10 * np.log10(0.02), 100])
  np.testing.assert_allclose(found["copy_psnr"], -10 * np.log10(found["copy_mse"]))
  np.testing.assert_allclose(found["moving_error"], [0.04 * 36, 0], atol=1e-12)
  np.testing.assert_allclose(found["moving_copy_error"], [0.01 * 36, 0.051**2])
  assert (
    found["moving_values"].tolist() == [36, 3]
    and found["values"].tolist() == [432, 432]
    and found["threshold"].tolist() == [0.05] * 2
  )
  np.testing.assert_allclose(found["ssim"], [reconstruction.ssim(predicted[:1], target[:1])[0], 1])
  np.testing.assert_allclose(found["copy_ssim"], reconstruction.ssim(current, target))
  result = reconstruction.summarize([found])
  assert (result.mse, result.psnr, result.ratio) == pytest.approx(
    (0.01, (100 - 10 * np.log10(0.02)) / 2, 0.01 / found["copy_mse"].mean())
  )
  assert (result.moving_mse, result.moving_copy_mse) == pytest.approx(
    (0.04 * 36 / 39, (0.36 + 0.051**2) / 39)
  )
  assert result.moving_ratio == pytest.approx(
    result.moving_mse / result.moving_copy_mse
  ) and result.moving_fraction == pytest.approx(39 / 864)
  assert (
    result.text
    == (
      "2 images, values in [0, 1]; moving: |target - current| > 0.05 in any channel; PSNR "
      "capped at 100 dB"
    )
    and result.images == 2
  )
  assert reconstruction.compare(predicted, target, current=current) == result
  half = reconstruction.compare(predicted, target, current=current, threshold=0.0625)
  assert (
    half.moving_fraction == pytest.approx(36 / 864)
    and half.threshold == 0.0625
    and "> 0.0625 in" in half.text
  )
  exact = reconstruction.measure(frames(0.5), frames(0.5), current=frames(0.25), threshold=0.25)
  assert not exact["moving_values"].any()  # by more than the threshold


def test_sizes_that_have_a_structure():
  for height, width, known in ((11, 11, True), (10, 11, False), (11, 10, False)):
    image = np.full((1, height, width, 3), 0.5)
    found = reconstruction.measure(image, image, current=image)
    assert np.isnan(found["ssim"][0]) == np.isnan(found["copy_ssim"][0]) != known
  with pytest.raises(
    errors.UserError, match="^images are 11x10, expected at least 11x11 for SSIM$"
  ):
    reconstruction.ssim(np.zeros((1, 11, 10, 3)), np.zeros((1, 11, 10, 3)))


def test_what_is_no_image():
  good = frames(0.5)
  for what, given, message in (
    ("target", frames(1.0005), None),
    ("target", frames(1.002), "^target spans 1 to 1"),
    ("current", frames(-0.002), "^current spans"),
    ("current", frames(-0.0005), None),
    ("predicted", frames(1.7), None),
    ("predicted", frames(np.nan), "^predicted spans nan"),
    ("target", good[0], r"^target has shape \(12, 12, 3\), expected"),
    ("current", frames(0.5, 0.5), "have shapes"),
  ):
    given = {"predicted": good, "target": good, "current": good} | {what: given}
    current = given.pop("current")
    if message is None:
      reconstruction.measure(**given, current=current)
      continue
    with pytest.raises(errors.UserError, match=message):
      reconstruction.measure(**given, current=current)
  clipped = reconstruction.measure(frames(1.7), frames(1.0), current=good)
  assert clipped["mse"].tolist() == [0.0] and reconstruction._unit(
    np.full((1, 1, 1, 1), 51, np.uint8), "x"
  ) == pytest.approx(0.2)


def test_batches_of_one_threshold():
  batch = reconstruction.measure(frames(0.1), frames(0.5), current=frames(0.3))
  with pytest.raises(errors.UserError, match="different thresholds"):
    reconstruction.summarize([batch, batch | {"threshold": np.array([0.06])}])
  for none in ([], [{name: value[:0] for name, value in batch.items()}]):
    with pytest.raises(errors.UserError, match="^no images to score"):
      reconstruction.summarize(none)
  assert reconstruction._ratio(1.0, 2.0) == 0.5 and np.isnan(reconstruction._ratio(1.0, 0.0))


def test_rollouts_that_are_odd():
  assert outcomes.place("suite/x", "toy", ["suite/x"]) == ("toy", 0) and outcomes.place(
    "7", "toy", ["a", "7"]
  ) == ("toy", 1)
  empty = outcomes.summary([], ["a"])
  assert empty == {"tasks": {}, "overall": None, "errors": []}
  info = outcomes.eval_info([], {})
  assert info["per_task"] == [] and info["overall"] == {
    "avg_sum_reward": None,
    "avg_max_reward": None,
    "pc_success": None,
    "n_episodes": 0,
    "video_paths": [],
    "eval_s": 0,
    "eval_ep_s": 0,
  }
