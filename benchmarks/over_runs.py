"""What runs of several recipes say: intervals with the run as the unit, Holm's correction, what the design
detects.

python benchmarks/over_runs.py FILE.json [--margin 5]
FILE: the co_training.json of a benchmark, or {"episodes": of a run, "successes": {"POLICY, ROW": [of each
  run]}}, as
in benchmarks/results. The rows of a policy are compared with its row "robot only"; rows with labels among
each other, and the policies' rows "robot only", in a table of their own. Holm's correction is over the rows
of a table. """

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from como_jax import errors  # noqa: E402
from como_jax.evaluate import runs, success  # noqa: E402

BASE = "robot only"
KINDS = (
  ("+ CoMo labels", "+ VQ labels"),
  ("+ CoMo labels", "+ true motion"),
)  # of labels, compared with each other


@dataclasses.dataclass(frozen=True)
class Table:
  """Success of the runs of each row.

  Attributes:
    rates: "POLICY, ROW" -> success of each run.
    episodes: of a run.
    outcomes: row -> of each run and episode, [R][N], where known.
    models: motion models of each kind that the labels of all runs come from.
  """

  rates: Mapping[str, Sequence[float]]
  episodes: int
  outcomes: Mapping[str, Sequence[Sequence[bool]]] = dataclasses.field(default_factory=dict)
  models: int = 1

  def compare(self, first: str, second: str) -> runs.Comparison:
    """Over the runs that both have."""
    count = min(len(self.rates[first]), len(self.rates[second]))
    return runs.paired(self.rates[first][:count], self.rates[second][:count])


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("file", type=pathlib.Path)
  parser.add_argument(
    "--margin", type=float, default=5.0, help="points within which two rows are called equal"
  )
  options = parser.parse_args()
  print(text(read(json.loads(options.file.read_text())), margin=options.margin))


def read(stored: Mapping) -> Table:
  """Either kind of file.

  Raises:
    errors.UserError: runs of unequal numbers of episodes.
  """
  if "successes" in stored:
    number = stored["episodes"]
    return Table({name: [one / number for one in won] for name, won in stored["successes"].items()}, number)
  counts = {name: [_total(run["tasks"]) for run in found] for name, found in stored.items()}
  episodes = {played for found in counts.values() for _, played in found}
  if len(episodes) != 1:
    raise errors.UserError(f"runs of {sorted(episodes)} episodes: expected one number for all")
  rates = {name: [won / played for won, played in found] for name, found in counts.items()}
  return Table(
    rates, episodes.pop(), {name: [run["outcomes"] for run in found] for name, found in stored.items()}
  )


def _total(tasks: Mapping[str, Sequence[int]]) -> tuple[int, int]:
  return sum(one[0] for one in tasks.values()), sum(one[1] for one in tasks.values())


def text(table: Table, *, margin: float) -> str:
  """Two tables in Markdown, each with the smallest difference that its design detects.

  A row's interval is Student's t over its runs. With one run there is none; what is said then is about two
  trained policies (Newcombe's interval and McNemar's test over paired episodes).

  Args:
    table: the runs.
    margin: points within which two rows are called equal.
  """
  base = {name: f"{name.partition(', ')[0]}, {BASE}" for name in table.rates}
  pairs = [(name, base[name]) for name in table.rates if name != base[name] and base[name] in table.rates]
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
    lines.append(f"| {name} | {won} of {table.episodes} | {mean} | {' | '.join(cells.get(name, ('', '')))} |")
  parts = ["\n".join(lines)]
  if found:
    parts.append(_detects(table, pairs, found))
  return "\n\n".join(parts + _others(table, margin)) + "\n"


def _others(table: Table, margin: float) -> list[str]:
  policies = list(dict.fromkeys(name.partition(", ")[0] for name in table.rates))
  pairs = [(f"{policy}, {first}", f"{policy}, {second}") for policy in policies for first, second in KINDS]
  pairs += [(f"{first}, {BASE}", f"{second}, {BASE}") for second, first in zip(policies, policies[1:])]
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
    lines.append(f"| {pair[0]} less {pair[1]} | {' | '.join(cells)} | {'yes' if equal else 'not shown'} |")
  shared = (
    f"The labels of all runs come from {table.models} motion model{'s' * (table.models > 1)} of each kind. "
    f"The intervals are about policies on these labels; for kinds of motion models n = {table.models}"
    + (": no interval." if table.models == 1 else ".")
  )
  return ["\n".join(lines), _detects(table, pairs, found), shared]


def _cells(
  table: Table, pairs: Sequence[tuple[str, str]], found: Sequence[runs.Comparison]
) -> list[tuple[str, str]]:
  """(difference, p-value corrected for all of them) as text."""
  cells = []
  for pair, one, p in zip(pairs, found, runs.holm([one.p for one in found]), strict=True):
    words = str(one)
    if one.difference.count == 1 and set(pair) <= set(table.outcomes):
      words += f"; these two policies: {success.compare_paired(*(table.outcomes[name][0] for name in pair))}"
    cells.append((words, f"{p:.2f}" if one.known else ""))
  return cells


def _detects(table: Table, pairs: Sequence[tuple[str, str]], found: Sequence[runs.Comparison]) -> str:
  """What this design detects, and what larger ones would."""
  count = min(one.difference.count for one in found)
  known = [one.deviation for one in found if one.known and one.difference.count == count]
  if not known:
    return (
      f"n = {count} run{'s' * (count > 1)} of {table.episodes} episodes a row: a difference between recipes "
      f"cannot be told from one between seeds. Two trained policies on so many unrelated episodes each: "
      f"{100 * runs.detectable_episodes(table.episodes):.0f} points (80 % power, 5 % two-sided)."
    )
  deviation, number = runs.pooled(known), len(found)
  sizes = [f"{units} runs: {_points(units, deviation, number)}" for units in (5, 10) if units > count]
  lines = [
    f"Smallest difference that {count} runs of {table.episodes} episodes a row detect (80 % power, 5 % "
    f"two-sided; paired differences have a standard deviation of {100 * deviation:.1f} points): "
    + _points(count, deviation, number)
    + "".join(f"; {one}" for one in sizes)
    + "."
  ]
  if set(sum(pairs, ())) <= set(table.outcomes) and count > 1:
    parts = [runs.components(*(table.outcomes[name][:count] for name in pair)) for pair in pairs]
    between, within = (runs.pooled([getattr(one, part) for one in parts]) for part in ("between", "within"))
    endless = runs.Components(between, within).deviation(10 * table.episodes)
    lines.append(
      f"Differences of runs have a standard deviation of {100 * between:.1f} points beyond what their "
      f"episodes explain ({100 * within:.0f} an episode): with ten times the episodes {count} runs detect "
      f"{_points(count, endless, number)}."
    )
  return " ".join(lines)


def _points(units: int, deviation: float, comparisons: int) -> str:
  one, all_of_them = (100 * runs.detectable(units, deviation, comparisons=n) for n in (1, comparisons))
  return f"{one:.0f} points for one comparison" + (
    f", {all_of_them:.0f} for the first of {comparisons}" if comparisons > 1 else ""
  )


if __name__ == "__main__":
  main()
