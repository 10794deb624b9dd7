"""The ledger of a run's time across restarts: what was training, and what was not.

Process 0 writes WORKDIR/goodput.jsonl. A line has the time of an attempt so far, by section of
`step_clock`, and the step it has reached; no attempt deletes the lines of another. Where an attempt
was killed, its end is read from the supervisor's ledger beside the run directory.
"""

import contextlib
import datetime
import glob
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from como_jax.train import step_clock

FILE = "goodput.jsonl"
# category of the ledger -> its sections of the step clock
SECTIONS = {
  "productive": (step_clock.DEVICE, step_clock.HOST, step_clock.LOG),
  "waiting_for_data": (step_clock.DATA,),
  "saving": (step_clock.SAVE,),
  "evaluating": (step_clock.EVALUATE,),
  "restoring": (step_clock.RESTORE,),
  "starting": (step_clock.START,),
}
CATEGORIES = (*SECTIONS, "restarting", "ending", "lost")
_TRAINING = ("productive", "waiting_for_data")  # what is lost with the steps that are done again


def age(words: Sequence[str]) -> float:
  """Seconds since this process was started for the run alone; 0 where it does other things too.

  Args:
    words: the run's command line.
  """
  given = sys.argv[1:]
  # `como_jax motion --...` says the task before the flags
  if not words or list(words) not in (given, given[1:]):
    return 0.0
  with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):  # not Linux
    text = pathlib.Path("/proc/self/stat").read_text()
    ticks = int(text.rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
  return 0.0


class Ledger:
  """Writes the lines of one attempt; storage that fails ends nothing."""

  def __init__(self, workdir: pathlib.Path, clock: step_clock.StepClock, *, step: int):
    """Writes the first line.

    Args:
      workdir: of the run.
      clock: of this attempt.
      step: at which it starts.
    """
    self._workdir, self._clock, self._step = workdir, clock, step
    self._began, self._ended = time.time() - clock.read()["wall"], False
    self._others = _lines(workdir / FILE)
    self._mine: list[dict[str, Any]] = []
    self._write("start", began=self._began)

  def reached(self, step: int) -> None:
    """Writes the time so far; call it where a step is logged or saved, and after a long pause."""
    self._step = step
    self._write("step")

  def end(self) -> None:
    """Writes the end of the attempt."""
    if not self._ended:
      self._ended = True
      self._write("end")

  def summary(self) -> dict[str, Any]:
    """The time of the whole run so far, see `summarize`."""
    return summarize([*self._others, *self._mine], _ends(self._workdir))

  def _write(self, event: str, **values: float) -> None:
    read = {name: round(value, 6) for name, value in self._clock.read().items()}
    line = {"event": event, "step": self._step, **values, "seconds": read}
    self._mine.append(line)
    with contextlib.suppress(OSError), (self._workdir / FILE).open("a") as file:
      file.write(json.dumps(line) + "\n")


def read(workdir: pathlib.Path) -> dict[str, Any]:
  """The time of a run, see `summarize`; {} where it has no ledger."""
  lines = _lines(workdir / FILE)
  return summarize(lines, _ends(workdir)) if lines else {}


def summarize(lines: Sequence[Mapping[str, Any]], ends: Sequence[float]) -> dict[str, Any]:
  """Adds up the time of a run.

  Args:
    lines: of all attempts.
    ends: times at which the supervisors have seen an attempt end.

  Returns:
    {"wall": seconds from the first start to the last end, "seconds": category -> seconds,
    "unaccounted": the rest of the wall, "goodput": share of "productive", "redone_steps": steps
    that were done again, "attempts": for each, when it "began", its first and last "step" and its
    seconds}.
  """
  attempts: list[list[Mapping[str, Any]]] = []
  for line in lines:
    if line["event"] == "start":
      attempts.append([])
    if attempts:
      attempts[-1].append(line)
  spans = [_span(attempts, i, ends) for i in range(len(attempts))]
  seconds = dict.fromkeys(CATEGORIES, 0.0)
  redone = 0
  for i, attempt in enumerate(attempts):
    opening = "restarting" if i else "starting"
    first, last = attempt[0]["step"], attempt[-1]["step"]
    spent = attempt[-1]["seconds"]
    for name, sections in SECTIONS.items():
      name = opening if name == "starting" else name
      seconds[name] += sum(spent[section] for section in sections)
    if i:
      seconds["restarting"] += max(0.0, spans[i][0] - spans[i - 1][1])
    # behind the last line; of a killed attempt, nothing of it was saved
    tail = max(0.0, spans[i][1] - spans[i][0] - spent["wall"])
    killed = "lost" if last > first else opening
    seconds["ending" if attempt[-1]["event"] == "end" else killed] += tail
    kept = min((later[0]["step"] for later in attempts[i + 1 :]), default=last)
    _move_lost(attempt, kept, seconds)
    redone += max(0, last - max(kept, first))
  wall = spans[-1][1] - spans[0][0] if spans else 0.0
  return {
    "wall": wall,
    "seconds": seconds,
    "unaccounted": wall - sum(seconds.values()),
    "goodput": seconds["productive"] / wall if wall else 0.0,
    "redone_steps": redone,
    "attempts": [
      {
        "began": datetime.datetime.fromtimestamp(begin).isoformat(" ", "seconds"),
        "from_step": attempt[0]["step"],
        "to_step": attempt[-1]["step"],
        "seconds": end - begin,
      }
      for attempt, (begin, end) in zip(attempts, spans, strict=True)
    ],
  }


def _span(
  attempts: Sequence[Sequence[Mapping[str, Any]]], i: int, ends: Sequence[float]
) -> tuple[float, float]:
  """Begin and end of an attempt; where nobody has seen its end, that of its last line."""
  lines = attempts[i]
  begin = lines[0]["began"]
  last = begin + lines[-1]["seconds"]["wall"]
  later = attempts[i + 1][0]["began"] if i + 1 < len(attempts) else float("inf")
  return begin, min((end for end in ends if last <= end <= later), default=last)


def _move_lost(attempt: Sequence[Mapping[str, Any]], step: int, seconds: dict[str, float]) -> None:
  """Moves the training time of the steps after `step`, which were done again, to "lost"."""
  for before, line in zip(attempt, attempt[1:], strict=False):
    done = line["step"] - before["step"]
    share = (line["step"] - max(step, before["step"])) / done if done else line["step"] > step
    if share <= 0:
      continue
    for name in _TRAINING:
      spent = share * sum(
        line["seconds"][section] - before["seconds"][section] for section in SECTIONS[name]
      )
      seconds[name] -= spent
      seconds["lost"] += spent


def text(summary: Mapping[str, Any]) -> str:
  """The ledger as a table, for the terminal."""
  wall = summary["wall"] or 1.0
  rows = {**summary["seconds"], "unaccounted": summary["unaccounted"]}
  attempts = len(summary["attempts"])
  head = (
    f"goodput {summary['goodput']:.1%} of {summary['wall']:.1f} s in {attempts} "
    f"attempt{'s' if attempts > 1 else ''}, {summary['redone_steps']} steps done again"
  )
  return "\n".join(
    [
      head,
      *(
        f"  {name.replace('_', ' '):<17}{value:>10.1f} s {value / wall:>7.1%}"
        for name, value in rows.items()
      ),
    ]
  )


def scalars(summary: Mapping[str, Any]) -> dict[str, float]:
  """The ledger for the log: seconds of each category, and the share of what is productive."""
  return {
    **summary["seconds"],
    "unaccounted": summary["unaccounted"],
    "wall": summary["wall"],
    "share": summary["goodput"],
    "redone_steps": summary["redone_steps"],
  }


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
  """The whole lines of a ledger; a kill may have cut one."""
  lines = []
  with contextlib.suppress(OSError):
    for text in path.read_text().splitlines():
      with contextlib.suppress(ValueError):
        line = json.loads(text)
        if isinstance(line, dict) and {"event", "step", "seconds"} <= set(line):
          lines.append(line)
  return lines


def _ends(workdir: pathlib.Path) -> list[float]:
  """When the supervisors of a run have seen it end (launch/ledger.py)."""
  path, ends = pathlib.Path(os.path.abspath(workdir)), []
  for found in path.parent.glob(f"{glob.escape(path.name)}.supervise*.jsonl"):
    with contextlib.suppress(OSError):
      for text in found.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
          entry = json.loads(text)
          if entry["event"] == "end":
            ends.append(datetime.datetime.fromisoformat(entry["time"]).timestamp())
  return sorted(ends)
