"""Metrics of finished steps: what is logged, what other processes tell, what is not finite."""

import signal
import types

import pytest

from como_jax import errors
from tests.train.paper_loop import AsyncAllGather, Log, Value, kinds
from tests.train.paper_loop import _played as _played  # a fixture


def test_what_is_logged(played):
  _, calls = played(steps=5, log_every=2, waits=1.0)

  # A second more is waited for each batch. The clock starts when the first step is read; the last
  # one is read at once.
  def line(step, mean, share, data, device):
    sections = dict.fromkeys(("host", "checkpoint", "evaluation", "logging", "unaccounted"), 0.0)
    times = {"data_wait": data, "device": device, "window": data + device, **sections}
    rates = {"pairs_per_s": 4.0, "pairs_per_s_mean": mean, "wait_share": share}
    scalars = {"loss": 0.5, "rate": 2.0, **rates, **{f"time/{k}": v for k, v in times.items()}}
    return ("write", step, "train", scalars)

  assert [call for call in calls if call[0] == "write"] == [
    line(2, 4.0, 0.5, 1.0, 1.0),
    line(4, 4.0, 0.5, 2.0, 2.0),
    line(5, 16 / 3, 2 / 3, 0.0, 0.0),
  ]
  shown = [call for call in calls if call[0] == "progress"]
  assert shown[1] == ("progress", 2, {"loss": 0.5, "pairs/s": 4.0, "wait %": 50.0}, True)
  assert [call[3] for call in shown] == [False, True, False, True, True]


def test_the_rate_is_that_of_the_window_and_what_is_not_known_is_left_out(played):
  def slow(done):
    played.clock[0] += 9.0 if done > 8 else 0.0

  _, calls = played(steps=12, log_every=4, on_step=slow)
  lines = [call[3] for call in calls if call[0] == "write"]
  # 8 pairs a step of a second, then of ten
  assert [line["pairs_per_s"] for line in lines] == [8.0, 8.0, 32 / 31]
  assert [line["pairs_per_s_mean"] for line in lines] == [8.0, 8.0, 88 / 46]
  _, calls = played(steps=1)
  (only,) = [call[3] for call in calls if call[0] == "write"]
  assert only["pairs_per_s"] == 0.0 and not any(name.startswith("time/") for name in only)


def test_the_use_of_the_devices_is_logged(played):
  used = types.SimpleNamespace(scalars=lambda steps_per_s: {"mfu": steps_per_s / 10})
  _, calls = played(steps=4, log_every=2, utilization=used)
  assert [call[3]["mfu"] for call in calls if call[0] == "write"] == [0.1, 0.1]


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
  with pytest.raises(errors.NonFiniteError) as caught:
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
  with pytest.raises(errors.StorageError) as caught:
    played(steps=9, calls=calls, log=lambda calls: Log(calls, full_from=2))
  assert (
    str(caught.value)
    == "cannot write the log at step 2; step 3 is saved: make room, then give --resume"
  ), "the first reason is kept"
  assert kinds(calls, "save", "wait") == [("save", 3), ("wait",)] and not kinds(calls, "say")
  with pytest.raises(errors.StorageError) as caught:
    played(
      steps=9, log=lambda calls: Log(calls, full_from=2), full=errors.StorageError("cannot save")
    )
  assert str(caught.value) == "cannot write the log at step 2; cannot save"
  with pytest.raises(errors.StorageError) as caught:
    played(steps=9, full=errors.StorageError("cannot save"))
  assert str(caught.value) == "cannot save"


def test_the_other_processes_hear_of_a_log_that_cannot_be_written(played):
  with pytest.raises(errors.StorageError) as caught:
    played(steps=9, exchange=AsyncAllGather({2: [[signal.SIGXFSZ, 0.0], [0, 0.0]]}))
  assert (
    str(caught.value)
    == "process 0 cannot write its log; step 3 is saved: make room, then give --resume"
  )
  with pytest.raises(errors.StorageError) as caught:  # process 0 itself, of several
    played(steps=9, exchange=AsyncAllGather({}), log=lambda calls: Log(calls, full_from=2))
  assert (
    str(caught.value)
    == "cannot write the log at step 2; step 5 is saved: make room, then give --resume"
  )
