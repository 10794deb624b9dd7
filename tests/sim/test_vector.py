"""Worker processes: what is played, what is rendered, and what happens when a simulator dies,
raises or hangs.
"""

import numpy as np
import pytest

from como_jax import errors
from como_jax.observations import STATE
from como_jax.sim import vector
from tests.sim import toys

# 20 control steps a second: stride 2
SETTINGS = vector.Settings(cameras=("front",), image_size=8, step_seconds=0.1)


def jobs(count, task="line", **changes):
  return [vector.Job(number=i, task=task, seed=10 * i, **changes) for i in range(count)]


def push(waiting):
  return [np.tile(np.float32([1, 0]), (5, 1))] * len(waiting)


@pytest.fixture(scope="module")
def fleet():
  with vector.Fleet(toys.build, SETTINGS, workers=2) as fleet:
    yield fleet


def results(outcomes):
  return {o.job.number: (o.success, o.steps, o.plans) for o in outcomes}


def test_episodes_end_at_success_whatever_the_number_of_workers(fleet):
  found = results(fleet.run(jobs(5), push))
  # From 0.1 * i it takes 100 - 10 i control steps, in requests of 5 elements of 2 control steps.
  assert found == {i: (True, 100 - 10 * i, 10 - i) for i in range(5)}
  with vector.Fleet(toys.build, SETTINGS, workers=1) as single:
    assert results(single.run(jobs(5), push)) == found


def test_batches_hold_every_busy_episode_in_order_and_do_not_depend_on_timing(fleet):
  def recorded(batches):
    def act(waiting):
      batches.append([(w.job.number, w.plan) for w in waiting])
      return push(waiting)

    return act

  runs = ([], [])
  for batches in runs:
    list(fleet.run(jobs(4), recorded(batches)))
  assert runs[0] == runs[1]
  assert runs[0][0] == [(0, 0), (1, 0)] and all(batch == sorted(batch) for batch in runs[0])
  assert all(len(batch) == 2 for batch in runs[0][:10])


def test_nothing_is_rendered_between_requests_and_the_history_is_the_last_policy_steps(fleet):
  seen = []

  def act(waiting):
    seen.append([[float(o[STATE][0]) for o in w.history] for w in waiting])
    seen[-1].append([float(w.history[-1][STATE][1]) for w in waiting])
    return push(waiting)

  list(fleet.run(jobs(1), act))
  assert [s[0] for s in seen[:3]] == [
    pytest.approx([0.0]),
    pytest.approx([0.1]),
    pytest.approx([0.2]),
  ]
  assert [s[1] for s in seen[:3]] == [[1], [2], [3]], "one look a request"
  seen.clear()
  settings = vector.Settings(cameras=("front",), image_size=8, step_seconds=0.1, history=3)
  with vector.Fleet(toys.build, settings, workers=1) as other:
    list(other.run(jobs(1), act))
  expected = [[0.0], [0.06, 0.08, 0.1], [0.16, 0.18, 0.2]]
  assert [s[0] for s in seen[:3]] == [pytest.approx(history) for history in expected]
  assert [s[1] for s in seen[:3]] == [[1], [4], [7]]


def test_a_recorded_episode_has_a_frame_of_every_policy_step(fleet):
  (outcome,) = fleet.run(jobs(1, record=True, scene=1), push)
  assert outcome.frames.shape == (51, 8, 8, 3) and outcome.rate == 10 and outcome.initial_state == 0
  assert outcome.frames[:, 0, 0, 0].tolist() == list(range(0, 102, 2))
  assert outcome.frames[0, 1, 1, 0] == 150, "the scene asked for"
  assert next(iter(fleet.run(jobs(1), push))).frames is None


def test_actors_that_need_no_policy(fleet):
  (expert,) = fleet.run(jobs(1, actor="expert"))
  assert (expert.success, expert.steps, expert.plans) == (True, 100, 0)
  (zero,) = fleet.run(jobs(1, actor="zero"))
  assert (zero.success, zero.steps) == (False, 200)
  first, again = fleet.run(jobs(1, actor="random")), fleet.run(jobs(1, actor="random", record=True))
  assert results(first) == results(again) == {0: (False, 200, 0)}


def test_an_episode_ends_after_max_steps():
  settings = vector.Settings(cameras=(), image_size=8, step_seconds=0.0, max_steps=33)
  with vector.Fleet(toys.build, settings, workers=1) as fleet:
    (outcome,) = fleet.run([vector.Job(0, "far", 0)], push)
  assert (outcome.success, outcome.steps, outcome.plans, outcome.error) == (False, 33, 7, "")


@pytest.mark.parametrize(
  "task, message",
  [
    ("raises", "FloatingPointError: unstable"),
    ("dies", r"died \(exit code 7\)"),
    ("hangs", "no answer"),
  ],
)
def test_what_cannot_be_played_ends_with_an_error_and_the_others_go_on(task, message):
  settings = vector.Settings(cameras=("front",), image_size=8, step_seconds=0.1, timeout=2.0)
  plan = [vector.Job(0, "line", 90), vector.Job(1, task, 3), vector.Job(2, "line", 80)]
  with vector.Fleet(toys.build, settings, workers=2) as fleet:
    found = {o.job.number: o for o in fleet.run(plan, push)}
  assert sorted(found) == [0, 1, 2] and found[0].success and found[2].success and not found[0].error
  with pytest.raises(AssertionError, match=message):
    raise AssertionError(found[1].error)
  assert found[1].job.seed == 3 and not found[1].success


def test_a_crash_is_forgiven_once(tmp_path, monkeypatch):
  monkeypatch.setenv("TOY_FLAG", str(tmp_path / "flag"))
  with vector.Fleet(toys.build, SETTINGS, workers=1) as fleet:
    (outcome,) = fleet.run([vector.Job(0, "once", 90)], push)
  assert outcome.success and not outcome.error and (tmp_path / "flag").exists()


@pytest.mark.parametrize(
  "task, message",
  [("refuses", "no OpenGL here"), ("lime", "did you mean 'line'"), ("black", "single color")],
)
def test_what_would_fail_in_every_episode_stops_the_run(task, message):
  with (
    vector.Fleet(toys.build, SETTINGS, workers=1) as fleet,
    pytest.raises(errors.UserError, match=message),
  ):
    list(fleet.run(jobs(2, task=task), push))


@pytest.mark.parametrize(
  "actions", [np.zeros((0, 2)), np.zeros((3, 5)), np.full((1, 2), np.nan), np.zeros(2)]
)
def test_actions_that_do_not_fit_are_refused(actions):
  with (
    vector.Fleet(toys.build, SETTINGS, workers=1) as other,
    pytest.raises(errors.UserError, match="toy/line: the policy gave actions"),
  ):
    list(other.run(jobs(1), lambda waiting: [actions]))


@pytest.mark.parametrize(
  "settings, workers",
  [
    ({}, 0),
    (dict(history=0), 1),
    (dict(max_steps=-1), 1),
    (dict(timeout=0), 1),
    (dict(step_seconds=-1), 1),
  ],
)
def test_impossible_settings_are_refused(settings, workers):
  with pytest.raises(errors.UserError, match="expected"):
    vector.Fleet(
      toys.build,
      vector.Settings(**(dict(cameras=(), image_size=8, step_seconds=0.1) | settings)),
      workers=workers,
    )
