"""What the probes predict: actions that are positions become action minus state, whatever the order
and names of the state.
"""

import numpy as np

from como_jax.evaluate import probe_targets
from tests.evaluate import test_positions as recordings

NAMES = {"action": [["a", "b", "c", "d"]], "state": [["a", "b", "c", "d"]]}


def columns(made, seed, first=0, order=(0, 1, 2, 3), extra=0):
  """Columns of the windows of a recording: two pairs each, of which the first is never to be read.

  States stand in another order, before `extra` numbers that no action has.
  """
  action, state, _, change = recordings.windows(made, seed)
  count = len(action)

  def put(values):
    return np.concatenate([values[:, order], np.ones((count, extra))], axis=1)

  def second(values):
    return np.stack([np.full_like(values, 99.0), values], axis=1)

  return {
    "action": second(action),
    "state_mean": second(put(state)),
    "state_delta": second(put(change)),
    "stride": np.full(count, recordings.STRIDE),
    "has_action": np.ones(count, bool),
    "has_state": np.ones(count, bool),
    "group": first + np.arange(count) * recordings.EPISODES // count,
    "dataset": np.zeros(count, int),
    "action_size": np.full(count, 4),
    "state_size": np.full(count, 4 + extra),
  }, action - state


def build(made, *, names=NAMES, name="action", **how):
  fit, held_out = (columns(made, seed, first=100 * seed, **how) for seed in (0, 1))
  target = probe_targets.build(name, fit[0], held_out[0], names=names, datasets=["arm"])
  return target, fit, held_out


def test_positions_are_probed_as_action_minus_state():
  target, fit, held_out = build(recordings.absolute)
  (robot,) = target.robots
  np.testing.assert_allclose(robot.values, np.concatenate([fit[1], held_out[1]]), atol=1e-6)
  assert target.positions == 1 and robot.positions.all() and robot.names == ("a", "b", "c", "d")
  assert target.notes == (
    "action of arm: the actions are positions (the next state tells them), which no motion tells: "
    "probed is action minus state, and the change of state beside it",
  )
  np.testing.assert_array_equal(robot.scored, np.arange(len(held_out[1])))
  target, fit, held_out = build(recordings.delta)
  np.testing.assert_array_equal(
    target.robots[0].values, np.concatenate([fit[0]["action"], held_out[0]["action"]])[:, 1]
  )
  assert target.positions == 0 and target.notes == ()
  assert (
    build(recordings.delta_with_gripper)[0]
    .notes[0]
    .startswith("action of arm: 1 of 4 actions are positions")
  )
  assert build(recordings.absolute, name="state")[0].robots[0].positions is None


def test_actions_are_compared_with_the_states_that_they_lead_to():
  def columns(seed, ahead):
    # frames of a pair of 5 and one more, each anywhere
    state = np.random.default_rng(seed).normal(size=(60, 7, 1))

    def pair(values):
      return np.stack([np.zeros((60, 1)), values], axis=1)

    return {
      "action": pair(state[:, ahead : 5 + ahead].mean(1)),
      "state_mean": pair(state[:, :5].mean(1)),
      "state_delta": pair(state[:, 5] - state[:, 0]),
      "stride": np.full(60, 5),
      "has_action": np.ones(60, bool),
      "has_state": np.ones(60, bool),
      "group": 100 * seed + np.arange(60) // 10,
      "dataset": np.zeros(60, int),
      "action_size": np.ones(60, int),
      "state_size": np.ones(60, int),
    }

  def ask(ahead):
    return probe_targets.build(
      "action",
      columns(0, ahead),
      columns(1, ahead),
      names={"action": [None], "state": [None]},
      datasets=["arm"],
    )

  assert ask(1).positions == 1 and ask(0).positions == 0


def test_states_are_found_by_their_names():
  shuffled = {"action": NAMES["action"], "state": [["c", "a", "d", "b", "extra"]]}
  target, fit, held_out = build(recordings.absolute, names=shuffled, order=(2, 0, 3, 1), extra=1)
  np.testing.assert_allclose(
    target.robots[0].values, np.concatenate([fit[1], held_out[1]]), atol=1e-6
  )
  # Without names another number of them cannot be compared, and the same number is compared in
  # order.
  nameless = {"action": [None], "state": [None]}
  assert build(recordings.absolute, names=nameless, extra=1)[0].positions is None
  assert build(recordings.absolute, names=nameless)[0].positions == 1
  # the first action has no state
  part = {"action": NAMES["action"], "state": [["x", "b", "c", "d"]]}
  assert build(recordings.absolute, names=part)[0].robots[0].positions.tolist() == [
    False,
    True,
    True,
    True,
  ]


def test_what_cannot_be_probed_is_said():
  fit, held_out = columns(recordings.delta, 0)[0], columns(recordings.delta, 1, first=100)[0]

  def ask(fit, held_out):
    return probe_targets.build("action", fit, held_out, names=NAMES, datasets=["arm"])

  none = held_out | {"has_action": np.zeros(len(held_out["group"]), bool)}
  assert ask(fit, none).robots == () and ask(fit, none).notes == (
    "the data has no action: no probe of it",
  )
  assert ask(fit | {"group": np.zeros_like(fit["group"])}, held_out).notes == (
    "action: fewer than 2 episodes to fit on have one: no probe of it",
  )


def test_windows_that_have_a_target():
  columns = {
    "action": np.zeros((2, 2, 3)),
    "has_action": np.array([True, False]),
    "has_state": np.array([True, True]),
  }
  assert probe_targets.having(columns, "action").tolist() == [True, False]
  assert probe_targets.having(columns, "state").tolist() == [False, False]


def test_dimensions_are_named_by_the_data_or_numbered():
  assert probe_targets.dimension_names(["x", "y"], 2, "action") == ("x", "y")
  for names in (["x"], None):
    assert probe_targets.dimension_names(names, 2, "action") == ("action 0", "action 1")
