"""The tests of a mutant: which ones run its function, and whether one of them fails.

First the suite runs once, to record which tests run which functions. Then each mutant is written
into a copy of the project, and the tests that run its function are started until one fails.
"""

import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import mutation

ROOT = pathlib.Path(__file__).parent.parent
MEMORY = 16 * 2**30  # memory limit of a test run, bytes
KILLED, SURVIVED, TIMEOUT, UNTESTED = "killed", "survived", "timeout", "untested"


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
