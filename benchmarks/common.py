"""What the benchmarks share: the line about the machine, alternating rounds, a Markdown table, and
the page in benchmarks/results.

A benchmark puts this folder's parent on sys.path, then:

    common.add_options(parser)  # --out, --rounds
    # f() -> units of work done, for example frames
    measured = common.rounds({"ours": f, "theirs": g}, options.rounds)
    rows = [(name, f"{one.best.rate:.1f}") for name, one in measured.items()]
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
  """One round: units of work, seconds on the clock, CPU seconds of all threads of this process (and
  of `cpu`'s processes).
  """

  units: float
  wall: float
  cpu: float

  @property
  def rate(self) -> float:
    """Units a second."""
    return self.units / self.wall

  @property
  def per_cpu_second(self) -> float:
    return self.units / self.cpu


@dataclasses.dataclass(frozen=True)
class Measured:
  """The rounds of one row, without the first, which compiles and fills caches."""

  rounds: tuple[Round, ...]

  @property
  def best(self) -> Round:
    """The round with the highest rate: whatever else the machine does can only make a round
    slower.
    """
    return max(self.rounds, key=lambda one: one.rate)

  @property
  def thriftiest(self) -> Round:
    """The round with the most units a CPU second: the figure to compare on a shared machine."""
    return max(self.rounds, key=lambda one: one.per_cpu_second)

  @property
  def slowest(self) -> Round:
    return min(self.rounds, key=lambda one: one.rate)


def add_options(parser: argparse.ArgumentParser, *, rounds: int | None = 3) -> None:
  """--out, and --rounds unless its number is None: for what has no rounds."""
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
  """Runs the rows in turn, round after round, so that a change of the machine meets all of them
  alike.

  Args:
    rows: name -> function that does the work, waits for it, and gives its units.
    number: of rounds that count; one more comes before them.
    before: called with the name before every round of a row; not measured.
    cpu: CPU seconds used so far.
  """
  found: dict[str, list[Round]] = {name: [] for name in rows}
  for turn in range(number + 1):
    for name, run in rows.items():
      if before:
        before(name)
      gc.collect()
      wall, used = time.monotonic(), cpu()
      units = run()
      one = Round(units, time.monotonic() - wall, max(cpu() - used, 1e-9))
      if turn:
        found[name].append(one)
  return {name: Measured(tuple(values)) for name, values in found.items()}


def today() -> str:
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
  """Markdown."""
  lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
  return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def page(title: str, parts: Sequence[str], *, where: str = "") -> str:
  """Title, the command that made it, the machine (or `where`), then the parts."""
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
