"""Where the time goes: sections, what is inside them, and what the devices do meanwhile."""

import threading

import pytest

from como_jax.train import step_clock


class Watcher:
  """Ends the steps when the test says so."""

  def __init__(self, clock):
    self.steps = []

  def watch(self, step, results):
    self.steps.append(step)

  def close(self):
    pass


class Played:
  """A clock that the test moves, with devices that end a step when the test says so."""

  def __init__(self, *, begun=True, age=0.0):
    self.now, self.watcher = 100.0, Watcher(None)
    self.clock = step_clock.StepClock(
      age=age, clock=lambda: self.now, watcher=lambda clock: self.watcher
    )
    if begun:
      self.clock.begun()

  def spend(self, seconds, name=None):
    if name is None:
      self.now += seconds
      return
    with self.clock.section(name):
      self.now += seconds

  def dispatch(self, seconds=0.0):
    with self.clock.device_step() as watch:
      self.now += seconds
      watch("results")

  def ready(self, at=None):
    self.watcher.steps.pop(0).end = self.now if at is None else at

  def read(self):
    return {name: value for name, value in self.clock.read().items() if value}


def test_sections_exclude_what_is_inside_them_and_nothing_counts_twice():
  played = Played()
  played.spend(1.0, "host")
  played.spend(0.5)  # in no section
  with played.clock.section("evaluation"):
    played.spend(2.0)
    played.spend(3.0, "logging")
    played.spend(4.0)
  assert played.read() == {"host": 1.0, "evaluation": 6.0, "logging": 3.0, "wall": 10.5}


def test_what_is_done_while_the_devices_work_is_their_time():
  played = Played()
  played.dispatch(0.25)
  with played.clock.section("data_wait"):
    played.spend(2.0)
    played.ready()
    played.spend(1.0)  # idle devices: only now it costs time
  assert played.read() == {"device": 2.25, "data_wait": 1.0, "wall": 3.25}


def test_a_step_that_is_dispatched_ahead_begins_when_the_one_before_it_ends():
  played = Played()
  played.dispatch()
  played.spend(1.0, "host")
  played.dispatch()
  played.spend(1.0)
  played.ready()
  played.spend(3.0, "logging")
  played.ready()
  played.spend(0.5, "logging")
  assert played.read() == {"device": 5.0, "logging": 0.5, "wall": 5.5}


def test_a_step_under_way_counts_up_to_the_reading():
  played = Played()
  played.dispatch()
  played.spend(4.0)
  assert played.read() == {"device": 4.0, "wall": 4.0}
  played.spend(1.0)
  played.ready(at=103.0)  # noticed late: what was read stays
  assert played.read() == {"device": 4.0, "wall": 5.0}


def test_a_step_that_fails_is_no_step_for_ever():
  played = Played()
  with pytest.raises(RuntimeError), played.clock.device_step():
    played.spend(1.0)
    raise RuntimeError
  played.spend(2.0, "host")
  assert played.read() == {"device": 1.0, "host": 2.0, "wall": 3.0}


def test_all_before_the_end_of_the_first_step_is_starting_but_for_restoring_and_saving():
  played = Played(begun=False, age=7.0)
  played.spend(1.0)
  played.spend(2.0, "restoring")
  played.spend(0.5, "checkpoint")
  played.spend(4.0, "data_wait")
  with played.clock.section("host"):
    played.dispatch()
    played.spend(8.0)
    played.ready()
  assert not played.clock.started
  played.clock.begun()
  played.clock.begun()
  played.spend(1.0, "host")
  assert played.clock.started
  assert played.read() == {
    "starting": 20.0,
    "restoring": 2.0,
    "checkpoint": 0.5,
    "host": 1.0,
    "wall": 23.5,
  }


def test_a_window_is_that_since_the_last_one():
  played = Played()
  window = step_clock.Window(played.clock)
  played.spend(1.0, "host")
  window.restart()
  for seconds in (2.0, 3.0):
    played.spend(seconds, "data_wait")
    played.spend(0.5)
    found = window.close()
    assert {name: value for name, value in found.items() if value} == {
      "time/data_wait": seconds,
      "time/window": seconds + 0.5,
      "time/unaccounted": 0.5,
    }
  assert set(found) == {
    *(f"time/{name}" for name in step_clock.WINDOW),
    "time/window",
    "time/unaccounted",
  }


def test_a_thread_waits_for_the_results(monkeypatch):
  ready, done = threading.Event(), threading.Event()

  def block(results):
    assert results == "results"
    ready.wait()
    raise RuntimeError("a lost process, which the main thread meets too")

  monkeypatch.setattr(step_clock.jax, "block_until_ready", block)
  before = set(threading.enumerate())  # other tests may leave clocks that they did not close
  clock = step_clock.StepClock()
  clock.begun()
  assert set(threading.enumerate()) <= before, "without steps there is no thread"
  for _ in range(2):
    with clock.device_step() as watch:
      watch("results")
  first, second = clock._steps
  assert (first.end, second.end) == (None, None)
  ready.set()
  (thread,) = [one for one in threading.enumerate() if one not in before]
  assert thread.name == "step clock"
  clock.close()
  thread.join()
  done.set()
  assert first.begin <= first.end <= second.end
  clock.close()
