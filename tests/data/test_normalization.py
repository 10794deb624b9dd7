"""Normalization of robots and latent motion: apply, invert, store, merge."""

import json

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import index, normalization, policy_pipeline, shards, statistics
from tests.data import makers


def of(rows):
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  return accumulator.finish()


ROWS = np.random.default_rng(0).normal(size=(500, 3)) * [1, 50, 0] + [0, 7, 2]


def made(mode="standard"):
  return normalization.Normalizer(
    mode,
    {"arm": {"action": of(ROWS), "state": of(ROWS[:, :2])}, "hand": {"action": of(ROWS[:, :1])}},
    of(ROWS),
  )


@pytest.mark.parametrize("mode", statistics.MODES)
def test_inverses_are_exact_and_json_changes_nothing(mode):
  first = made(mode)
  second = normalization.Normalizer.from_json(json.loads(json.dumps(first.to_json())))
  x = ROWS[:24].reshape(2, 12, 3)
  for one in (first, second):
    np.testing.assert_allclose(
      one.inverse_actions("arm", one.actions("arm", x)), x, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(one.inverse_latents(one.latents(x)), x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
      one.inverse_state("arm", one.state("arm", x[..., :2])), x[..., :2], rtol=1e-12, atol=1e-12
    )
    half = x.astype(np.float32)
    assert one.actions("arm", half).dtype == np.float32
    np.testing.assert_allclose(
      one.inverse_actions("arm", one.actions("arm", half)), half, rtol=1e-5, atol=1e-5
    )
  np.testing.assert_array_equal(first.actions("arm", x), second.actions("arm", x))
  assert first.to_json() == second.to_json()


def test_units():
  rows = made().actions("arm", ROWS)
  np.testing.assert_allclose(rows.mean(0), 0, atol=1e-12)
  np.testing.assert_allclose(rows.std(0), [1, 1, 0], atol=1e-12)  # what never changes is only moved
  rows = made("quantile").actions("arm", ROWS)
  np.testing.assert_allclose(
    np.quantile(rows, [0.01, 0.99], axis=0)[:, :2], [[-1, -1], [1, 1]], atol=1e-9
  )
  # whole numbers are not cut
  assert made().actions("hand", np.array([1, 2])[:, None]).dtype == np.float32


def test_mistakes_are_told():
  one = made()
  for call, message in (
    (lambda: one.actions("amr", ROWS), "no robot 'amr': did you mean 'arm'"),
    (lambda: one.state("hand", ROWS), "no state of robot 'hand'"),
    (
      lambda: one.actions("arm", ROWS[:, :2]),
      r"action of robot 'arm': got shape \[500, 2\], expected \[..., 3\]",
    ),
    (lambda: one.latents(np.float32(1)), "latent motion: got shape"),
    (lambda: normalization.Normalizer("standard", {}).latents(ROWS), "computed without labels"),
    (lambda: normalization.Normalizer("standrad", {}), "did you mean 'standard'"),
    (
      lambda: normalization.Normalizer.from_json(
        {"mode": "standrad", "robots": {}, "latent": None}
      ),
      "did you mean 'standard'",
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      call()
  whole = one.to_json()
  for junk in (
    {},
    [],
    {**whole, "robots": 3},
    {**whole, "latent": {"count": 2}},
    {**whole, "robots": {"a": {"state": whole["latent"]}}},
  ):
    with pytest.raises(errors.UserError, match="not the normalization of a policy"):
      normalization.Normalizer.from_json(junk)


def test_merged_statistics():
  found, whole = normalization.merge([of(ROWS[:100]), of(ROWS[100:400]), of(ROWS[400:])]), of(ROWS)
  for name in ("count", "mean", "std", "min", "max"):
    np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-9)
  np.testing.assert_allclose(found.q99[0], whole.q99[0], atol=0.3)


def gripper_rows(closed, *, blends=0.0, low=-0.25, high=0.75):
  """[1000, 2]: a joint, and a gripper that is at `high` for a share of the time and between for
  another.
  """
  rows = np.random.default_rng(1).normal(size=(1000, 2)).astype(np.float32)
  order = np.arange(1000)
  rows[:, 1] = np.where(order < 1000 * closed, high, low)
  rows[1000 - int(1000 * blends) :, 1] = low + 0.6 * (high - low)
  return rows


def arm_of(rows, mode):
  return normalization.Normalizer(mode, {"arm": {"action": of(rows)}})


@pytest.mark.parametrize("mode", statistics.MODES)
@pytest.mark.parametrize("closed", [0.5, 0.9, 0.01, 0.005, 0.995])
def test_a_gripper_has_two_values_and_no_other(mode, closed):
  """Whichever side is rare, in both modes: -1 and 1 inside, the data's own two values outside,
  whatever a sampler says.
  """
  rows = gripper_rows(closed)
  one = normalization.Normalizer.from_json(json.loads(json.dumps(arm_of(rows, mode).to_json())))
  assert one.grippers("arm") == (1,)
  inside = one.actions("arm", rows)
  np.testing.assert_array_equal(inside[:, 1], np.where(rows[:, 1] > 0, 1, -1))
  np.testing.assert_array_equal(one.inverse_actions("arm", inside)[:, 1], rows[:, 1])
  said = np.array([[0.0, -7.0], [0.0, -0.1], [0.0, 0.1], [0.0, 3.0]], np.float32)
  np.testing.assert_array_equal(
    one.inverse_actions("arm", said)[:, 1], np.float32([-0.25, -0.25, 0.75, 0.75])
  )
  np.testing.assert_allclose(
    one.inverse_actions("arm", one.actions("arm", rows))[:, 0], rows[:, 0], rtol=1e-4, atol=1e-6
  )


def test_means_over_a_switch_belong_to_the_nearer_value():
  rows = gripper_rows(0.5, blends=0.04)
  one = arm_of(rows, "standard")
  assert one.grippers("arm") == (1,)
  np.testing.assert_array_equal(
    one.actions("arm", np.float32([[0, -0.2], [0, 0.2], [0, 0.3]]))[:, 1], [-1, -1, 1]
  )


@pytest.mark.parametrize("mode", statistics.MODES)
@pytest.mark.parametrize(
  "column",
  [
    gripper_rows(0.5, blends=0.08)[:, 1],  # too many between
    np.where(np.arange(1000) < 980, 0, np.linspace(0, 1, 1000)),  # rests, then moves
    # one wild value must not turn all others into one
    np.where(np.arange(1000) == 3, 1e6, np.sin(np.arange(1000))),
    np.arange(1000) % 3,
  ],
  ids=["blends", "rests", "wild", "three"],
)
def test_what_has_more_values_stays_as_it_is(mode, column):
  rows = np.stack([np.arange(1000.0), column], 1)
  one = arm_of(rows, mode)
  assert one.grippers("arm") == ()
  np.testing.assert_allclose(
    one.inverse_actions("arm", one.actions("arm", rows)), rows, rtol=1e-6, atol=1e-6
  )


def test_quantiles_of_what_hardly_ever_moves():
  """Its 1 % and 99 % quantiles are one number: the whole range is used, instead of units in which
  its moves are huge or tiny.
  """
  for scale in (1e-3, 1.0, 1e3):
    rows = scale * np.where(np.arange(1000) < 995, 0, np.linspace(0, 1, 1000))[:, None]
    one = arm_of(rows, "quantile")
    np.testing.assert_allclose(np.unique(one.actions("arm", rows))[[0, -1]], [-1, 1], atol=1e-9)
    np.testing.assert_allclose(
      one.inverse_actions("arm", one.actions("arm", rows)), rows, atol=1e-9 * scale
    )


@pytest.mark.parametrize("mode", statistics.MODES)
@pytest.mark.parametrize("value, spread", [(1.569, 3e-7), (0.0, 0.0), (0.0, 1e-8), (-250.0, 1e-4)])
def test_what_never_moves_is_its_constant(mode, value, spread):
  """float32 noise is not motion: neither blown up for the loss nor served as motion, for actions
  and states.
  """
  noise = np.random.default_rng(0).uniform(-spread, spread, 400)
  rows = np.stack([np.sin(np.arange(400)), value + noise], 1).astype(np.float32)
  one = normalization.Normalizer(mode, {"arm": {"action": of(rows), "state": of(rows)}})
  for key in ("action", "state"):
    assert list(one.constants("arm", key)) == [1] and one.constants("arm", key)[1] == pytest.approx(
      value, abs=spread
    )
  for made_, back in ((one.actions, one.inverse_actions), (one.state, one.inverse_state)):
    assert not made_("arm", rows)[:, 1].any()
    served = back("arm", np.random.default_rng(2).normal(size=(50, 2)).astype(np.float32))[:, 1]
    assert (
      served.dtype == np.float32
      and (served == served[0]).all()
      and abs(float(served[0]) - value) <= spread
    )
  assert one.grippers("arm") == ()


def test_small_numbers_that_move_are_no_constants():
  rows = np.stack([1e-4 * np.sin(np.arange(300)), 1e3 + 0.5 * np.cos(np.arange(300))], 1)
  one = normalization.Normalizer("standard", {"arm": {"action": of(rows)}})
  assert one.constants("arm", "action") == {} and one.constants("arm", "state") == {}
  np.testing.assert_allclose(one.actions("arm", rows).std(0), 1, rtol=1e-6)


def test_older_statistics_know_no_two_values():
  """A checkpoint from before grippers were looked for acts as it was trained."""
  stored = arm_of(gripper_rows(0.5), "standard").to_json()
  del stored["robots"]["arm"]["action"]["binary"]
  one = normalization.Normalizer.from_json(stored)
  assert one.grippers("arm") == ()
  found = one.robots["arm"]["action"]
  np.testing.assert_allclose(
    one.inverse_actions("arm", np.float32([[0, 0.5]]))[0, 1],
    found.mean[1] + 0.5 * found.std[1],
    rtol=1e-6,
  )


def test_merged_grippers_keep_two_values_only_where_they_are_the_same():
  a, b, other = (
    of(gripper_rows(share, high=high)) for share, high in ((0.5, 0.75), (0.1, 0.75), (0.5, 1.0))
  )
  assert normalization.merge([a, b]).two_valued.tolist() == [False, True]
  assert not normalization.merge([a, other]).two_valued.any()


def test_statistics_leave_out_validation_episodes(tmp_path):
  path = makers.shards(tmp_path / "s", (5,) * 20)  # the second number of an action is its episode's
  found = policy_pipeline.statistics(
    [policy_pipeline.PolicySet(path, robot="arm")], validation_fraction=0.2
  ).robots["arm"]
  table = shards.read_table(path)
  train = sorted(
    {
      int(name.split("_")[1])
      for name in np.array(table.episodes)[table.episode[index.select(table, "train", 0.2)]]
    }
  )
  assert len(train) == 16 and found["action"].count == found["state"].count == 16 * 5
  np.testing.assert_allclose(found["action"].mean[1], np.mean(train))
  assert (found["action"].min[1], found["action"].max[1]) == (train[0], train[-1])
