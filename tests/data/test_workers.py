"""The pool of processes, with threads in their place: who gets which unit, what happens when one
dies or fails.
"""

import multiprocessing
import os
import socket
import threading
from multiprocessing import connection

import pytest

from como_jax import errors
from como_jax.data import workers


class Death(BaseException):
  """Ends a worker as a crash does."""


class Process(threading.Thread):
  """A thread with its own end of the pipe, which is closed when it ends."""

  every: list = []

  def __init__(self, target, args, daemon):
    pipe = connection.Connection(os.dup(args[0].fileno()))
    self._pipe = pipe.fileno()
    super().__init__(target=self._main, args=(target, pipe, *args[1:]), daemon=daemon)
    self.exitcode, self.terminated = None, False
    self.every.append(self)

  def _main(self, target, pipe, function):
    try:
      target(pipe, function)
      self.exitcode = 0
    except Death:
      self.exitcode = -9
    finally:
      pipe.close()

  def terminate(self):
    self.terminated = True
    RELEASE.set()
    with socket.socket(fileno=os.dup(self._pipe)) as end:
      end.shutdown(socket.SHUT_RDWR)


class Context:
  Pipe, Process = staticmethod(multiprocessing.Pipe), Process


RELEASE = threading.Event()


@pytest.fixture(autouse=True)
def threads(monkeypatch):
  asked = []
  Process.every = []
  RELEASE.clear()
  monkeypatch.setattr(
    workers.multiprocessing, "get_context", lambda method: asked.append(method) or Context
  )
  yield
  assert set(asked) <= {"spawn"}  # a fork of a process with threads may hang
  for process in Process.every:
    process.join(10)
    assert not process.is_alive() and process.daemon


def run(function, units, count, *, on_progress=lambda message: None, on_death=None):
  return workers.run(function, units, workers=count, on_progress=on_progress, on_death=on_death)


def twice(unit, report):
  report(("begin", unit))
  report(("end", unit))
  return 2 * unit


@pytest.mark.parametrize("count", [-1, 0])
def test_in_this_process_in_order(count):
  said = []
  assert list(run(twice, iter([3, 1, 2]), count, on_progress=said.append)) == [6, 2, 4]
  assert (
    said == [(when, unit) for unit in (3, 1, 2) for when in ("begin", "end")] and not Process.every
  )


def test_one_process_for_all_units_in_order():
  said = []
  assert list(run(twice, [3, 1, 2], 1, on_progress=said.append)) == [6, 2, 4]
  assert said == [(when, unit) for unit in (3, 1, 2) for when in ("begin", "end")]
  assert (
    len(Process.every) == 1 and Process.every[0].exitcode == 0 and not Process.every[0].terminated
  )


def test_no_more_processes_than_asked_for_and_all_of_them_at_once():
  together = threading.Barrier(3, timeout=10)

  def function(unit, report):
    together.wait()  # goes on when three are at work
    return unit

  assert sorted(run(function, range(6), 3)) == list(range(6))
  assert len(Process.every) == 3
  assert list(run(twice, [], 3)) == [] and len(Process.every) == 3


def test_a_dead_worker_costs_its_unit_only():
  deaths, seen = [], []

  def function(unit, report):
    seen.append(unit)
    if unit == "quiet":
      raise Death
    report(f"at {unit}")
    if unit == "bad":
      raise Death
    return unit

  def on_death(unit, progress, exitcode):
    deaths.append((unit, progress, exitcode))
    return "mended"

  found = list(run(function, ["a", "bad", "b", "quiet"], 1, on_death=on_death))
  assert found == ["a", "mended", "b", "mended"] and seen == [
    "a",
    "bad",
    "mended",
    "b",
    "quiet",
    "mended",
  ]
  # what another unit reported is not its report
  assert deaths == [("bad", "at bad", -9), ("quiet", None, -9)]
  assert len(Process.every) == 3


def test_mistakes_end_the_run_and_its_workers():
  begun = threading.Event()

  def function(unit, report):
    if unit == "waits":
      begun.set()
      RELEASE.wait(10)
      return unit
    begun.wait(10)
    raise (errors.UserError("no such camera") if unit == "user" else ValueError("a bug"))

  with pytest.raises(errors.UserError, match="^no such camera$"):
    list(run(function, ["waits", "user"], 2))
  assert [process.terminated for process in Process.every] == [True, True]
  with pytest.raises(
    RuntimeError, match="(?s)^a worker process failed:\nTraceback.*ValueError: a bug"
  ):
    list(run(function, ["program"], 1))


def test_a_result_that_nobody_waits_for_ends_the_workers():
  results = run(twice, [1, 2, 3], 1)
  assert next(results) == 2
  results.close()  # an idle worker is told to end
  Process.every[0].join(10)
  assert Process.every[0].exitcode == 0 and not Process.every[0].terminated
