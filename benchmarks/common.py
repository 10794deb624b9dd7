"""Code shared by the benchmarks: alternating rounds, Markdown tables, and pages of results.

A benchmark puts this folder's parent on sys.path, then:

    common.add_options(parser)  # --out, --rounds
    # f() -> units of work done, for example frames
    measured = common.rounds({"ours": f, "theirs": g}, options.rounds)
    rows = [(name, f"{row.best.rate:.1f}") for name, row in measured.items()]
    lines = [common.table(("what", "a second"), rows)]
    common.finish("train-step", "What a train step costs", lines, options)
"""

import argparse
import dataclasses
import datetime
import gc
import os
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

RESULTS = pathlib.Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Round:
  """One round of a row.

  Attributes:
    units: units of work.
    wall: seconds of wall-clock time.
    cpu: CPU seconds of all threads of this process (and of the processes that `cpu` includes).
  """

  units: float
  wall: float
  cpu: float

  @property
  def rate(self) -> float:
    """Units per second."""
    return self.units / self.wall

  @property
  def per_cpu_second(self) -> float:
    """Units per CPU second."""
    return self.units / self.cpu


@dataclasses.dataclass(frozen=True)
class Measured:
  """The rounds of one row, without the first round, which compiles and fills caches."""

  rounds: tuple[Round, ...]

  @property
  def best(self) -> Round:
    """The round with the highest rate; other work on the machine only makes rounds slower."""
    return max(self.rounds, key=lambda entry: entry.rate)

  @property
  def thriftiest(self) -> Round:
    """The round with the most units per CPU second; compare this one on a shared machine."""
    return max(self.rounds, key=lambda entry: entry.per_cpu_second)

  @property
  def slowest(self) -> Round:
    """The round with the lowest rate."""
    return min(self.rounds, key=lambda entry: entry.rate)


def add_options(parser: argparse.ArgumentParser, *, rounds: int | None = 3) -> None:
  """Adds --out, and --rounds with the default `rounds` (None: no --rounds)."""
  if rounds is not None:
    parser.add_argument(
      "--rounds", type=int, default=rounds, help="rounds of each row, after one that does not count"
    )
  parser.add_argument(
    "--out", action="store_true", help="also write the page into benchmarks/results"
  )


def rounds(
  rows: Mapping[str, Callable[[], float]],
  number: int,
  *,
  before: Callable[[str], Any] | None = None,
  cpu: Callable[[], float] = time.process_time,
) -> dict[str, Measured]:
  """Runs the rows alternately, so that a change of the machine affects all rows equally.

  Args:
    rows: name -> function that does the work, waits for it, and returns its units.
    number: number of rounds that count; an additional round comes before them.
    before: called with the name before every round of a row; not measured.
    cpu: returns the CPU seconds used so far.
  """
  results: dict[str, list[Round]] = {name: [] for name in rows}
  for index in range(number + 1):
    for name, run in rows.items():
      if before:
        before(name)
      gc.collect()
      wall, used = time.monotonic(), cpu()
      units = run()
      result = Round(units, time.monotonic() - wall, max(cpu() - used, 1e-9))
      if index:
        results[name].append(result)
  return {name: Measured(tuple(values)) for name, values in results.items()}


def today() -> str:
  """Date of today, YYYY-MM-DD."""
  return datetime.date.today().isoformat()


def machine() -> str:
  """Date, devices, cores and versions in one line."""
  devices = jax.devices()
  kinds = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
  version = ".".join(map(str, sys.version_info[:2]))
  return (
    f"{today()}, {kinds}, {os.cpu_count()} cores ({platform.machine()}), jax {jax.__version__}, "
    f"Python {version}"
  )


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """Formats a Markdown table."""
  lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
  return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def page(title: str, parts: Sequence[str], *, where: str = "") -> str:
  """Formats a page: title, the command that made it, the machine (or `where`), then the parts."""
  script = pathlib.Path(sys.argv[0])
  command = shlex.join(["python", f"benchmarks/{script.name}", *sys.argv[1:]])
  return "\n\n".join([f"# {title}", f"`{command}`", where or machine(), *parts]) + "\n"


def finish(
  name: str, title: str, parts: Sequence[str], options: argparse.Namespace, *, where: str = ""
) -> str:
  """Prints the page and, with --out, writes it to benchmarks/results/<date>-<name>.md."""
  text = page(title, parts, where=where)
  print("\n" + text, flush=True)
  if options.out:
    path = RESULTS / f"{today()}-{name}.md"
    path.write_text(text)
    print(f"written: benchmarks/results/{path.name}", flush=True)
  return text
