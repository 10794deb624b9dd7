"""The main process's side of workers, without a process: what it does with what it hears."""

import types

import numpy as np
import pytest

from como_jax import errors
from como_jax.sim import jobs, vector, worker
from tests.sim import toys
from tests.sim.episodes import job
from tests.sim.pipes import Pipe

SCRIPT = {
  "line": lambda one: [jobs.ActionRequest(one, 0, ["seen"]), jobs.Outcome(one, success=True)],
  "dies": lambda one: [jobs.Failed("it died")],
  "refuses": lambda one: [jobs.Refused("not here")],
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
      self.job, self.waiting, self.queue = one, None, [jobs.Ready(), *SCRIPT[one.task](one)]
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
      [vector.ActionRequest(job(i), 0, ["seen"]) for i in (1, 3)],
      [vector.ActionRequest(job(2), 0, ["seen"])],
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


def test_episodes_of_a_policy_need_one(workers):
  with fleet(2) as one, pytest.raises(ValueError, match="^episode 1 needs a policy: give `act`$"):
    list(one.run([job(3, task="line"), job(1, task="line")]))


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
    calls == [{"target": worker.work, "args": (theirs, "build", settings), "daemon": True}, "start"]
    and theirs.closed == 1
  )
  assert (one.job, one.waiting, one.deadline) == (None, None, 0.0)
  one.waiting = "before"
  one.start(job())
  assert (one.job, one.waiting, one.deadline, mine.sent) == (job(), None, 350.0, [job()])
  assert one.message() == jobs.Failed("no answer from the simulator for 300 s"), (
    "it may take long to begin"
  )
  now[0] = 60.0
  one.mark_ready()
  assert one.deadline == 80.0 and one.message() == jobs.Failed(
    "no answer from the simulator for 20 s"
  )
  now[0], one.waiting = 70.0, "asked"
  one.answer([[1, 0]])
  assert (
    one.deadline == 90.0
    and one.waiting is None
    and mine.sent[1].dtype == np.float32
    and mine.sent[1].tolist() == [[1, 0]]
  )
  mine.received[:] = [jobs.Outcome(job()), EOFError(), ConnectionResetError()]
  assert one.message() == jobs.Outcome(job())
  for _ in range(2):
    assert one.message() == jobs.Failed("the simulator's process died (exit code 7)")
    assert calls.pop() == ("join", {"timeout": 5})
  mine.broken, now[0] = True, 71.0
  one.start(job(1))  # a dead worker: `message` will say so
  assert one.deadline == 91.0
  one.end()
  assert calls[2:] == ["kill", ("join", {})] and mine.closed == 1
