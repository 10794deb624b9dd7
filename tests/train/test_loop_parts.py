"""The loop by itself: a step, a log and checkpoints of paper, so that every call and its order can
be seen.
"""

import functools
import signal
import types

import jax
import numpy as np
import pytest

from como_jax import errors
from como_jax.train import loop, metrics_reader


class Log:
  """Keeps what it is told; it can be full from some step on."""

  def __init__(self, calls, *, full_from=10**9, evaluated=()):
    self._calls, self._full, self._evaluated = calls, full_from, evaluated

  def write(self, step, scalars, *, kind="train"):
    if step >= self._full:
      raise errors.Storage(f"cannot write the log at step {step}")
    self._calls.append(("write", step, kind, dict(scalars)))

  def progress(self, step, scalars, *, say):
    self._calls.append(("progress", step, dict(scalars), say))

  def say(self, text):
    self._calls.append(("say", text))

  def evaluated(self, step):
    return step in self._evaluated


class AsyncAllGather:
  """One process, or what several of them are made to say: {step: [[signal, seconds], ...]}."""

  def __init__(self, others=None):
    self.alone, self._others, self._sent = others is None, others or {}, 0

  def send(self, number, waited):
    self._sent += 1
    return self._others.get(self._sent, [[number, waited]])

  def read(self, sent):
    return np.asarray(sent, np.float32)


class Checkpointer:
  def __init__(self, calls, full=None):
    self._calls, self._full = calls, full

  def save(self, step, state):
    self._calls.append(("save", step, int(state.step)))
    if self._full:
      raise self._full

  def wait(self):
    self._calls.append(("wait",))

  def restart_point(self, step):
    self._calls.append(("restart_point", step))
    return {5: 3}.get(step)


class Value(float):
  """A metric on a device that may not be done."""

  ready = True

  def is_ready(self):
    return self.ready


@pytest.fixture(name="played")
def _played(monkeypatch):
  """Runs the loop on paper: (outcome, calls). A step takes a second."""
  bottleneck, clock = metrics_reader.meter_lib.Bottleneck, [0.0]

  def played(
    *,
    steps,
    start=0,
    metrics=None,
    exchange=None,
    log=None,
    full=None,
    calls=None,
    slow_data="",
    waits=0.0,
    log_every=1,
    checkpoint_every=0,
    evaluate_every=0,
    evaluate=None,
    on_step=None,
  ):
    calls = [] if calls is None else calls
    clock[0] = 0.0
    times = types.SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr(loop, "time", times)
    monkeypatch.setattr(metrics_reader.meter_lib, "time", times)
    monkeypatch.setattr(
      metrics_reader.meter_lib, "Bottleneck", functools.partial(bottleneck, clock=times.monotonic)
    )
    monkeypatch.setattr(
      loop.distributed, "AsyncAllGather", lambda mesh, *, count: exchange or AsyncAllGather()
    )
    monkeypatch.setattr(loop.mesh_lib, "put_batch", lambda mesh, batch: batch)
    monkeypatch.setattr(jax, "device_get", lambda tree: tree)

    def batches():
      at = start
      while True:
        calls.append(("draw", at))
        clock[0] += waits
        yield at
        at += 1

    def step(state, batch):
      assert batch == state.step
      clock[0] += 1.0
      done = state.step + 1
      return types.SimpleNamespace(step=done), {
        "loss": Value((metrics or {}).get(done, 0.5)),
        "rate": Value(2.0),
      }

    step.mesh = None
    outcome = loop.TrainLoop(
      step,
      loop.Schedule(steps, log_every, checkpoint_every, evaluate_every),
      loop.Throughput(8, "pairs", slow_data),
      log(calls) if log else Log(calls),
      Checkpointer(calls, full),
      evaluate,
      on_step,
    ).run(types.SimpleNamespace(step=start), batches())
    return outcome, calls

  played.clock = clock
  return played


def kinds(calls, *wanted):
  return [call[:2] for call in calls if call[0] in wanted]


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


def test_what_is_logged(played):
  _, calls = played(steps=5, log_every=2, waits=1.0)
  # A second more is waited for each batch. The clock starts when the first step is read; the last
  # one is read at once.
  assert [call for call in calls if call[0] == "write"] == [
    ("write", 2, "train", {"loss": 0.5, "rate": 2.0, "pairs_per_s": 4.0, "wait_share": 0.5}),
    ("write", 4, "train", {"loss": 0.5, "rate": 2.0, "pairs_per_s": 4.0, "wait_share": 0.5}),
    ("write", 5, "train", {"loss": 0.5, "rate": 2.0, "pairs_per_s": 16 / 3, "wait_share": 2 / 3}),
  ]
  shown = [call for call in calls if call[0] == "progress"]
  assert shown[1] == ("progress", 2, {"loss": 0.5, "pairs/s": 4.0, "wait %": 50.0}, True)
  assert [call[3] for call in shown] == [False, True, False, True, True]


def test_time_in_which_the_devices_work_is_no_waiting(played, monkeypatch):
  monkeypatch.setattr(Value, "ready", False)
  outcome, _ = played(steps=5, waits=1.0)
  assert outcome.wait_share == 0.0


def test_slow_data_are_said(played):
  _, calls = played(steps=4, waits=1.0, slow_data="advice")
  assert [call[1] for call in calls if call[0] == "say"] == [
    "waiting for data 50% of the time: advice"
  ]
  _, calls = played(steps=4, waits=1.0, slow_data="advice", log_every=5)
  assert [call[1] for call in calls if call[0] == "say"] == [
    "waiting for data 75% of the time: advice"
  ], "only with a line of the log"


def test_every_process_hears_of_the_slowest_and_of_a_signal(played):
  others = {
    2: [[0, 0.0], [0, 1.0]],
    3: [[0, 0.0], [signal.SIGTERM, 1.0]],
    4: [[signal.SIGINT, 0.0], [0, 0.0]],
  }
  outcome, calls = played(
    steps=9, exchange=AsyncAllGather(others), slow_data="advice", checkpoint_every=9
  )
  # What was sent with step 3 is read when step 4 has been started, and what comes later changes
  # nothing.
  assert outcome.stopped and outcome.state.step == 4
  assert [call[1] for call in calls if call[0] == "say"] == [
    "waiting for data 100% of the time in process 1: advice",
    "stopped by SIGTERM at step 4: saved; run the same command with --resume to go on",
  ]
  assert kinds(calls, "save", "wait") == [("save", 4), ("wait",)]


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
  "error", [errors.NonFinite("a"), errors.Transient("b"), RuntimeError("lost")]
)
def test_some_failures_of_an_evaluation_end_the_run(played, monkeypatch, error):
  monkeypatch.setattr(loop.distributed, "lost_process", lambda error: str(error) == "lost")

  def fails(state):
    raise error

  with pytest.raises(type(error)) as caught:
    played(steps=2, evaluate=fails)
  assert caught.value is error


@pytest.mark.parametrize(
  "step, where",
  [
    (5, "from the checkpoint of step 3, whose weights are finite"),
    (4, "from step 0, there is no checkpoint before it"),
  ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_where_to_go_on(played, step, where, value):
  calls = []
  with pytest.raises(errors.NonFinite) as caught:
    played(steps=9, metrics={step: value}, calls=calls)
  assert str(caught.value) == (
    f"step {step}: loss = {value}; --resume goes on {where}: lower "
    "--config.train.optimizer.learning_rate or .clip_norm with it, or look at the batch of this "
    "step"
  )
  assert (
    kinds(calls, "restart_point") == [("restart_point", step)]
    and ("draw", step) in calls
    and ("draw", step + 1) not in calls
  )


def test_a_log_that_cannot_be_written_stops_the_run_with_a_checkpoint(played):
  calls = []
  with pytest.raises(errors.Storage) as caught:
    played(steps=9, calls=calls, log=lambda calls: Log(calls, full_from=2))
  assert (
    str(caught.value)
    == "cannot write the log at step 2; step 3 is saved: make room, then give --resume"
  ), "the first reason is kept"
  assert kinds(calls, "save", "wait") == [("save", 3), ("wait",)] and not kinds(calls, "say")
  with pytest.raises(errors.Storage) as caught:
    played(steps=9, log=lambda calls: Log(calls, full_from=2), full=errors.Storage("cannot save"))
  assert str(caught.value) == "cannot write the log at step 2; cannot save"
  with pytest.raises(errors.Storage) as caught:
    played(steps=9, full=errors.Storage("cannot save"))
  assert str(caught.value) == "cannot save"


def test_the_other_processes_hear_of_a_log_that_cannot_be_written(played):
  with pytest.raises(errors.Storage) as caught:
    played(steps=9, exchange=AsyncAllGather({2: [[signal.SIGXFSZ, 0.0], [0, 0.0]]}))
  assert (
    str(caught.value)
    == "process 0 cannot write its log; step 3 is saved: make room, then give --resume"
  )
  with pytest.raises(errors.Storage) as caught:  # process 0 itself, of several
    played(steps=9, exchange=AsyncAllGather({}), log=lambda calls: Log(calls, full_from=2))
  assert (
    str(caught.value)
    == "cannot write the log at step 2; step 5 is saved: make room, then give --resume"
  )


def test_the_exit_code_after_a_signal_is_that_of_sigterm():
  assert loop.EXIT_SIGNALED == 128 + signal.SIGTERM


def test_every_step_is_told(played):
  told = []
  played(start=3, steps=6, on_step=told.append)
  assert told == [4, 5, 6]
