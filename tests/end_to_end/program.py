"""Runs the program as a user does."""

import contextlib
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests import limits

ROOT = pathlib.Path(__file__).parent.parent.parent


def environment(**changes) -> dict[str, str]:
  """The tests' environment with one CPU device, as on a laptop."""
  flags = [
    flag for flag in os.environ["XLA_FLAGS"].split() if "host_platform_device_count" not in flag
  ]
  return {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu", **changes}


@contextlib.contextmanager
def benchmarks(*names: str) -> Iterator[Callable]:
  """Imports programs of benchmarks/ by name; `names` are all that come with them (launch/ has
  modules called so, too).
  """
  with pytest.MonkeyPatch.context() as patch:
    for name in names:
      patch.delitem(sys.modules, name, raising=False)
    patch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module
    for name in names:
      sys.modules.pop(name, None)


def command(config: str, workdir, *words: str) -> list[str]:
  return [
    sys.executable,
    "-m",
    "como_jax.main",
    f"--config={config}",
    f"--workdir={workdir}",
    *words,
  ]


def run(config: str, workdir, *words: str, code: int = 0, cwd=ROOT) -> subprocess.CompletedProcess:
  """Runs to the end and checks the exit code."""
  done = subprocess.run(
    command(config, workdir, *words),
    cwd=cwd,
    env=environment(),
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
  )
  assert done.returncode == code, (
    f"exit code {done.returncode}, expected {code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
  )
  return done


def logged(workdir) -> int:
  """The last step in the log of a run that may still be writing it; 0 before the first."""
  file = pathlib.Path(workdir) / "metrics.jsonl"
  lines = file.read_text().splitlines() if file.exists() else []
  return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def local_processes(module: str, *arguments: str, count: int, devices: int) -> list:
  """What the processes of a run of a module have printed as "RESULT {json}", by their number."""
  command = [sys.executable, "launch/local_processes.py", "--devices", str(devices), str(count)]
  done = subprocess.run(
    [*command, "--", sys.executable, "-m", module, *arguments],
    cwd=ROOT,
    env=environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout[-4000:]
  found = re.findall(r"^\[(\d)\] RESULT (.*)$", done.stdout, re.M)
  return [json.loads(text) for _, text in sorted(found)]
