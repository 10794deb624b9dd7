"""Statistics over the runs of several recipes: intervals, Holm's correction, detectable effects.

python benchmarks/over_runs.py FILE.json [--margin 5]
FILE: the co_training.json of a benchmark, or {"episodes": of a run, "successes": {"POLICY, ROW":
[of each run]}, "models": [motion model that the labels of each run come from, a name or number]},
as in benchmarks/results; "models" is optional. The unit of the intervals is the run. The rows of a
policy are compared with its row "robot only". A second table compares rows with labels with each
other, and the rows "robot only" of the policies. Holm's correction is over the rows of a table.
Exit codes: 0 done, 2 bad input (one line on stderr).
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from como_jax import errors
from como_jax.evaluate import runs, success

BASE = "robot only"
KINDS = (
  ("+ CoMo labels", "+ VQ labels"),
  ("+ CoMo labels", "+ true motion"),
)  # of labels, compared with each other


@dataclasses.dataclass(frozen=True)
class Table:
  """Success of the runs of each row.

  Attributes:
    rates: "POLICY, ROW" -> success rate of each run.
    episodes: number of episodes of a run.
    outcomes: row -> success of each run and episode, [R][N], where known.
    models: motion model (of each kind) that the labels of each run come from; None if unknown.
  """

  rates: Mapping[str, Sequence[float]]
  episodes: int
  outcomes: Mapping[str, Sequence[Sequence[bool]]] = dataclasses.field(default_factory=dict)
  models: Sequence[Hashable] | None = None

  def compare(self, first: str, second: str) -> runs.Comparison:
    """Compares two rows over their common runs."""
    count = min(len(self.rates[first]), len(self.rates[second]))
    return runs.paired(self.rates[first][:count], self.rates[second][:count])


def main() -> int:
  """Prints the tables; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("file", type=pathlib.Path)
  parser.add_argument(
    "--margin", type=float, default=5.0, help="points within which two rows are called equal"
  )
  options = parser.parse_args()
  try:
    print(text(read(load(options.file)), margin=options.margin))
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return error.code
  return 0


def load(path: pathlib.Path) -> Mapping:
  """Reads a file.

  Raises:
    errors.UserError: the file does not exist, cannot be read, or is no JSON object.
  """
  try:
    stored = json.loads(path.read_text())
  except FileNotFoundError:
    nearest = errors.nearest(path.name, (file.name for file in path.parent.glob("*.json")))
    raise errors.UserError(f"{path}: no such file: {nearest}") from None
  except OSError as error:
    raise errors.UserError(f"{path}: cannot be read: {error.strerror or error}") from None
  except ValueError as error:  # of the encoding or of JSON
    raise errors.UserError(f"{path}: expected JSON ({error})") from None
  if not isinstance(stored, dict):
    raise errors.UserError(f"{path}: expected a JSON object, found {type(stored).__name__}")
  return stored


def read(stored: Mapping) -> Table:
  """Converts the contents of both kinds of files to a Table.

  Raises:
    errors.UserError: runs with different numbers of episodes, a row without runs, a number of
      motion models that differs from the number of runs, or another kind of file.
  """
  if "successes" in stored:
    number, won = stored.get("episodes"), stored["successes"]
    if type(number) is not int or number < 1:
      raise errors.UserError(f"episodes = {number!r}: expected how many episodes a run has")
    if not isinstance(won, dict):
      raise errors.UserError(
        f"successes: expected rows of runs by name, found {type(won).__name__}"
      )
    for name, each in won.items():
      if not (
        isinstance(each, list) and all(type(one) is int and 0 <= one <= number for one in each)
      ):
        raise errors.UserError(
          f"successes, {name}: expected of each run a whole number from 0 to {number}, found "
          f"{each!r}"
        )
    return _table(
      {name: [one / number for one in each] for name, each in won.items()}, number, stored
    )
  for name, found in stored.items():
    if not (isinstance(found, list) and all(map(_is_run, found))):
      near = errors.nearest(name, ("episodes", "successes", "models"))
      raise errors.UserError(
        f"{name}: expected runs, each with tasks and outcomes, or other keys: {near}"
      )
  counts = {name: [_total(run["tasks"]) for run in found] for name, found in stored.items()}
  episodes = {played for found in counts.values() for _, played in found}
  if not stored:
    raise errors.UserError("expected rows of runs, or episodes and successes, found nothing")
  if len(episodes) != 1:
    raise errors.UserError(f"runs of {sorted(episodes)} episodes: expected one number for all")
  rates = {name: [won / played for won, played in found] for name, found in counts.items()}
  outcomes = {name: [run["outcomes"] for run in found] for name, found in stored.items()}
  # the benchmark uses one motion model of each kind: --como and --vq
  one_of_each = [0] * max(map(len, rates.values()))
  return dataclasses.replace(
    _table(rates, episodes.pop(), {"models": one_of_each}), outcomes=outcomes
  )


def _table(rates: Mapping[str, Sequence[float]], episodes: int, stored: Mapping) -> Table:
  runs_of = {name: len(values) for name, values in rates.items()}
  empty = [name for name, count in runs_of.items() if not count]
  if empty or not runs_of:
    raise errors.UserError(
      f"{empty[0] if empty else 'successes'}: expected at least one run, found none"
    )
  models = stored.get("models")
  if models is not None and not (
    isinstance(models, list) and all(isinstance(one, str | int) for one in models)
  ):
    raise errors.UserError(
      f"models: expected the name or number of a motion model for each run, found {models!r}"
    )
  if models is not None and len(models) != max(runs_of.values()):
    raise errors.UserError(
      f"models: expected one for each of {max(runs_of.values())} runs, found {len(models)}"
    )
  return Table(rates, episodes, models=models)


def _is_run(run: Any) -> bool:
  """Whether it has "outcomes" and "tasks", each task with two integers: successes and episodes."""
  if not (
    isinstance(run, dict)
    and isinstance(run.get("outcomes"), list)
    and isinstance(run.get("tasks"), dict)
  ):
    return False
  return all(
    isinstance(one, list) and len(one) == 2 and all(type(n) is int for n in one)
    for one in run["tasks"].values()
  )


def _total(tasks: Mapping[str, Sequence[int]]) -> tuple[int, int]:
  return sum(one[0] for one in tasks.values()), sum(one[1] for one in tasks.values())


def text(table: Table, *, margin: float) -> str:
  """Formats two Markdown tables, each with the smallest difference that its design detects.

  A row's interval is Student's t over its runs. One run has no interval. The comparison is then of
  two trained policies (Newcombe's interval and McNemar's test over paired episodes).

  Args:
    table: the runs.
    margin: points within which two rows are called equal.
  """
  base = {name: f"{name.partition(', ')[0]}, {BASE}" for name in table.rates}
  pairs = [
    (name, base[name]) for name in table.rates if name != base[name] and base[name] in table.rates
  ]
  found = [table.compare(*pair) for pair in pairs]
  cells = {name: cell for (name, _), cell in zip(pairs, _cells(table, pairs, found), strict=True)}
  lines = [
    f"| policy, data | successes by run | mean of runs | against {BASE}, runs paired | Holm's p |",
    "| --- |" + " --- |" * 4,
  ]
  for name, values in table.rates.items():
    each = success.over_runs([100 * one for one in values])
    mean = f"{each.mean:.1f} %" + (
      f" [{each.interval[0]:.1f}, {each.interval[1]:.1f}]" if each.interval else ""
    )
    won = " ".join(f"{one * table.episodes:.0f}" for one in values)
    lines.append(
      f"| {name} | {won} of {table.episodes} | {mean} | {' | '.join(cells.get(name, ('', '')))} |"
    )
  parts = ["\n".join(lines)]
  if found:
    parts.append(_detects(table, pairs, found))
  return "\n\n".join(parts + _others(table, margin)) + "\n"


def _others(table: Table, margin: float) -> list[str]:
  """Formats the second table: rows with labels, and rows "robot only"."""
  policies = list(dict.fromkeys(name.partition(", ")[0] for name in table.rates))
  pairs = [
    (f"{policy}, {first}", f"{policy}, {second}") for policy in policies for first, second in KINDS
  ]
  pairs += [
    (f"{first}, {BASE}", f"{second}, {BASE}")
    for second, first in zip(policies, policies[1:], strict=False)
  ]
  pairs = [pair for pair in pairs if set(pair) <= set(table.rates)]
  if not pairs:
    return []
  found = [table.compare(*pair) for pair in pairs]
  lines = [
    f"| other comparisons | runs paired | Holm's p | equal within {margin:g} points? |",
    "| --- |" + " --- |" * 3,
  ]
  for pair, one, cells in zip(pairs, found, _cells(table, pairs, found), strict=True):
    equal = one.known and runs.equivalent(one.difference.low, one.difference.high, margin / 100)
    lines.append(
      f"| {pair[0]} less {pair[1]} | {' | '.join(cells)} | {'yes' if equal else 'not shown'} |"
    )
  labels = [pair for pair in pairs if not pair[0].endswith(f", {BASE}")]
  return [
    "\n".join(lines),
    _detects(table, pairs, found),
    *([_by_model(table, labels)] if labels else []),
  ]


def _by_model(table: Table, pairs: Sequence[tuple[str, str]]) -> str:
  """Formats the same differences with the motion model as the unit.

  Only these support claims about kinds of motion models.
  """
  about = "The intervals are about policies on these labels"
  if table.models is None:
    return f"The file does not say which motion models the labels come from (models). {about}."
  number = len(set(table.models))
  said = (
    f"The labels of all runs come from {number} motion model{'s' * (number > 1)} of each kind. "
    f"{about}; for kinds of motion models n = {number}: "
  )
  if number == 1:
    return said + "no interval."
  found = []
  for pair in pairs:
    count = min(len(table.rates[name]) for name in pair)
    found.append(runs.by_model(*(table.rates[name][:count] for name in pair), table.models[:count]))
  corrected = runs.holm([one.p for one in found])
  told = (
    f"{first} less {second} {one}" + f", Holm's p {p:.2f}" * one.known
    for (first, second), one, p in zip(pairs, found, corrected, strict=True)
  )
  return said + "; ".join(told) + "."


def _cells(
  table: Table, pairs: Sequence[tuple[str, str]], found: Sequence[runs.Comparison]
) -> list[tuple[str, str]]:
  """Formats (difference, p-value after the correction for all pairs)."""
  cells = []
  for pair, one, p in zip(pairs, found, runs.holm([one.p for one in found]), strict=True):
    words = str(one)
    if one.difference.count == 1 and set(pair) <= set(table.outcomes):
      words += (
        "; these two policies: "
        f"{success.compare_paired(*(table.outcomes[name][0] for name in pair))}"
      )
    cells.append((words, f"{p:.2f}" if one.known else ""))
  return cells


def _detects(
  table: Table, pairs: Sequence[tuple[str, str]], found: Sequence[runs.Comparison]
) -> str:
  """Formats the differences that this design and larger ones detect."""
  count = min(one.difference.count for one in found)
  known = [one.deviation for one in found if one.known and one.difference.count == count]
  if not known:
    return (
      f"n = {count} run{'s' * (count > 1)} of {table.episodes} episodes a row: a difference "
      "between recipes cannot be told from one between seeds. Two trained policies on so many "
      f"unrelated episodes each: {100 * runs.detectable_episodes(table.episodes):.0f} points (80 "
      "% power, 5 % two-sided)."
    )
  deviation, number = runs.pooled(known), len(found)
  sizes = [
    f"{units} runs: {_points(units, deviation, number)}" for units in (5, 10) if units > count
  ]
  lines = [
    f"Smallest difference that {count} runs of {table.episodes} episodes a row detect (80 % "
    f"power, 5 % two-sided; paired differences have a standard deviation of {100 * deviation:.1f} "
    "points): " + _points(count, deviation, number) + "".join(f"; {one}" for one in sizes) + "."
  ]
  if set(sum(pairs, ())) <= set(table.outcomes) and count > 1:
    parts = [runs.components(*(table.outcomes[name][:count] for name in pair)) for pair in pairs]
    between, within = (
      runs.pooled([getattr(one, part) for one in parts]) for part in ("between", "within")
    )
    more_episodes = runs.Components(between, within).deviation(10 * table.episodes)
    lines.append(
      f"Differences of runs have a standard deviation of {100 * between:.1f} points beyond what "
      f"their episodes explain ({100 * within:.0f} an episode): with ten times the episodes "
      f"{count} runs detect {_points(count, more_episodes, number)}."
    )
  return " ".join(lines)


def _points(units: int, deviation: float, comparisons: int) -> str:
  one, all_of_them = (
    100 * runs.detectable(units, deviation, comparisons=n) for n in (1, comparisons)
  )
  return f"{one:.0f} points for one comparison" + (
    f", {all_of_them:.0f} for the first of {comparisons}" if comparisons > 1 else ""
  )


if __name__ == "__main__":
  sys.exit(main())
