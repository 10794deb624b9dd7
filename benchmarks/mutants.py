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
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib

import mutation

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("data", "evaluate", "train", "models", "tasks", "serve", "sim")
# their simulators are not installed for the tests
LEFT_OUT = ("sim/libero.py", "sim/libero_expert.py", "sim/fetch.py")
ARGUED = ROOT / "tests" / "mutants.toml"
MEMORY = 16 * 2**30  # memory limit of a test run, bytes
KILLED, SURVIVED, TIMEOUT, UNTESTED = "killed", "survived", "timeout", "untested"


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


class Map:
  """The tests of each function, and the seconds of each test."""

  def __init__(self, folder: pathlib.Path):
    self.functions, self.seconds, self.failed = collections.defaultdict(set), {}, set()
    for path in folder.glob("*.json"):
      part = json.loads(path.read_text())
      for key, tests in part["functions"].items():
        self.functions[key].update(tests)
      self.seconds |= part["seconds"]
      self.failed |= set(part["failed"])

  def tests(self, mutant: mutation.Mutant, limit: float) -> list[str]:
    """Returns the tests to run, in order, at most `limit` seconds of them."""
    direct = self.functions.get(f"{mutant.file}:{mutant.function}", set())
    if not direct:  # code that runs on import, or in another process
      direct = {
        test
        for key, tests in self.functions.items()
        if key.startswith(mutant.file + ":")
        for test in tests
      }
    if not direct:
      direct = {test for test in self.seconds if test.startswith("tests/end_to_end/")}
    name = "/".join(
      pathlib.Path(mutant.file).parts[1:-1] + ("test_" + pathlib.Path(mutant.file).name,)
    )
    files = collections.defaultdict(list)
    for test in sorted(direct & set(self.seconds), key=self.seconds.get):
      files[test.partition("::")[0]].append(test)
    order = sorted(
      files,
      key=lambda file: (file != f"tests/{name}", sum(self.seconds[test] for test in files[file])),
    )
    rest = [
      test
      for file in order
      for test in self.seconds
      if test.partition("::")[0] == file and test not in direct
    ]
    chosen, total = [], 0.0
    for test in [test for file in order for test in files[file]] + rest:
      total += self.seconds[test]
      if total > limit and chosen:
        break
      chosen.append(test)
    return chosen


def copy(folder: pathlib.Path) -> pathlib.Path:
  """Copies the project and compiles it to byte code that is checked by content.

  Mutants of equal size follow each other within a second, so a time stamp is not enough.
  """
  ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".pytest_cache")
  shutil.copytree(ROOT, folder, ignore=ignored)
  subprocess.run(
    [
      sys.executable,
      "-m",
      "compileall",
      "-q",
      "--invalidation-mode=checked-hash",
      str(folder / "como_jax"),
    ],
    check=True,
  )
  return folder


def environment(folder: pathlib.Path, **more: str) -> dict[str, str]:
  """Environment of a test run; files converted by a mutant must not be used by the next one."""
  return {
    **os.environ,
    "PYTHONDONTWRITEBYTECODE": "1",
    "COMO_JAX_CACHE": str(folder / "cache"),
    **more,
  }


def learn(folder: pathlib.Path, tests: list[str], jobs: int) -> None:
  """Runs the suite once and writes the map."""
  with tempfile.TemporaryDirectory() as scratch:
    tree = copy(pathlib.Path(scratch) / "tree")
    unfinished = folder.with_name("map.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # only this file, because other modules of benchmarks/ and launch/ have the same names
    plugin = pathlib.Path(scratch) / "plugin"
    plugin.mkdir()
    shutil.copy(ROOT / "benchmarks" / "mutation_map.py", plugin)
    args = [
      "-p",
      "mutation_map",
      "-p",
      "no:cacheprovider",
      "--durations=0",
      f"--basetemp={scratch}/tmp",
      *tests,
    ]
    args += [f"--numprocesses={jobs}", "--dist=loadfile"] * (jobs > 1)
    print("learning which tests run which functions", flush=True)
    result = subprocess.run(
      [sys.executable, "-m", "pytest", *args],
      cwd=tree,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      env=environment(pathlib.Path(scratch), MUTATION_MAP=str(unfinished), PYTHONPATH=str(plugin)),
    )
    if result.returncode not in (0, 1):  # 1: some tests fail; the map lists them
      raise SystemExit(
        f"error: the tests did not run (pytest's exit code {result.returncode}):\n"
        + "\n".join(result.stdout.splitlines()[-20:])
      )
    unfinished.rename(folder)


def limit(cpu_seconds: int) -> None:
  """Limits the memory of a test run, because a mutant may append in an endless loop."""
  resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 10))
  resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def run(
  mutant: mutation.Mutant, tests: list[str], seconds: float, scratch: pathlib.Path
) -> tuple[str, str]:
  """Tests a mutant in a copy of the project; returns (outcome, the test that failed)."""
  tree, file = scratch / "tree", scratch / "tree" / mutant.file
  text = file.read_text()
  names = scratch / "tests.txt"
  names.write_text("\n".join(tests))
  command = [
    sys.executable,
    "-m",
    "pytest",
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "--tb=no",
    "--durations=0",
    f"--basetemp={scratch}/tmp",
    f"@{names}",
  ]
  try:
    file.write_text(mutant.apply(text))
    process = subprocess.Popen(
      command,
      cwd=tree,
      env=environment(scratch),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
      preexec_fn=lambda: limit(120 + 6 * round(seconds)),
    )
    try:
      # limit for a mutant that waits forever; long, because the machine may be busy
      output = process.communicate(timeout=600 + 20 * seconds)[0]
    except subprocess.TimeoutExpired:
      return TIMEOUT, ""
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
  finally:
    file.write_text(text)
    shutil.rmtree(scratch / "cache", ignore_errors=True)
  if process.returncode == 0:
    return SURVIVED, ""
  if process.returncode == -signal.SIGXCPU:
    return TIMEOUT, ""
  # the tests no longer exist, so the mutant was not tested
  if process.returncode == 5 or "ERROR: not found: " in output:
    raise SystemExit(
      (
        f"error: {mutant.file}:{mutant.line}: the tests have changed since they were learned; "
        "begin with another --workdir:\n"
      )
      + output[-500:]
    )
  failed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
  return KILLED, failed[0].split(" ", 1)[
    1
  ] if failed else f"exit code {process.returncode}: {output.strip().splitlines()[-1:]}"


def read(path: pathlib.Path) -> dict[str, dict]:
  """Reads the results: mutant's id -> row."""
  if not path.exists():
    return {}
  return {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}


def try_all(mutants: list[mutation.Mutant], results: pathlib.Path, tests: Map, options) -> None:
  """Tests the mutants without a result; writes each result at once."""
  done, lock, free = read(results), threading.Lock(), queue.Queue()
  todo = [mutant for mutant in mutants if mutant.id not in done]

  def one(mutant):
    chosen, begin, scratch = tests.tests(mutant, options.seconds), time.monotonic(), free.get()
    try:
      seconds = sum(tests.seconds[test] for test in chosen)
      status, killer = run(mutant, chosen, seconds, scratch) if chosen else (UNTESTED, "")
    finally:
      free.put(scratch)
    row = dict(
      id=mutant.id,
      file=mutant.file,
      line=mutant.line,
      function=mutant.function,
      kind=mutant.kind,
      before=mutant.before,
      after=mutant.after,
      status=status,
      killer=killer,
      tests=len(chosen),
      seconds=round(time.monotonic() - begin, 1),
    )
    with lock, open(results, "a") as file:
      file.write(json.dumps(row) + "\n")
      done[mutant.id] = row
      print(
        f"{len(done)}/{len(mutants)} {status:8} {row['seconds']:6.1f} s  "
        f"{mutant.file}:{mutant.line} {mutant.kind}",
        flush=True,
      )

  with tempfile.TemporaryDirectory(prefix="mutants") as folder:
    for i in range(options.jobs):
      free.put(pathlib.Path(folder) / str(i))
      copy(pathlib.Path(folder) / str(i) / "tree")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
      for future in [pool.submit(one, mutant) for mutant in todo]:
        future.result()


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
