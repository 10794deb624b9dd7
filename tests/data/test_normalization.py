"""Normalization of robots and latent motion: apply, invert, store."""

import json

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import index, normalization, shards, statistics, value_transforms
from como_jax.data.policy_index import PolicySet
from tests.data import flat, makers


def of(rows):
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  return accumulator.finish()


ROWS = np.random.default_rng(0).normal(size=(500, 3)) * [1, 50, 0] + [0, 7, 2]


def made(mode="standard"):
  return normalization.MixtureStatistics(
    {"arm": {"action": of(ROWS), "state": of(ROWS[:, :2])}, "hand": {"action": of(ROWS[:, :1])}},
    of(ROWS),
  ).normalization(mode)


@pytest.mark.parametrize("mode", statistics.MODES)
def test_inverses_are_exact_and_json_changes_nothing(mode):
  x = ROWS[:24].reshape(2, 12, 3)
  whole = made(mode)
  for transforms, values in (
    (whole.robots["arm"]["action"], x),
    (whole.robots["arm"]["state"], x[..., :2]),
    (whole.latent, x),
  ):
    stored = json.loads(json.dumps(value_transforms.to_json(transforms)))
    again = value_transforms.from_json(stored, where="here")
    assert again == transforms
    normalized = value_transforms.apply(transforms, values)
    np.testing.assert_allclose(
      value_transforms.invert(again, normalized), values, rtol=1e-12, atol=1e-12
    )
    half = values.astype(np.float32)
    normalized = value_transforms.apply(transforms, half)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(
      value_transforms.invert(transforms, normalized), half, rtol=1e-5, atol=1e-5
    )


def test_units():
  rows = value_transforms.apply(made().robots["arm"]["action"], ROWS)
  np.testing.assert_allclose(rows.mean(0), 0, atol=1e-12)
  np.testing.assert_allclose(rows.std(0), [1, 1, 0], atol=1e-12)  # what never changes is only moved
  rows = value_transforms.apply(made("quantile").robots["arm"]["action"], ROWS)
  np.testing.assert_allclose(
    np.quantile(rows, [0.01, 0.99], axis=0)[:, :2], [[-1, -1], [1, 1]], atol=1e-9
  )


def test_mistakes_are_told():
  numbers = {"arm": {"action": of(ROWS)}}
  with pytest.raises(errors.UserError, match="did you mean 'standard'"):
    normalization.MixtureStatistics(numbers).normalization("standrad")
  assert normalization.MixtureStatistics(numbers).normalization("standard").latent is None
  whole = flat.stored_normalization("standard", numbers, of(ROWS))
  mode, found = normalization.from_json(json.loads(json.dumps(whole)))
  assert mode == "standard"
  np.testing.assert_array_equal(found.robots["arm"]["action"].std, of(ROWS).std)
  np.testing.assert_array_equal(found.latent.mean, of(ROWS).mean)
  for junk in (
    {},
    [],
    {**whole, "robots": 3},
    {**whole, "latent": {"count": 2}},
    {**whole, "robots": {"a": {"state": whole["latent"]}}},
  ):
    with pytest.raises(errors.UserError, match="not the normalization of a policy"):
      normalization.from_json(junk)


def gripper_rows(closed, *, blends=0.0, low=-0.25, high=0.75):
  """[1000, 2]: a joint, and a gripper that is at `high` for a share of the time and between for
  another.
  """
  rows = np.random.default_rng(1).normal(size=(1000, 2)).astype(np.float32)
  order = np.arange(1000)
  rows[:, 1] = np.where(order < 1000 * closed, high, low)
  rows[1000 - int(1000 * blends) :, 1] = low + 0.6 * (high - low)
  return rows


class Action:
  """The transforms of one robot's actions."""

  def __init__(self, rows, mode, key="action"):
    numbers = normalization.MixtureStatistics({"arm": {key: of(rows)}})
    self.transforms = numbers.normalization(mode).robots["arm"][key]

  def apply(self, x):
    return value_transforms.apply(self.transforms, x)

  def invert(self, x):
    return value_transforms.invert(self.transforms, x)

  @property
  def grippers(self):
    return value_transforms.two_valued(self.transforms)

  @property
  def constants(self):
    return value_transforms.constants(self.transforms)


@pytest.mark.parametrize("mode", statistics.MODES)
@pytest.mark.parametrize("closed", [0.5, 0.9, 0.01, 0.005, 0.995])
def test_a_gripper_has_two_values_and_no_other(mode, closed):
  """Whichever side is rare, in both modes: -1 and 1 inside, the data's own two values outside,
  whatever a sampler says.
  """
  rows = gripper_rows(closed)
  one = Action(rows, mode)
  assert one.grippers == (1,)
  inside = one.apply(rows)
  np.testing.assert_array_equal(inside[:, 1], np.where(rows[:, 1] > 0, 1, -1))
  np.testing.assert_array_equal(one.invert(inside)[:, 1], rows[:, 1])
  said = np.array([[0.0, -7.0], [0.0, -0.1], [0.0, 0.1], [0.0, 3.0]], np.float32)
  np.testing.assert_array_equal(one.invert(said)[:, 1], np.float32([-0.25, -0.25, 0.75, 0.75]))
  np.testing.assert_allclose(one.invert(one.apply(rows))[:, 0], rows[:, 0], rtol=1e-4, atol=1e-6)


def test_means_over_a_switch_belong_to_the_nearer_value():
  rows = gripper_rows(0.5, blends=0.04)
  one = Action(rows, "standard")
  assert one.grippers == (1,)
  np.testing.assert_array_equal(
    one.apply(np.float32([[0, -0.2], [0, 0.2], [0, 0.3]]))[:, 1], [-1, -1, 1]
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
  one = Action(rows, mode)
  assert one.grippers == ()
  np.testing.assert_allclose(one.invert(one.apply(rows)), rows, rtol=1e-6, atol=1e-6)


def test_quantiles_of_what_hardly_ever_moves():
  """Its 1 % and 99 % quantiles are one number: the whole range is used, instead of units in which
  its moves are huge or tiny.
  """
  for scale in (1e-3, 1.0, 1e3):
    rows = scale * np.where(np.arange(1000) < 995, 0, np.linspace(0, 1, 1000))[:, None]
    one = Action(rows, "quantile")
    np.testing.assert_allclose(np.unique(one.apply(rows))[[0, -1]], [-1, 1], atol=1e-9)
    np.testing.assert_allclose(one.invert(one.apply(rows)), rows, atol=1e-9 * scale)


@pytest.mark.parametrize("mode", statistics.MODES)
@pytest.mark.parametrize("value, spread", [(1.569, 3e-7), (0.0, 0.0), (0.0, 1e-8), (-250.0, 1e-4)])
def test_what_never_moves_is_its_constant(mode, value, spread):
  """float32 noise is not motion: neither blown up for the loss nor served as motion, for actions
  and states.
  """
  noise = np.random.default_rng(0).uniform(-spread, spread, 400)
  rows = np.stack([np.sin(np.arange(400)), value + noise], 1).astype(np.float32)
  for key in ("action", "state"):
    one = Action(rows, mode, key)
    assert one.constants == {1: pytest.approx(value, abs=spread)}
    assert not one.apply(rows)[:, 1].any()
    served = one.invert(np.random.default_rng(2).normal(size=(50, 2)).astype(np.float32))[:, 1]
    assert (
      served.dtype == np.float32
      and (served == served[0]).all()
      and abs(float(served[0]) - value) <= spread
    )
    assert one.grippers == ()


def test_small_numbers_that_move_are_no_constants():
  rows = np.stack([1e-4 * np.sin(np.arange(300)), 1e3 + 0.5 * np.cos(np.arange(300))], 1)
  one = Action(rows, "standard")
  assert one.constants == {}
  np.testing.assert_allclose(one.apply(rows).std(0), 1, rtol=1e-6)


def test_older_statistics_know_no_two_values():
  """A checkpoint from before grippers were looked for acts as it was trained."""
  numbers = of(gripper_rows(0.5))
  stored = flat.stored_normalization("standard", {"arm": {"action": numbers}})
  del stored["robots"]["arm"]["action"]["binary"]
  mode, found = normalization.from_json(stored)
  transforms = found.normalization(mode).robots["arm"]["action"]
  assert value_transforms.two_valued(transforms) == ()
  np.testing.assert_allclose(
    value_transforms.invert(transforms, np.float32([[0, 0.5]]))[0, 1],
    numbers.mean[1] + 0.5 * numbers.std[1],
    rtol=1e-6,
  )


def test_statistics_leave_out_validation_episodes(tmp_path):
  path = makers.shards(tmp_path / "s", (5,) * 20)  # the second number of an action is its episode's
  sets = [PolicySet(path, robot="arm")]
  found = flat.statistics(sets, validation_fraction=0.2).robots["arm"]
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
