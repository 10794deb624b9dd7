"""A run that stands still is noticed, one that saves is not, and the slowest process is named."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from como_jax.train import watchdog as watchdog_lib
from tests import limits

ROOT = pathlib.Path(__file__).parent.parent.parent


def watch(folder, *, steps=30, seconds=0.5, **settings):
  """A watchdog that has seen so many steps of so many seconds, without its thread."""
  clock = [0.0]
  dog = watchdog_lib.Watchdog(folder, patience=10.0, clock=lambda: clock[0], **settings)
  dog.now = clock
  for step in range(1, steps + 1):
    clock[0] += seconds
    dog.finished(step)
  return dog


def passes(dog, seconds):
  """What its looks say at the end of this time, second by second as its thread looks."""
  whole, rest = divmod(seconds, 1.0)
  for part in [1.0] * int(whole) + [rest]:
    dog.now[0] += part
    message = dog.look()
  return message


def test_the_limit_is_three_medians_and_the_patience(tmp_path):
  dog = watch(tmp_path)
  assert dog.limit == pytest.approx(11.5)
  passes(dog, 9.0)
  dog.finished(31)  # one slow step does not move the median
  assert dog.limit == pytest.approx(11.5)
  assert passes(dog, 11.4) == ""
  message = passes(dog, 0.2)
  assert "no step for 12 s after step 31 (the limit is 11.5 s" in message and "stall-0" in message


def test_steps_that_are_shorter_and_longer_than_a_look_are_timed_by_the_clock(tmp_path):
  for seconds in (0.01, 3.0):
    assert watch(tmp_path, seconds=seconds).limit == pytest.approx(3 * seconds + 10)


def test_the_first_steps_compile(tmp_path):
  assert passes(watch(tmp_path, steps=19), 100.0) == ""
  assert passes(watch(tmp_path, steps=20), 100.0)


def test_what_is_paused_takes_as_long_as_it_takes(tmp_path):
  dog = watch(tmp_path)
  passes(dog, 11.0)
  with dog.paused("save"), dog.paused("inner"):
    assert passes(dog, 600.0) == ""
  assert passes(dog, 0.4) == "" and passes(dog, 0.2)
  with dog.phase("next_batch"):
    assert ": it is at next_batch" in dog.look()


def test_a_process_that_slept_as_a_whole_does_not_stand_still(tmp_path):
  dog = watch(tmp_path)
  dog.now[0] += 3600.0
  assert dog.look() == "" and passes(dog, 7.0) == "" and passes(dog, 1.0)


def several(folder, *others):
  """A watchdog whose step takes suspiciously long, beside what the others say."""
  (folder / "heartbeats").mkdir()
  dog = watch(folder, process=1, count=1 + len(others))
  for i, beat in enumerate(others):
    path = folder / "heartbeats" / f"{i if i < 1 else i + 1}.json"
    path.write_text(json.dumps({"step": 30, "phase": "step", "paused": False, **beat}))
  passes(dog, 8.0)
  dog.exchange()
  return dog


@pytest.mark.parametrize(
  "others, expected",
  [
    ([{"step": 29, "phase": "next_batch"}, {}], "process 0 of 3, at next_batch after step 29"),
    ([{}, {"phase": "next_batch"}], "process 2 of 3, at next_batch after step 30"),
    ([{"step": 29}, {}], "process 0 of 3, at step after step 29"),
    ([{}, {}], "all processes are at step"),
  ],
)
def test_the_slowest_process_is_named(tmp_path, others, expected):
  assert expected in passes(several(tmp_path, *others), 20.0)


def test_a_process_that_is_silent_is_the_slowest_of_those_at_the_same_step(tmp_path):
  dog = several(tmp_path, {}, {})
  silent = tmp_path / "heartbeats" / "2.json"
  old = silent.stat().st_mtime - 60
  os.utime(silent, (old, old))
  dog.exchange()
  assert "the slowest is process 2 of 3, at step after step 30, last heard of 60 s ago" in (
    passes(dog, 20.0)
  )


def test_who_waits_for_a_process_that_saves_does_not_stand_still(tmp_path):
  dog = several(tmp_path, {"phase": "save", "paused": True}, {})
  assert passes(dog, 100.0) == ""
  other = tmp_path / "heartbeats" / "0.json"
  other.write_text(json.dumps({"step": 30, "phase": "step", "paused": False}))
  dog.exchange()
  for seconds in (8.0, 3.0):  # it saves no more: the clock began when it ended
    assert passes(dog, seconds) == ""
    dog.exchange()
  assert "no step for 12 s" in passes(dog, 1.0)


def test_a_process_that_saves_and_says_nothing_any_more_is_not_waited_for(tmp_path):
  dog = several(tmp_path, {"phase": "save", "paused": True}, {})
  other = tmp_path / "heartbeats" / "0.json"
  old = other.stat().st_mtime - 60
  os.utime(other, (old, old))
  dog.exchange()
  assert "process 0 of 3, at save" in passes(dog, 20.0)


def test_others_are_read_only_once_a_step_takes_long(tmp_path):
  dog = watch(tmp_path, count=2)
  dog.exchange()
  (tmp_path / "heartbeats" / "1.json").write_text("not JSON")
  (tmp_path / "heartbeats" / "0.json").read_text()
  assert dog._beats == []
  passes(dog, 8.0)
  dog.exchange()
  assert [beat["process"] for beat in dog._beats] == [0]


@pytest.mark.parametrize(
  "seconds, count, supervised, expected",
  [
    (-1.0, 1, "", 0.0),
    (-1.0, 2, "", 8.0),
    (-1.0, 1, "1", 8.0),
    (0.0, 2, "1", 0.0),
    (3.5, 1, "", 3.5),
  ],
)
def test_when_it_watches(monkeypatch, seconds, count, supervised, expected):
  monkeypatch.setenv(watchdog_lib.SUPERVISED, supervised)
  assert watchdog_lib.patience(seconds, count=count) == expected


def test_a_thread_of_its_own_ends_the_process_with_75_and_leaves_the_stacks(tmp_path):
  code = """
import pathlib, sys, threading
from como_jax.train import watchdog
def hang_in_a_collective():
  with dog.phase("next_batch"):
    threading.Event().wait()
with watchdog.Watchdog(pathlib.Path(sys.argv[1]), patience=0.2, interval=0.02) as dog:
  for step in range(1, 30):
    dog.finished(step)
  hang_in_a_collective()
"""
  done = subprocess.run(
    [sys.executable, "-c", code, str(tmp_path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
  )
  assert done.returncode == 75, done.stderr
  assert "after step 29" in done.stderr and "it is at next_batch" in done.stderr
  assert "hang_in_a_collective" in (tmp_path / "stall-0.txt").read_text()


def test_without_patience_nothing_is_watched(tmp_path):
  before = threading.active_count()
  with watchdog_lib.Watchdog(tmp_path, patience=0.0, count=2):
    assert threading.active_count() == before
  assert not list(tmp_path.iterdir())


def test_the_thread_ends_with_the_context(tmp_path):
  with watchdog_lib.Watchdog(tmp_path, patience=1.0) as dog:
    assert dog._thread.is_alive()
  assert not dog._thread.is_alive()


def test_storage_that_hangs_does_not_hang_the_watchdog(tmp_path):
  """Heartbeats and stacks of two processes on storage that does not answer: FIFOs."""
  code = """
import os, pathlib, sys, threading
from como_jax.train import watchdog
folder = pathlib.Path(sys.argv[1])
(folder / "heartbeats").mkdir()
os.mkfifo(folder / "heartbeats" / ".0.new")
os.mkfifo(folder / "stall-0.txt")
dog = watchdog.Watchdog(folder, patience=0.2, interval=0.02, count=2)
with dog:
  for step in range(1, 30):
    dog.finished(step)
  threading.Event().wait()
"""
  done = subprocess.run(
    [sys.executable, "-c", code, str(tmp_path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
  )
  assert done.returncode == 75 and "no step for" in done.stderr
