"""A pytest plugin that records which tests run which functions of the package.

Use: pytest -p mutation_map, with $MUTATION_MAP a folder. It records functions, not lines, because a
function that jax has traced runs none of its lines again. Functions that a fixture of a module,
class or session runs count for all tests that use it. Other processes (end_to_end, data workers)
are not recorded.
"""

import json
import os
import pathlib
import sys
import threading

import pytest

PACKAGE = str(pathlib.Path.cwd() / "como_jax") + os.sep


class Recorder:
  """Records the called functions of each test and fixture."""

  def __init__(self):
    self.contexts: dict[str, set] = {}
    self.fixtures: dict[str, tuple[str, str]] = {}
    self.uses: dict[str, list[str]] = {}
    self.seconds: dict[str, float] = {}
    self.failed: set[str] = set()
    self._current: set = set()

  def trace(self, frame, event, argument):
    """Trace function of sys.settrace."""
    code = frame.f_code
    if code.co_filename.startswith(PACKAGE):
      self._current.add((code.co_filename, code.co_qualname))

  @pytest.hookimpl(hookwrapper=True)
  def pytest_runtest_protocol(self, item):
    """Records the calls of a test."""
    self._current = self.contexts.setdefault(item.nodeid, set())
    self.uses[item.nodeid] = list(item.fixturenames)
    yield
    self._current = set()

  @pytest.hookimpl(hookwrapper=True)
  def pytest_fixture_setup(self, fixturedef):
    """Records the calls of a shared fixture separately."""
    if fixturedef.scope == "function":
      yield
      return
    name = f"fixture {fixturedef.baseid} {fixturedef.argname}"
    self.fixtures[name] = (fixturedef.baseid, fixturedef.argname)
    outside, self._current = self._current, self.contexts.setdefault(name, set())
    yield
    self._current = outside

  def pytest_runtest_logreport(self, report):
    """Records the time and the outcome of a test."""
    self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
    if report.outcome != "passed":
      self.failed.add(report.nodeid)

  def pytest_sessionfinish(self):
    """Writes the map."""
    sys.settrace(None)
    functions: dict[str, set[str]] = {}
    for context, calls in self.contexts.items():
      tests = [context]
      if context in self.fixtures:
        base, name = self.fixtures[context]
        tests = [test for test, used in self.uses.items() if name in used and test.startswith(base)]
      for file, function in calls:
        key = (
          str(pathlib.Path(file).relative_to(pathlib.Path.cwd()))
          + ":"
          + function.replace("<locals>.", "")
        )
        functions.setdefault(key, set()).update(tests)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    folder = pathlib.Path(os.environ["MUTATION_MAP"])
    (folder / f"{worker}.json").write_text(
      json.dumps(
        {
          "functions": {key: sorted(tests - self.failed) for key, tests in functions.items()},
          "seconds": {
            test: seconds for test, seconds in self.seconds.items() if test not in self.failed
          },
          "failed": sorted(self.failed),
        }
      )
    )


def pytest_configure(config):
  """Starts the recording."""
  recorder = Recorder()
  config.pluginmanager.register(recorder)
  sys.settrace(recorder.trace)
  threading.settrace(recorder.trace)
