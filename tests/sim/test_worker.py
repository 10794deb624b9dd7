"""The worker's side, without a process: what an episode does with its actions."""

import os
import signal
import types

import numpy as np
import pytest

from como_jax import errors
from como_jax.observations import STATE
from como_jax.sim import jobs, vector, worker
from tests.sim import toys
from tests.sim.episodes import job
from tests.sim.pipes import Pipe

# 20 control steps a second: stride 2
SETTINGS = vector.Settings(cameras=("front", "side"), image_size=8, step_seconds=0.1)
PUSH = np.float32([1, 0])


class Stop(BaseException):
  """In place of the end of the process."""


def work(monkeypatch, *received, build=toys.build, settings=SETTINGS):
  """What a worker has sent, to its end."""
  pipe, exits = Pipe(*received), []

  def leave(code):
    exits.append(code)
    raise Stop

  monkeypatch.setattr(worker.os, "_exit", leave)
  monkeypatch.setattr(worker.signal, "signal", lambda *given: exits.append(given))
  monkeypatch.delenv("LP_NUM_THREADS", raising=False)
  with pytest.raises(Stop):
    worker.work(pipe, build, settings)
  assert exits == [(signal.SIGINT, signal.SIG_IGN), 0] and os.environ["LP_NUM_THREADS"] == "0"
  return pipe.sent


def test_a_worker_plays_until_the_main_process_is_gone_and_builds_a_task_once(monkeypatch):
  built, closed = [], []

  def build(task, **settings):
    built.append((task, settings))
    one = toys.build(task, **settings)
    one.close = lambda: closed.append(task)
    return one

  given = [job(0, actor="expert", task=task) for task in ("line", "line", "far", "line")]
  ready, *outcomes = work(monkeypatch, *given, build=build)
  assert ready == jobs.Ready()
  assert [(one.job, one.steps) for one in outcomes] == list(
    zip(given, [100, 100, 200, 100], strict=True)
  )
  assert built == [
    (task, {"cameras": ("front", "side"), "image_size": 8}) for task in ("line", "far", "line")
  ] and closed == ["line", "far"]


def test_a_worker_says_what_stopped_it(monkeypatch):
  assert work(monkeypatch, job(task="lime"))[1:] == [
    jobs.Refused("toy task 'lime' is unknown: " + errors.nearest("lime", toys.TASKS))
  ]
  assert work(monkeypatch, job(task="raises", actor="zero"))[1:] == [
    jobs.Failed("FloatingPointError: unstable")
  ]
  for gone in (BrokenPipeError(), ConnectionResetError()):
    assert work(monkeypatch, gone) == [jobs.Ready()]


def play(one, *chunks, settings=SETTINGS, **spec):
  """(outcome, requests, actions taken) of an episode whose policy gives the
  chunks.
  """
  simulator, pipe = (
    toys.Toy(one.task, settings.cameras, 8, 1.0, **spec),
    Pipe(*(np.float32(chunk) for chunk in chunks)),
  )
  taken, advance = [], simulator._advance
  simulator._advance = lambda action: taken.append(action.tolist()) or advance(action)
  found = worker.Episode(simulator, one, settings, pipe).play()
  return found, pipe.sent, taken


def test_the_fields_of_an_outcome(monkeypatch):
  clock = iter((5.0, 7.5))
  monkeypatch.setattr(worker, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
  one = job(seed=97)
  found, requests, taken = play(one, [PUSH] * 5)
  assert found == vector.Outcome(
    one,
    success=True,
    steps=3,
    max_steps=200,
    plans=1,
    seconds=2.5,
    initial_state=47,
    frames=None,
    rate=10.0,
  )
  assert [(asked.job, asked.plan, len(asked.history)) for asked in requests] == [
    (one, 0, 1)
  ] and taken == [[1, 0]] * 3


@pytest.mark.parametrize("asked, limit", [(0, 200), (3, 3), (500, 200)])
def test_the_limit_is_the_smaller_one(asked, limit):
  settings = vector.Settings((), 8, 0.1, max_steps=asked)
  found, _, _ = play(job(actor="zero"), settings=settings)
  assert (found.steps, found.max_steps, found.success, found.plans) == (limit, limit, False, 0)


def test_requests_hold_the_last_policy_steps():
  settings = vector.Settings(("front",), 8, 0.1, history=2, max_steps=10)
  found, requests, _ = play(job(), *[[PUSH] * 3] * 2, settings=settings)
  histories = [[seen[STATE].tolist() for seen in asked.history] for asked in requests]
  assert [asked.plan for asked in requests] == [0, 1] and found.plans == 2 and found.steps == 10
  assert histories[0] == [[0, 1]] and np.allclose(histories[1], [[0.04, 2], [0.06, 3]])


def test_a_recording_shows_all_cameras_side_by_side_from_the_first_frame():
  settings = vector.Settings(("front", "side"), 8, 0.1, max_steps=4)
  found, _, _ = play(job(scene=1, record=True, actor="expert"), settings=settings)
  assert found.frames.shape == (3, 8, 16, 3) and found.frames[:, 0, 0, 0].tolist() == [0, 2, 4]
  assert found.frames[0, 1, [1, 9], 0].tolist() == [150, 250]
  over, _, _ = play(job(seed=97, record=True), [PUSH] * 5, settings=settings)
  assert over.steps == 3 and len(over.frames) == 3, "none after the end"
  assert (
    play(job(record=True, actor="zero"), settings=vector.Settings((), 8, 0.1, max_steps=4))[
      0
    ].frames
    is None
  )


def test_blind_actors_look_at_nothing():
  found, _, taken = play(
    job(task="black", actor="expert"), settings=vector.Settings(("front",), 8, 0.1, max_steps=3)
  )
  assert found.steps == 3 and taken == [[1, 0]] * 3
  with pytest.raises(
    errors.UserError, match="^toy/black seed 5 camera front: frame 0 of 1 is of a single color"
  ):
    play(job(task="black", actor="expert", record=True, seed=5))
  with pytest.raises(errors.UserError, match="single color"):
    play(job(task="black"))


def test_random_actions_are_held_and_depend_on_the_seed_alone():
  _, _, taken = play(
    job(actor="random", seed=3),
    settings=vector.Settings((), 8, 0.1, max_steps=5),
    action_low=np.float32([-1, 0.5]),
  )
  draw = np.random.default_rng([2147483647, 3])
  drawn = [draw.uniform([-1, 0.5], 1.0).astype(np.float32).tolist() for _ in range(3)]
  assert taken == [drawn[0]] * 2 + [drawn[1]] * 2 + [drawn[2]]


@pytest.mark.parametrize("chunk", [np.zeros((0, 2)), np.zeros((3, 1)), [[0, np.nan]], np.zeros(2)])
def test_actions_that_do_not_fit_are_named(chunk):
  shape = list(np.shape(chunk))
  with pytest.raises(errors.UserError) as caught:
    play(job(), chunk)
  assert (
    str(caught.value)
    == f"toy/line: the policy gave actions {shape}, expected finite numbers [n, 2]"
  )


def test_an_actor_that_does_not_exist_is_named():
  with pytest.raises(ValueError, match="^actor 'exprt' is unknown: did you mean 'expert'"):
    play(job(actor="exprt"))
