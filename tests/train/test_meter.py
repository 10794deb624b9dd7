"""Throughput, the share of waiting, and the line that says that data holds up a run: with a clock
that the test moves.
"""

import types

import pytest

from como_jax.train import meter


@pytest.fixture(name="clock")
def _clock(monkeypatch):
  """The time, in a list of one number."""
  now = [100.0]
  monkeypatch.setattr(meter, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
  return now


def test_a_run_without_steps_has_no_speed(clock):
  speed = meter.Meter(16)
  assert (speed.seconds, speed.rate, speed.wait_share) == (0.0, 0.0, 0.0)
  speed.waited(3.0)  # the first step, which compiles, does not count
  clock[0] += 50
  speed.finished()
  assert (speed.seconds, speed.rate, speed.wait_share) == (1e-9, 0.0, 0.0)


def test_speed_is_that_of_the_steps_behind_the_first_without_pauses(clock):
  speed = meter.Meter(16)
  with speed.paused():
    clock[0] += 30  # before the clock has started
  speed.waited(9.0)
  speed.finished()
  for _ in range(4):
    clock[0] += 2
    speed.waited(0.5)
    speed.finished()
  assert (speed.seconds, speed.rate, speed.wait_share) == (8.0, 8.0, 0.25)
  with speed.paused():
    clock[0] += 10
  with speed.paused():
    clock[0] += 20
  assert (speed.seconds, speed.rate) == (8.0, 8.0), "nothing follows the evaluation yet"
  clock[0] += 2
  speed.finished()
  assert (speed.seconds, speed.rate, speed.wait_share) == (10.0, 8.0, 0.2)
  clock[0] += 10
  speed.finished()
  assert (speed.seconds, speed.rate, speed.wait_share) == (20.0, 4.8, 0.1)
  speed.waited(100.0)
  assert speed.wait_share == 1.0


def played(bottleneck, now, *, waits, seconds=1.0, count=1):
  """The lines said over some steps of so many seconds."""
  lines = []
  for _ in range(count):
    bottleneck.add(waits)
    now[0] += seconds
    lines.append(bottleneck.line())
  return [line for line in lines if line]


def test_a_fifth_of_the_time_is_worth_a_line_every_ten_minutes():
  now = [0.0]
  bottleneck = meter.Bottleneck("advice", clock=lambda: now[0])
  assert bottleneck.line() == ""
  assert played(bottleneck, now, waits=[0.1875], count=10) == []
  line = "waiting for data 25% of the time: advice"
  assert played(bottleneck, now, waits=[0.25]) == [line]
  said = now[0]
  assert played(bottleneck, now, waits=[0.25], count=599) == []
  assert (
    now[0] - said == 599
    and played(bottleneck, now, waits=[0.25]) == [line]
    and now[0] - said == 600
  )
  assert played(bottleneck, now, waits=[0.25], count=10) == []
  threshold = meter.Bottleneck("advice", clock=lambda: now[0])
  played(threshold, now, waits=[0.2])
  assert played(threshold, now, waits=[0.2]) == ["waiting for data 20% of the time: advice"]


def test_a_short_window_goes_on_and_the_first_step_and_pauses_do_not_count():
  now = [0.0]
  bottleneck = meter.Bottleneck("advice", clock=lambda: now[0])
  # the first step starts the clock
  assert played(bottleneck, now, waits=[100.0], seconds=0.25) == []
  assert played(bottleneck, now, waits=[0.125], seconds=0.25, count=3) == []  # 0.75 s
  bottleneck.paused()
  now[0] += 1000
  assert played(bottleneck, now, waits=[100.0], seconds=0.25) == []
  assert played(bottleneck, now, waits=[0.125], seconds=0.25) == [
    "waiting for data 50% of the time: advice"
  ]


def test_the_process_that_has_waited_longest_counts_and_is_named():
  now = [0.0]
  bottleneck = meter.Bottleneck("advice", clock=lambda: now[0])
  assert played(bottleneck, now, waits=[0.0, 0.0, 0.0], seconds=0.5) == []
  for waits in ([0.5, 0.0, 0.0], [0.0, 0.75, 0.25]):
    bottleneck.add(waits)
    now[0] += 0.5
  assert bottleneck.line() == "waiting for data 75% of the time in process 1: advice"
  bottleneck = meter.Bottleneck("advice", clock=lambda: now[0])
  played(bottleneck, now, waits=[5.0])
  assert played(bottleneck, now, waits=[5.0]) == ["waiting for data 100% of the time: advice"]


def test_what_to_do_about_slow_data():
  assert meter.advice(workers=1, threads=2, prefetch=3, host="CPU cores 4") == (
    "raise config.data.workers (now 1; this process: CPU cores 4) or config.data.threads (now 2), "
    "or shrink the work of a sample: shards of a smaller image size (configs/ingest.py), fewer "
    "augmentations; prefetch is 3"
  )


def test_a_window_is_as_fast_as_its_steps_were_ready_without_pauses(clock):
  speed = meter.Meter(16)
  assert speed.window() == 0.0
  clock[0] += 50
  speed.finished(148.0)
  assert speed.window() == 0.0
  for ready in (149.0, 150.0, 152.0):
    clock[0] = ready + 3.0  # read late
    speed.finished(ready)
  assert speed.window() == 3 * 16 / 4.0
  with speed.paused():
    clock[0] += 100
  clock[0] += 2
  speed.finished(258.0)
  assert speed.window() == 16 / 6.0, "106 s later, 100 of them paused"
  clock[0] += 40
  speed.finished()
  assert speed.window() == 16 / (clock[0] - 258.0)
  assert speed.rate == 5 * 16 / speed.seconds
