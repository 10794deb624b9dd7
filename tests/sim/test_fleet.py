"""Both sides of a worker without a process: what the main process does with what it hears, and what
an episode does with its actions.
"""

import os
import signal
import types

import numpy as np
import pytest

from como_jax import errors
from como_jax.observations import STATE
from como_jax.sim import vector
from tests.sim import toys

# 20 control steps a second: stride 2
SETTINGS = vector.Settings(cameras=("front", "side"), image_size=8, step_seconds=0.1)
PUSH = np.float32([1, 0])


def job(number=0, **changes):
  return vector.Job(**{"number": number, "task": "line", "seed": 10 * number, **changes})


def test_what_is_usual():
  assert (SETTINGS.history, SETTINGS.max_steps, SETTINGS.timeout) == (1, 0, 300.0)
  assert (job().scene, job().actor, job().record) == (0, "policy", False)
  assert vector.Outcome(job(), error="x") == vector.Outcome(
    job(), False, 0, 0, 0, 0.0, -1, None, 0.0, "x"
  )


# The main process.

SCRIPT = {
  "line": [("waiting", {"plan": 0, "history": ["seen"]}), ("done", {"success": True})],
  "dies": [("failed", "it died")],
  "refuses": [("refused", "not here")],
}


@pytest.fixture
def workers(monkeypatch):
  """All workers made; each says what the script of its job's task has, all at the same time."""
  made = []

  class Worker:
    def __init__(self, context, build, settings):
      made.append(self)
      self.job, self.waiting, self.deadline, self.pipe = None, None, 0.0, self
      self.played, self.answers, self.begins, self.ends = [], [], 0, 0

    def start(self, one):
      self.job, self.waiting, self.queue = one, None, [("ready", None), *SCRIPT[one.task]]
      self.played.append(one.number)

    def mark_ready(self):
      self.begins += 1

    def answer(self, actions):
      self.answers.append(actions)
      self.waiting = None

    def message(self):
      return self.queue.pop(0)

    def end(self):
      self.ends += 1

  monkeypatch.setattr(vector, "_Worker", Worker)
  monkeypatch.setattr(vector.connection, "wait", lambda pipes, timeout: pipes)
  return made


def fleet(count=1, **changes):
  return vector.Fleet(
    toys.build,
    vector.Settings(**{"cameras": (), "image_size": 8, "step_seconds": 0.1, **changes}),
    workers=count,
  )


def test_workers_play_in_order_and_act_together(workers):
  batches = []

  def act(waiting):
    batches.append(waiting)
    return [one.job.number for one in waiting]

  with fleet(2) as one:
    found = list(one.run([job(i) for i in (3, 1, 2)], act))
    assert [outcome.job.number for outcome in found] == [1, 3, 2] and found[0] == vector.Outcome(
      job(1), success=True
    )
    assert batches == [
      [vector.Waiting(job(i), 0, ["seen"]) for i in (1, 3)],
      [vector.Waiting(job(2), 0, ["seen"])],
    ]
    assert [(worker.played, worker.answers, worker.begins, worker.ends) for worker in workers] == [
      ([3, 2], [3, 2], 2, 0),
      ([1], [1], 1, 0),
    ]
    assert len(list(one.run([job(4)], act))) == 1 and workers[0].played == [3, 2, 4], "workers stay"
  assert [worker.ends for worker in workers] == [1, 1]
  one.close()
  assert [worker.ends for worker in workers] == [1, 1]


def test_as_many_actions_as_episodes_are_needed(workers):
  with fleet() as one, pytest.raises(ValueError, match="shorter"):
    list(one.run([job()], lambda waiting: []))


def test_an_episode_that_fails_is_played_twice_at_once_by_new_workers(workers):
  with fleet() as one:
    found = list(
      one.run([job(0, task="dies"), job(1), job(2, task="dies")], lambda waiting: [None])
    )
  assert found == [
    vector.Outcome(job(0, task="dies"), error="it died"),
    vector.Outcome(job(1), success=True),
    vector.Outcome(job(2, task="dies"), error="it died"),
  ]
  assert [(worker.played, worker.ends) for worker in workers] == [
    ([0], 1),
    ([0], 1),
    ([1, 2], 1),
    ([2], 1),
  ]


def test_what_a_simulator_refuses_ends_the_run(workers):
  with fleet() as one, pytest.raises(errors.UserError, match="^not here$"):
    list(one.run([job(task="refuses")]))


def test_who_has_spoken_or_is_late_is_heard_in_the_order_of_jobs(monkeypatch):
  waits, ready = [], []
  monkeypatch.setattr(
    vector,
    "connection",
    types.SimpleNamespace(wait=lambda pipes, timeout: waits.append((pipes, timeout)) or ready),
  )
  monkeypatch.setattr(vector, "time", types.SimpleNamespace(monotonic=lambda: 100.0))
  late, talking, exact, silent = (
    types.SimpleNamespace(job=job(number), deadline=deadline, pipe=name)
    for number, deadline, name in (
      (4, 99.0, "late"),
      (2, 130.0, "talking"),
      (1, 100.0, "exact"),
      (3, 107.0, "silent"),
    )
  )
  ready.append("talking")
  one = fleet()
  assert one._wait([late, talking, exact, silent]) == [exact, talking, late]
  assert one._wait([talking, silent]) == [talking]
  assert waits == [(["late", "talking", "exact", "silent"], 0.0), (["talking", "silent"], 7.0)]


@pytest.mark.parametrize(
  "settings, workers, message",
  [
    ({}, 0, "workers = 0: expected at least 1"),
    ({"history": 0}, 1, "history = 0: expected at least 1"),
    ({"max_steps": -1}, 1, "max_steps = -1: expected at least 0"),
    ({"timeout": 0.0}, 1, "timeout = 0.0, step_seconds = 0.1: expected positive seconds"),
    ({"step_seconds": -0.1}, 1, "timeout = 300.0, step_seconds = -0.1: expected positive seconds"),
  ],
)
def test_impossible_settings_are_named(settings, workers, message):
  with pytest.raises(errors.UserError) as caught:
    fleet(workers, **settings)
  assert str(caught.value) == message
  fleet(1, timeout=0.5, step_seconds=0.0)


class Pipe:
  """The other end of a pipe: what was sent, and what is received."""

  def __init__(self, *received):
    self.sent, self.received, self.closed, self.broken = [], list(received), 0, False

  def poll(self):
    return bool(self.received)

  def send(self, content):
    if self.broken:
      raise BrokenPipeError
    self.sent.append(content)

  def recv(self):
    if not self.received:
      raise EOFError
    content = self.received.pop(0)
    if isinstance(content, Exception):
      raise content
    return content

  def close(self):
    self.closed += 1


def test_the_main_processes_side_of_a_worker(monkeypatch):
  now, mine, theirs, calls = [50.0], Pipe(), Pipe(), []
  monkeypatch.setattr(vector, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

  def process(**settings):
    calls.append(settings)
    return types.SimpleNamespace(
      exitcode=7,
      start=lambda: calls.append("start"),
      kill=lambda: calls.append("kill"),
      join=lambda **limit: calls.append(("join", limit)),
    )

  settings = vector.Settings((), 8, 0.1, timeout=20.0)
  one = vector._Worker(
    types.SimpleNamespace(Pipe=lambda: (mine, theirs), Process=process), "build", settings
  )
  assert (
    calls
    == [{"target": vector._work, "args": (theirs, "build", settings), "daemon": True}, "start"]
    and theirs.closed == 1
  )
  assert (one.job, one.waiting, one.deadline) == (None, None, 0.0)
  one.waiting = "before"
  one.start(job())
  assert (one.job, one.waiting, one.deadline, mine.sent) == (job(), None, 350.0, [job()])
  assert one.message() == ("failed", "no answer from the simulator for 300 s"), (
    "it may take long to begin"
  )
  now[0] = 60.0
  one.mark_ready()
  assert one.deadline == 80.0 and one.message() == (
    "failed",
    "no answer from the simulator for 20 s",
  )
  now[0], one.waiting = 70.0, "asked"
  one.answer([[1, 0]])
  assert (
    one.deadline == 90.0
    and one.waiting is None
    and mine.sent[1].dtype == np.float32
    and mine.sent[1].tolist() == [[1, 0]]
  )
  mine.received[:] = [("done", {}), EOFError(), ConnectionResetError()]
  assert one.message() == ("done", {})
  for _ in range(2):
    assert one.message() == ("failed", "the simulator's process died (exit code 7)")
    assert calls.pop() == ("join", {"timeout": 5})
  mine.broken, now[0] = True, 71.0
  one.start(job(1))  # a dead worker: `message` will say so
  assert one.deadline == 91.0
  one.end()
  assert calls[2:] == ["kill", ("join", {})] and mine.closed == 1


# The worker.


class Stop(BaseException):
  """In place of the end of the process."""


def work(monkeypatch, *received, build=toys.build, settings=SETTINGS):
  """What a worker has sent, to its end."""
  pipe, exits = Pipe(*received), []

  def leave(code):
    exits.append(code)
    raise Stop

  monkeypatch.setattr(vector.os, "_exit", leave)
  monkeypatch.setattr(vector.signal, "signal", lambda *given: exits.append(given))
  monkeypatch.delenv("LP_NUM_THREADS", raising=False)
  with pytest.raises(Stop):
    vector._work(pipe, build, settings)
  assert exits == [(signal.SIGINT, signal.SIG_IGN), 0] and os.environ["LP_NUM_THREADS"] == "0"
  return pipe.sent


def test_a_worker_plays_until_the_main_process_is_gone_and_builds_a_task_once(monkeypatch):
  built, closed = [], []

  def build(task, **settings):
    built.append((task, settings))
    one = toys.build(task, **settings)
    one.close = lambda: closed.append(task)
    return one

  jobs = [job(0, actor="expert", task=task) for task in ("line", "line", "far", "line")]
  sent = work(monkeypatch, *jobs, build=build)
  assert [kind for kind, _ in sent] == ["ready", "done", "done", "done", "done"] and sent[0] == (
    "ready",
    None,
  )
  assert [content["steps"] for _, content in sent[1:]] == [100, 100, 200, 100]
  assert built == [
    (task, {"cameras": ("front", "side"), "image_size": 8}) for task in ("line", "far", "line")
  ] and closed == ["line", "far"]


def test_a_worker_says_what_stopped_it(monkeypatch):
  assert work(monkeypatch, job(task="lime"))[1:] == [
    ("refused", "toy task 'lime' is unknown: " + errors.nearest("lime", toys.TASKS))
  ]
  assert work(monkeypatch, job(task="raises", actor="zero"))[1:] == [
    ("failed", "FloatingPointError: unstable")
  ]
  for gone in (BrokenPipeError(), ConnectionResetError()):
    assert work(monkeypatch, gone) == [("ready", None)]


def play(one, *chunks, settings=SETTINGS, **spec):
  """(fields of the outcome, requests, actions taken) of an episode whose policy gives the
  chunks.
  """
  simulator, pipe = (
    toys.Toy(one.task, settings.cameras, 8, 1.0, **spec),
    Pipe(*(np.float32(chunk) for chunk in chunks)),
  )
  taken, advance = [], simulator._advance
  simulator._advance = lambda action: taken.append(action.tolist()) or advance(action)
  found = vector._Episode(simulator, one, settings, pipe).play()
  return found, pipe.sent, taken


def test_the_fields_of_an_outcome(monkeypatch):
  clock = iter((5.0, 7.5))
  monkeypatch.setattr(vector, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
  found, requests, taken = play(job(seed=97), [PUSH] * 5)
  assert found == {
    "success": True,
    "steps": 3,
    "max_steps": 200,
    "plans": 1,
    "seconds": 2.5,
    "initial_state": 47,
    "rate": 10.0,
    "frames": None,
  }
  assert [(kind, content["plan"], len(content["history"])) for kind, content in requests] == [
    ("waiting", 0, 1)
  ] and taken == [[1, 0]] * 3


@pytest.mark.parametrize("asked, limit", [(0, 200), (3, 3), (500, 200)])
def test_the_limit_is_the_smaller_one(asked, limit):
  settings = vector.Settings((), 8, 0.1, max_steps=asked)
  found, _, _ = play(job(actor="zero"), settings=settings)
  assert (found["steps"], found["max_steps"], found["success"], found["plans"]) == (
    limit,
    limit,
    False,
    0,
  )


def test_requests_hold_the_last_policy_steps():
  settings = vector.Settings(("front",), 8, 0.1, history=2, max_steps=10)
  found, requests, _ = play(job(), *[[PUSH] * 3] * 2, settings=settings)
  histories = [[seen[STATE].tolist() for seen in content["history"]] for _, content in requests]
  assert (
    [content["plan"] for _, content in requests] == [0, 1]
    and found["plans"] == 2
    and found["steps"] == 10
  )
  assert histories[0] == [[0, 1]] and np.allclose(histories[1], [[0.04, 2], [0.06, 3]])


def test_a_recording_shows_all_cameras_side_by_side_from_the_first_frame():
  settings = vector.Settings(("front", "side"), 8, 0.1, max_steps=4)
  found, _, _ = play(job(scene=1, record=True, actor="expert"), settings=settings)
  assert found["frames"].shape == (3, 8, 16, 3) and found["frames"][:, 0, 0, 0].tolist() == [
    0,
    2,
    4,
  ]
  assert found["frames"][0, 1, [1, 9], 0].tolist() == [150, 250]
  over, _, _ = play(job(seed=97, record=True), [PUSH] * 5, settings=settings)
  assert over["steps"] == 3 and len(over["frames"]) == 3, "none after the end"
  assert (
    play(job(record=True, actor="zero"), settings=vector.Settings((), 8, 0.1, max_steps=4))[0][
      "frames"
    ]
    is None
  )


def test_blind_actors_look_at_nothing():
  found, _, taken = play(
    job(task="black", actor="expert"), settings=vector.Settings(("front",), 8, 0.1, max_steps=3)
  )
  assert found["steps"] == 3 and taken == [[1, 0]] * 3
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
