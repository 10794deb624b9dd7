"""The network that reads z: one epoch by hand, the best epoch, and known worlds."""

import jax
import numpy as np
import optax
import pytest

from como_jax.evaluate import linear_probe, mlp_probe, splits
from tests.evaluate.linear_worlds import linear_world


def test_mlp_reads_what_a_line_cannot():
  rng = np.random.default_rng(0)
  z = rng.normal(size=(2000, 4))
  targets, episodes = np.stack([z[:, 0] * z[:, 1], np.abs(z[:, 2])], axis=1), np.arange(2000) // 40
  linear = linear_probe.probe(z, targets, episodes=episodes, seed=3)
  mlp = mlp_probe.probe(
    z,
    targets,
    episodes=episodes,
    seed=3,
    network=mlp_probe.Network(hidden=64, epochs=60, learning_rate=1e-2),
  )
  assert linear.mse > 0.9 and mlp.mse < 0.2 and mlp.r2 > 0.8
  np.testing.assert_array_equal(linear.index, mlp.index)
  again = mlp_probe.probe(
    z,
    targets,
    episodes=episodes,
    seed=3,
    network=mlp_probe.Network(hidden=64, epochs=60, learning_rate=1e-2),
  )
  assert again.mse == mlp.mse


def test_mlp_on_noise_stops_early():
  z, _, episodes = linear_world(4000)
  noise = np.random.default_rng(1).normal(size=(4000, 1))
  result = mlp_probe.probe(
    z, noise, episodes=episodes, network=mlp_probe.Network(hidden=32, epochs=40, patience=5)
  )
  assert 0.85 < result.mse < 1.2 and -0.1 < result.r2 < 0.03 and "epoch" in result.text


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
