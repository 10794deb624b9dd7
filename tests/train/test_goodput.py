"""The ledger of a run's time over its attempts: what counts, what was lost, and what is said."""

import datetime
import json
import sys
import time

import pytest

from como_jax.train import goodput, step_clock


def seconds(wall, **sections):
  return {
    **dict.fromkeys((*step_clock.WINDOW, "starting", "restoring"), 0.0),
    **sections,
    "wall": wall,
  }


def lines(began, *rest, step=0, starting=10.0, ended=False, **more):
  """An attempt: (step, device seconds so far, wall) of each line behind the first step."""
  result = [
    {"event": "start", "step": step, "began": began, "seconds": seconds(5.0, starting=5.0)},
    {"event": "step", "step": step + 1, "seconds": seconds(starting, starting=starting, **more)},
  ]
  for at, device, wall in rest:
    line = {"event": "step", "step": at}
    result.append({**line, "seconds": seconds(wall, starting=starting, device=device, **more)})
  if ended:
    result.append({**result[-1], "event": "end"})
  return result


def nonzero(summary):
  return {name: value for name, value in summary["seconds"].items() if value}


def test_one_attempt():
  (start, first, step, end) = lines(1000.0, (5, 40.0, 60.0), ended=True)
  end["seconds"] = seconds(
    70.0,
    starting=10.0,
    device=40.0,
    host=1.0,
    logging=2.0,
    data_wait=3.0,
    checkpoint=4.0,
    evaluation=5.0,
    restoring=4.5,
  )
  found = goodput.summarize([start, first, step, end], [])
  assert nonzero(found) == {
    "productive": 43.0,
    "waiting_for_data": 3.0,
    "saving": 4.0,
    "evaluating": 5.0,
    "restoring": 4.5,
    "starting": 10.0,
  }
  assert (found["wall"], found["unaccounted"], found["redone_steps"]) == (70.0, 0.5, 0)
  assert found["goodput"] == 43 / 70


def test_steps_that_are_done_again_are_lost_with_their_waiting_and_the_tail_too():
  first = lines(1000.0, (11, 20.0, 30.0), (21, 40.0, 50.0))
  for i, wait in ((2, 2.0), (3, 4.0)):
    first[i]["seconds"]["data_wait"] = wait
  second = lines(1100.0, (21, 20.0, 35.0), step=16, starting=12.0, ended=True)
  # killed 7 s after its last line, 1057.0; the process starts again 43 s later
  found = goodput.summarize([*first, *second], [900.0, 1057.0])
  assert nonzero(found) == {
    # half of the steps 12 to 21 are done again
    "productive": 30.0 + 20.0,
    "waiting_for_data": 3.0,
    "lost": 11.0 + 7.0,
    "starting": 10.0,
    "restarting": 43.0 + 12.0,
  }
  assert found["redone_steps"] == 5 and found["wall"] == 135.0
  assert found["attempts"] == [
    {
      "began": datetime.datetime.fromtimestamp(1000).isoformat(" "),
      "from_step": 0,
      "to_step": 21,
      "seconds": 57.0,
    },
    {
      "began": datetime.datetime.fromtimestamp(1100).isoformat(" "),
      "from_step": 16,
      "to_step": 21,
      "seconds": 35.0,
    },
  ]


def test_what_a_process_takes_to_end_is_no_restart(tmp_path):
  first, second = lines(1000.0, ended=True), lines(1030.0, step=1, ended=True)
  found = goodput.summarize([*first, *second], [1014.0, 1045.0])
  assert nonzero(found) == {"starting": 10.0, "ending": 4.0 + 5.0, "restarting": 16.0 + 10.0}
  assert found["wall"] == 45.0 and found["unaccounted"] == 0.0


def test_an_end_that_nobody_has_seen_is_that_of_the_last_line():
  first, second = lines(1000.0, (11, 20.0, 30.0)), lines(1100.0, step=11, ended=True)
  found = goodput.summarize([*first, *second], [])
  assert nonzero(found) == {"productive": 20.0, "starting": 10.0, "restarting": 70.0 + 10.0}


def test_an_attempt_without_a_step_is_a_longer_start():
  killed = lines(1000.0)[:1]
  again = lines(1030.0)[:1]
  found = goodput.summarize([*killed, *again, *lines(1100.0, ended=True)], [1020.0, 1050.0])
  assert nonzero(found) == {"starting": 20.0, "restarting": 10.0 + 20.0 + 50.0 + 10.0}
  assert found["unaccounted"] == 0.0


def test_a_later_attempt_that_falls_back_further_takes_more():
  first = lines(1000.0, (11, 10.0, 20.0), (21, 20.0, 30.0), ended=True)
  second = lines(1030.0, (31, 10.0, 20.0), step=21, ended=True)
  third = lines(1050.0, (31, 20.0, 30.0), step=11, ended=True)
  found = goodput.summarize([*first, *second, *third], [])
  assert found["seconds"]["lost"] == 10.0 + 10.0 and found["redone_steps"] == 10 + 10
  assert found["seconds"]["productive"] == 10.0 + 20.0


def test_what_an_attempt_writes_and_what_a_later_one_adds(tmp_path):
  now = [0.0]
  clock = step_clock.StepClock(clock=lambda: now[0], age=3.0)
  ledger = goodput.Ledger(tmp_path, clock, step=0)
  now[0] += 2
  clock.begun()
  ledger.reached(1)
  with clock.section("host"):
    now[0] += 5
  ledger.reached(8)
  with (tmp_path / goodput.FILE).open("a") as file:
    file.write('{"event": "step", "st')
  written = (tmp_path / goodput.FILE).read_text().splitlines()
  assert [json.loads(line)["step"] for line in written[:-1]] == [0, 1, 8]
  assert json.loads(written[0])["began"] == pytest.approx(time.time() - 3.0, abs=60.0)
  assert nonzero(goodput.read(tmp_path)) == {"starting": 5.0, "productive": 5.0}
  (tmp_path / goodput.FILE).write_text("\n".join(written[:-1]) + "\n")
  later = goodput.Ledger(tmp_path, step_clock.StepClock(), step=4)
  later.end()
  later.end()
  found = later.summary()
  assert found["redone_steps"] == 4 and len(found["attempts"]) == 2
  assert found == goodput.read(tmp_path)
  assert goodput.read(tmp_path / "none") == {}


def test_storage_that_fails_ends_nothing(tmp_path):
  ledger = goodput.Ledger(tmp_path / "missing", step_clock.StepClock(), step=0)
  ledger.end()
  assert len(ledger.summary()["attempts"]) == 1


def test_ends_are_read_from_the_supervisors_beside_the_run(tmp_path):
  run = tmp_path / "a [run]"
  for name, text in (
    ("supervise.jsonl", '{"time": "2026-11-02T00:00:00.500+00:00", "event": "end"}\ncut'),
    ("supervise-b.jsonl", '{"time": "2026-11-01T00:00:00+00:00", "event": "end"}\n{"a": 1}'),
    ("other.jsonl", '{"time": "2026-11-03T00:00:00+00:00", "event": "end"}'),
  ):
    (tmp_path / f"a [run].{name}").write_text(text)
  found = [datetime.datetime.fromtimestamp(at, datetime.UTC) for at in goodput._ends(run)]
  assert [(at.day, at.microsecond) for at in found] == [(1, 0), (2, 500_000)]


def test_a_process_is_as_old_as_its_run_only_where_it_does_nothing_else(monkeypatch):
  monkeypatch.setattr(sys, "argv", ["x", "motion", "--config=a"])
  for words in (("--config=a",), ("motion", "--config=a")):
    assert goodput.age(words) > 0
  assert goodput.age(("--config=b",)) == goodput.age(()) == 0.0
  # what this process has used of the CPU it has lived at least
  assert goodput.age(("--config=a",)) < time.clock_gettime(time.CLOCK_BOOTTIME)


def test_what_is_said(tmp_path):
  found = goodput.summarize(
    [*lines(1000.0, (11, 30.0, 40.0)), *lines(1050.0, step=6, ended=True)], []
  )
  assert goodput.text(found).splitlines() == [
    "goodput 25.0% of 60.0 s in 2 attempts, 5 steps done again",
    "  productive             15.0 s   25.0%",
    "  waiting for data        0.0 s    0.0%",
    "  saving                  0.0 s    0.0%",
    "  evaluating              0.0 s    0.0%",
    "  restoring               0.0 s    0.0%",
    "  starting               10.0 s   16.7%",
    "  restarting             20.0 s   33.3%",
    "  ending                  0.0 s    0.0%",
    "  lost                   15.0 s   25.0%",
    "  unaccounted             0.0 s    0.0%",
  ]
  assert goodput.scalars(found)["share"] == 0.25
  assert set(goodput.scalars(found)) == {
    *goodput.CATEGORIES,
    "unaccounted",
    "wall",
    "share",
    "redone_steps",
  }
