"""Would the tests notice a wrong line?

Draws small changes of the source, runs the tests of the changed function, lists what passes.

python benchmarks/mutants.py --seed 7 --workdir runs/mutants [--jobs 2]
    200 mutants, evenly over seven packages; --resume goes on
python benchmarks/mutants.py --given --workdir runs/mutants
    those that people wrote down in tests/mutants.toml
python benchmarks/mutants.py --list-survivors --workdir runs/mutants
    what passed, from what is done so far

First the suite runs once, to record which tests run which functions (kept in the workdir;
--map-tests for a part of it). Then each mutant is written into a copy of the project. The tests
that run its function are started until one fails: first the test file with the same name, then the
fastest ones, then the rest of those files. A mutant gets at most --seconds of tests. Mutants that
change nothing are listed with reasons in tests/mutants.toml and do not count. Needs
requirements-test.txt. mutmut and cosmic-ray are not used, because they run one command for all
mutants of a session, and 200 runs of the whole suite take two days.
"""

import argparse
import collections
import json
import pathlib
import random
import sys
import tomllib

import mutation
from mutation_runs import KILLED, ROOT, SURVIVED, TIMEOUT, UNTESTED, Map, learn, read, try_all

PACKAGES = ("data", "evaluate", "train", "models", "tasks", "serve", "sim")
# their simulators are not installed for the tests
LEFT_OUT = ("sim/libero.py", "sim/libero_expert.py", "sim/fetch.py")
ARGUED = ROOT / "tests" / "mutants.toml"


def parse(arguments=None):
  """Parses the arguments of the program."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--workdir", type=pathlib.Path, required=True, help="keeps the map of the tests and the results"
  )
  parser.add_argument(
    "--seed", type=int, help="of the draw; default: another one each time, printed"
  )
  parser.add_argument("--count", type=int, default=200)
  parser.add_argument("--packages", default=",".join(PACKAGES))
  parser.add_argument(
    "--given", action="store_true", help="the mutants of tests/mutants.toml instead of drawn ones"
  )
  parser.add_argument("--jobs", type=int, default=1, help="mutants at a time, one CPU core each")
  parser.add_argument("--seconds", type=float, default=300.0, help="of tests for a mutant, at most")
  parser.add_argument(
    "--map-tests", nargs="*", default=[], metavar="PATH", help="learn from these tests only"
  )
  parser.add_argument("--resume", action="store_true")
  parser.add_argument("--list-survivors", action="store_true")
  options = parser.parse_args(arguments)
  unknown = set(options.packages.split(",")) - set(PACKAGES)
  if unknown:
    parser.error(
      f"--packages: {', '.join(sorted(unknown))} unknown, expected some of {', '.join(PACKAGES)}"
    )
  return options


def sources(package: str) -> dict[str, str]:
  """{path below the project: text} of a package's files."""
  files = sorted((ROOT / "como_jax" / package).rglob("*.py"))
  return {
    str(path.relative_to(ROOT)): path.read_text()
    for path in files
    if not str(path).endswith(LEFT_OUT)
  }


def draw(packages: list[str], count: int, seed: int) -> list[mutation.Mutant]:
  """Draws mutants, equally many per package and, where possible, per kind."""
  rng, chosen = random.Random(seed), []
  for index, package in enumerate(packages):
    texts = sources(package)
    kinds = collections.defaultdict(list)
    for file, text in texts.items():
      for mutant in mutation.candidates(file, text):
        kinds[mutant.kind].append(mutant)
    for mutants in kinds.values():
      rng.shuffle(mutants)
    order, taken = sorted(kinds), set()
    rng.shuffle(order)
    remaining = count // len(packages) + (index < count % len(packages))
    while remaining and any(kinds.values()):
      for kind in order:
        while remaining and kinds[kind]:
          mutant = kinds[kind].pop()
          if (mutant.file, mutant.line) not in taken and mutation.changes(
            mutant, texts[mutant.file]
          ):
            taken.add((mutant.file, mutant.line))  # at most one per line
            chosen.append(mutant)
            remaining -= 1
            break
  return chosen


def written_down() -> tuple[list[mutation.Mutant], list[str]]:
  """Reads tests/mutants.toml: (mutants, names of mutants whose line no longer exists)."""
  found, gone = [], []
  for entry in tomllib.loads(ARGUED.read_text()).get("given", []):
    path = ROOT / entry["file"]
    mutant = (
      mutation.given(entry["file"], path.read_text(), entry["old"], entry["new"])
      if path.exists()
      else None
    )
    if mutant is None:
      gone.append(entry["name"])
    else:
      found.append(mutant)
  return found, gone


def argued(mutant: mutation.Mutant) -> str:
  """Reason in tests/mutants.toml why no test can notice a mutant; "" without one."""
  for entry in tomllib.loads(ARGUED.read_text()).get("equivalent", []):
    if (entry["file"], entry["old"], entry["new"]) == (mutant.file, mutant.before, mutant.after):
      return entry["reason"]
  return ""


def report(mutants: list[mutation.Mutant], rows: dict[str, dict]) -> str:
  """Formats the rates by package, and every survivor."""
  table, survivors, equal = collections.defaultdict(collections.Counter), [], []
  for mutant in mutants:
    if mutant.id not in rows:
      continue
    row, reason = rows[mutant.id], argued(mutant)
    package = pathlib.Path(mutant.file).parts[1]
    status = (
      row["status"]
      if row["status"] in (KILLED, TIMEOUT)
      else "equivalent"
      if reason
      else row["status"]
    )
    table[package][status] += 1
    shown = (
      f"{mutant.file}:{mutant.line} {mutant.function} ({mutant.kind}, {row['tests']} tests, "
      f"{mutant.id})\n"
    )
    shown += "".join(f"  - {line}\n" for line in mutant.before.split("\n")) + "".join(
      f"  + {line}\n" for line in mutant.after.split("\n")
    )
    if status == "equivalent":
      equal.append(shown + f"  changes nothing: {reason}\n")
    elif status in (SURVIVED, UNTESTED):
      survivors.append(shown)
  lines = [
    "| package | mutants | noticed | of them by a time limit | change nothing | survive | rate |",
    "| --- " * 7 + "|",
  ]
  for package, counts in [
    *sorted(table.items()),
    ("all", sum(table.values(), collections.Counter())),
  ]:
    noticed, equivalent = counts[KILLED] + counts[TIMEOUT], counts["equivalent"]
    total = sum(counts.values())
    rate = f"{noticed / (total - equivalent):.1%}" if total > equivalent else "-"
    lines.append(
      f"| {package} | {total} | {noticed} | {counts[TIMEOUT]} | {equivalent} | "
      f"{total - noticed - equivalent} | {rate} |"
    )
  return "\n".join(
    [
      *lines,
      "",
      f"Survivors: {len(survivors)}",
      *survivors,
      f"Change nothing: {len(equal)}",
      *equal,
    ]
  )


def main(arguments=None) -> int:
  """Runs the program; returns the exit code."""
  options = parse(arguments)
  options.workdir.mkdir(parents=True, exist_ok=True)
  kind, settings = "given" if options.given else "drawn", options.workdir / "drawn.json"
  results = options.workdir / f"{kind}.jsonl"
  if results.exists() and not (options.resume or options.list_survivors):
    print(
      f"error: {results} has results: give --resume to go on, or another --workdir", file=sys.stderr
    )
    return 2
  gone: list[str] = []
  if options.given:
    mutants, gone = written_down()
  else:
    if results.exists():
      options.seed, options.count, options.packages = json.loads(settings.read_text())
    elif options.seed is None:
      options.seed = random.SystemRandom().randrange(10**6)
    settings.write_text(json.dumps([options.seed, options.count, options.packages]))
    mutants = draw(options.packages.split(","), options.count, options.seed)
    print(f"seed {options.seed}, {len(mutants)} mutants; without {', '.join(LEFT_OUT)}")
  if not options.list_survivors:
    if not (options.workdir / "map").exists():
      learn(options.workdir / "map", options.map_tests, options.jobs)
    tests = Map(options.workdir / "map")
    print(
      f"{len(tests.seconds)} tests, {sum(tests.seconds.values()):.0f} s; {len(tests.failed)} "
      "more fail by themselves or are skipped",
      flush=True,
    )
    try_all(mutants, results, tests, options)
  print(report(mutants, read(results)))
  if gone:
    print("No longer there, as written down: " + "; ".join(gone))
  return 0


if __name__ == "__main__":
  sys.exit(main())
