"""The loop on paper: the order of its calls, evaluations, signals, exit codes."""

import contextlib
import signal

import pytest

from como_jax import errors
from como_jax.train import loop
from tests.train.paper_loop import AsyncAllGather, Log, kinds
from tests.train.paper_loop import _played as _played  # a fixture


def test_a_batch_is_drawn_behind_the_save_and_metrics_are_read_a_step_late(played):
  outcome, calls = played(steps=5, checkpoint_every=2)
  assert kinds(calls, "draw", "save", "write", "wait") == [
    ("draw", 0),
    ("draw", 1),
    ("write", 1),
    ("write", 2),
    ("save", 2),
    ("draw", 2),
    ("draw", 3),
    ("write", 3),
    ("write", 4),
    ("save", 4),
    ("draw", 4),
    ("write", 5),
    ("save", 5),
    ("wait",),
  ]
  assert [call[2] for call in calls if call[0] == "save"] == [2, 4, 5]
  assert (outcome.state.step, outcome.stopped, outcome.failed_evaluations) == (5, False, ())
  assert (outcome.examples_per_s, outcome.wait_share) == (32 / 3, 0.0)
  _, calls = played(steps=3)
  assert kinds(calls, "save") == [("save", 3)], "without checkpoint_every the end alone is saved"
  _, calls = played(start=4, steps=7, checkpoint_every=2)
  assert kinds(calls, "save") == [("save", 4), ("save", 6), ("save", 7)]
  _, calls = played(start=4, steps=4, checkpoint_every=3)
  assert kinds(calls, "save", "draw", "wait") == [("save", 4), ("wait",)]


def test_a_signal_stops_behind_the_step_and_a_second_one_acts_as_usual(played):
  old, heard = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}, []

  def usual(number, frame):
    return heard.append(number)

  for number in old:
    signal.signal(number, usual)
  try:

    def stop(done):
      if done == 2:
        signal.raise_signal(signal.SIGINT)
        assert not heard
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT] and signal.getsignal(signal.SIGTERM) != usual

    outcome, calls = played(
      steps=9, on_step=stop, evaluate=lambda state: {"score": 1.0}, evaluate_every=2
    )
    assert outcome.stopped and outcome.state.step == 2
    assert [call[1] for call in calls if call[0] == "say"] == [
      "stopped by SIGINT at step 2: saved; run the same command with --resume to go on"
    ]
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == usual
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)


def scores(state):
  return {"score": 0.25, "other": float(state.step)}


def test_evaluations_and_what_is_said_of_them(played):
  outcome, calls = played(
    steps=5, evaluate=scores, evaluate_every=2, log=lambda calls: Log(calls, evaluated=(2,))
  )
  assert [call for call in calls if call[0] == "write" and call[2] == "validation"] == [
    ("write", step, "validation", {"score": 0.25, "other": float(step)}) for step in (4, 5)
  ]
  assert [call[1] for call in calls if call[0] == "say"] == [
    f"step {step}: validation score 0.25, other {step}" for step in (4, 5)
  ]
  order = [call[:3] for call in calls if call[0] in ("draw", "write")]
  assert order[-5:] == [
    ("write", 4, "train"),
    ("write", 4, "validation"),
    ("draw", 4),
    ("write", 5, "train"),
    ("write", 5, "validation"),
  ]
  assert outcome.failed_evaluations == ()
  _, calls = played(steps=5, evaluate=scores)
  assert kinds(calls, "say") == [("say", "step 5: validation score 0.25, other 5")], "at the end"
  _, calls = played(steps=0, evaluate=scores, evaluate_every=2)
  assert not kinds(calls, "say"), "nothing has been trained"


def test_time_of_an_evaluation_is_no_training_time_and_no_waiting(played):
  def slow(state):
    played.clock[0] += 250.0
    return {"score": 1.0}

  outcome, calls = played(
    steps=8, evaluate=slow, evaluate_every=3, waits=1.0, slow_data="advice", log_every=4
  )
  assert (outcome.examples_per_s, outcome.wait_share) == (56 / 12, 7 / 12)
  assert [call[1] for call in calls if call[0] == "say" and "validation" not in call[1]] == [
    "waiting for data 100% of the time: advice"
  ]


@pytest.mark.parametrize(
  "error, line",
  [(ValueError("x" * 400 + "\nmore"), "ValueError: " + "x" * 300), (KeyError(), "KeyError: ")],
)
def test_an_evaluation_that_fails_is_said_in_a_line(played, error, line):
  def fails(state):
    if state.step == 4:
      return {"score": 1.0}
    raise error

  outcome, calls = played(steps=6, evaluate=fails, evaluate_every=2)
  assert outcome.failed_evaluations == (2, 6)
  assert [call[1] for call in calls if call[0] == "say"][
    0
  ] == f"step 2: the validation failed and is left out, training goes on: {line}"
  assert [call[1] for call in calls if call[0] == "write" and call[2] == "validation"] == [4]


@pytest.mark.parametrize(
  "error", [errors.NonFiniteError("a"), errors.TransientError("b"), RuntimeError("lost")]
)
def test_some_failures_of_an_evaluation_end_the_run(played, monkeypatch, error):
  monkeypatch.setattr(loop.distributed, "lost_process", lambda error: str(error) == "lost")

  def fails(state):
    raise error

  with pytest.raises(type(error)) as caught:
    played(steps=2, evaluate=fails)
  assert caught.value is error


def test_the_exit_code_after_a_signal_is_that_of_sigterm():
  assert loop.EXIT_SIGNALED == 128 + signal.SIGTERM


def test_every_step_is_told(played):
  told = []
  played(start=3, steps=6, on_step=told.append)
  assert told == [4, 5, 6]


class Profile:
  """A profile on paper of the steps 3 and 4; starting and writing it takes 50 seconds each."""

  first, last = 3, 4

  def __init__(self, calls, clock):
    self._calls, self._clock = calls, clock

  def start(self):
    self._calls.append(("profile", "start"))
    self._clock[0] += 50

  def stop(self):
    self._calls.append(("profile", "stop"))
    self._clock[0] += 50


def test_a_profile_holds_whole_steps_and_its_time_is_not_that_of_training(played):
  outcome, calls = played(steps=6, profile=lambda calls: Profile(calls, played.clock))
  assert kinds(calls, "draw", "write", "profile") == [
    ("draw", 0),
    ("draw", 1),
    ("write", 1),
    ("write", 2),
    ("profile", "start"),  # what was started before is done
    ("draw", 2),
    ("draw", 3),
    ("write", 3),
    ("write", 4),
    ("profile", "stop"),
    ("draw", 4),
    ("draw", 5),
    ("write", 5),
    ("write", 6),
  ]
  assert outcome.examples_per_s == played(steps=6)[0].examples_per_s


class Requested:
  """A profile on request; starting and writing it takes 50 seconds each."""

  def __init__(self, calls, clock, first, last):
    self.first, self.last, self._calls, self._clock = first, last, calls, clock

  def start(self):
    self._calls.append(("profile", ("start", self.first)))
    self._clock[0] += 50

  def stop(self):
    self._calls.append(("profile", ("stop", self.last)))
    self._clock[0] += 50


def requested(played, *, at, steps=8, log_every=2, shown=("draw", "profile"), **more):
  """The order of steps and profiles of a run that is asked for one after some steps."""
  calls = []

  def ask(done):
    if done in at:
      signal.raise_signal(signal.SIGUSR2)

  before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
  try:
    outcome, _ = played(
      steps=steps,
      log_every=log_every,
      calls=calls,
      on_step=ask,
      profile_now=lambda first, last: Requested(calls, played.clock, first, last),
      **more,
    )
  finally:
    signal.signal(signal.SIGUSR2, before)
  return outcome, kinds(calls, *shown)


def test_a_signal_asks_for_a_profile_of_one_window(played):
  outcome, order = requested(played, at=(2, 3))
  assert order == [
    *[("draw", 0), ("draw", 1)],
    ("profile", ("start", 3)),
    *[("draw", 2), ("draw", 3)],
    ("profile", ("stop", 4)),
    # what was asked for meanwhile comes next
    ("profile", ("start", 5)),
    *[("draw", 4), ("draw", 5)],
    ("profile", ("stop", 6)),
    *[("draw", 6), ("draw", 7)],
  ]
  assert outcome.examples_per_s == played(steps=8, log_every=2)[0].examples_per_s
  _, order = requested(played, at=(1,), steps=20, log_every=50)
  assert [call for call in order if call[0] == "profile"] == [
    ("profile", ("start", 2)),
    ("profile", ("stop", 11)),
  ]


def test_a_profile_on_request_waits_for_that_of_the_config_and_ends_with_the_run(played):
  _, order = requested(played, at=(2,), profile=lambda calls: Profile(calls, played.clock))
  profiles = [call[1] for call in order if call[0] == "profile"]
  assert profiles == ["start", "stop", ("start", 5), ("stop", 6)]
  _, order = requested(played, at=(7,), steps=8, log_every=3)
  assert order[-3:] == [("profile", ("start", 8)), ("draw", 7), ("profile", ("stop", 10))]


def test_one_of_several_processes_records_without_waiting_for_its_steps(played):
  shown = ("draw", "write", "profile")
  _, order = requested(played, at=(2,), shown=shown, exchange=AsyncAllGather({}))
  assert order[2:5] == [("profile", ("start", 3)), ("draw", 2), ("write", 2)]


def test_each_second_is_one_section_s(played):
  def slow(state):
    played.clock[0] += 250.0
    return {"score": 1.0}

  _, calls = played(steps=4, log_every=4, evaluate=slow, evaluate_every=2, waits=2.0)
  (line,) = [call[3] for call in calls if call[:3] == ("write", 4, "train")]
  times = {name: value for name, value in line.items() if name.startswith("time/") and value}
  assert times == {
    "time/data_wait": 4.0,
    "time/device": 2.0,
    "time/evaluation": 250.0,
    "time/window": 256.0,
  }, "of the steps 3 and 4, as the first one ends when the second has been dispatched"


class Ledger:
  """Keeps what it is told."""

  def __init__(self, calls):
    self._calls = calls

  def reached(self, step):
    self._calls.append(("ledger", step))

  def summary(self):
    return {
      "seconds": {"lost": 1.0},
      "unaccounted": 0.5,
      "wall": 9.0,
      "goodput": 0.25,
      "redone_steps": 3,
    }


def test_the_ledger_is_told_of_steps_that_are_logged_or_saved_and_of_pauses(played):
  calls = []
  played(
    steps=6,
    log_every=5,
    checkpoint_every=2,
    calls=calls,
    evaluate=scores,
    evaluate_every=3,
    ledger=Ledger(calls),
  )
  assert [call[:2] for call in calls if call[0] in ("ledger", "save", "evaluate")] == [
    ("ledger", 1),  # the first step has ended
    *[("ledger", 2), ("save", 2), ("ledger", 2)],
    ("ledger", 3),  # evaluated
    *[("ledger", 4), ("save", 4), ("ledger", 4)],
    ("ledger", 5),
    ("ledger", 6),  # the last line of the log
    *[("ledger", 6), ("save", 6), ("ledger", 6)],
    ("ledger", 6),
  ]
  written = {"lost": 1.0, "unaccounted": 0.5, "wall": 9.0, "share": 0.25, "redone_steps": 3}
  assert [call for call in calls if call[0] == "write" and call[2] == "goodput"] == [
    ("write", step, "goodput", written) for step in (2, 4, 6)
  ]


class Watch:
  """Keeps what the watchdog is told."""

  def __init__(self, calls):
    self._calls = calls

  def __enter__(self):
    self._calls.append(("watch",))

  def __exit__(self, *unused):
    self._calls.append(("over",))

  def finished(self, step):
    self._calls.append(("finished", step))

  @contextlib.contextmanager
  def phase(self, name):
    self._calls.append(("phase", name))
    yield
    self._calls.append(("ends", name))

  paused = phase


def test_the_watchdog_knows_what_the_loop_is_at(played):
  _, calls = played(
    steps=3, checkpoint_every=2, evaluate=scores, evaluate_every=2, watchdog=Watch, start=1
  )
  told = kinds(calls, "watch", "over", "phase", "ends", "finished", "draw", "save", "wait")
  assert told == [
    ("watch",),
    *[("phase", "next_batch"), ("draw", 1), ("ends", "next_batch"), ("finished", 1)],
    *[("phase", "save"), ("save", 2), ("ends", "save")],
    *[("phase", "evaluate"), ("ends", "evaluate")],
    *[("phase", "next_batch"), ("draw", 2), ("ends", "next_batch"), ("finished", 2)],
    *[("phase", "save"), ("save", 3), ("ends", "save")],
    *[("phase", "evaluate"), ("ends", "evaluate")],
    *[("phase", "save"), ("wait",), ("ends", "save")],
    ("over",),
  ]


def test_looking_for_a_finite_checkpoint_is_no_stall(played):
  calls = []
  with pytest.raises(errors.NonFiniteError):
    played(steps=9, metrics={5: float("nan")}, calls=calls, watchdog=Watch)
  at = calls.index(("restart_point", 5))
  assert calls[at - 1] == ("phase", "restart point")
