"""The planner: what it asks of a policy, and which actions are executed."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.sim import base, vector
from como_jax.sim import planner as planner_lib
from tests.sim.toy_policy import Fake


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


SPEC = base.Spec(
  name="toy/line",
  robot="toy",
  instruction="i",
  cameras={},
  state_names=("x",),
  action_names=("push", "unused"),
  action_low=np.zeros(2),
  action_high=np.ones(2),
  fps=20.0,
  stride=1,
  max_steps=9,
)


def planner(policy, cameras=("side",), *, execute=0, ensemble=0.0, seed=5):
  return planner_lib.Planner(policy, cameras, SPEC, execute=execute, ensemble=ensemble, seed=seed)


def waiting(number, plan, *values):
  return vector.ActionRequest(
    vector.Job(number, "line", 0),
    plan,
    [{STATE: value, TASK: "go", IMAGE + "side": value, "more": 0} for value in values],
  )


def test_the_planner_refuses_a_policy_that_does_not_fit():
  assert (
    text_of(lambda: planner(Fake(action_dim=3)))
    == "the policy gives 3 action numbers for robot 'toy', toy/line takes 2: push, unused"
  )
  assert (
    text_of(lambda: planner(Fake(), execute=5))
    == "config.execute = 5: the policy's chunks have 4 elements"
  )
  planner(Fake(), execute=4)
  for execute in (0, 4):
    assert text_of(lambda execute=execute: planner(Fake(), execute=execute, ensemble=0.5)) == (
      "config.ensemble needs overlapping chunks: set config.execute to 1..3, for example 1"
    )
  planner(Fake(), execute=3, ensemble=0.5)
  with pytest.raises(ValueError, match="zip"):
    planner(Fake(), ("side", "front"))


def test_the_planner_asks_for_all_at_once_with_noise_of_its_own():
  policy = Fake()
  plan = planner(policy)
  chunks = plan([waiting(3, 0, 1.0), waiting(7, 2, 2.0, 3.0)])
  assert [chunk.tolist() for chunk in chunks] == [[[1.0, 0.0]] * 4] * 2
  assert policy.calls[0][1] == [
    {STATE: value, TASK: "go", IMAGE + "wrist": value} for value in (2.0, 3.0)
  ]
  for found in (plan, planner(Fake(), seed=5), planner(Fake(), seed=6)):
    for numbers in ((3, 0), (3, 1), (4, 0)):
      found([waiting(*numbers, 1.0)])
  seeds = policy.seeds[1:]
  assert len(set(policy.seeds)) == 4 and all(0 <= seed < 2**31 for seed in policy.seeds)
  expected = [
    int(np.random.SeedSequence([5, *numbers]).generate_state(1)[0] >> 1)
    for numbers in ((3, 0), (3, 1), (4, 0))
  ]
  assert seeds == expected and policy.seeds[0] == int(
    np.random.SeedSequence([5, 3, 0, 7, 2]).generate_state(1)[0] >> 1
  )


def test_chunks_are_cut_and_averages_begin_anew_with_each_episode():
  class Counting(Fake):
    def infer(self, histories, *, seed=0):
      self.calls.append(histories)
      return np.full((len(histories), 4, 2), float(len(self.calls)), np.float32)

  assert planner(Counting(), execute=2)([waiting(0, 0, 1.0)])[0].shape == (2, 2)
  plan = planner(Counting(), execute=1, ensemble=1e-9)
  means = [
    [chunk[0, 0] for chunk in plan(asked)]
    for asked in (
      [waiting(0, 0, 1.0)],
      [waiting(0, 1, 1.0), waiting(1, 0, 1.0)],
      [waiting(0, 0, 1.0), waiting(1, 1, 1.0)],
    )
  ]
  np.testing.assert_allclose(np.concatenate(means), [1.0, 1.5, 2.0, 3.0, 2.5], rtol=1e-6)
