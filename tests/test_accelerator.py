"""The benchmark of an accelerator: its page, its table of a trace, and the whole of it in small."""

import gzip
import json
import subprocess
import sys

import pytest

from tests.end_to_end import program

SCRIPT = program.ROOT / "benchmarks" / "accelerator.py"


@pytest.fixture(name="load", scope="module")
def _load():
  with program.benchmarks(
    "accelerator", "accelerator_runs", "input_pipeline_data", "common"
  ) as load:
    yield load


def run(*words: str, **changes: str) -> subprocess.CompletedProcess:
  command = [sys.executable, str(SCRIPT), *words]
  return subprocess.run(
    command, capture_output=True, text=True, env=program.environment(**changes), cwd=program.ROOT
  )


def test_a_trace_becomes_a_table(load, tmp_path):
  """Only streams that compute count; two kernels of 2 and 1 ms in a span of 4."""
  events = [
    {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "Stream #1(Compute)"}},
    {
      "ph": "M",
      "name": "thread_name",
      "pid": 1,
      "tid": 2,
      "args": {"name": "Stream #2(MemcpyD2H)"},
    },
    {"ph": "X", "name": "nvjet_128", "pid": 1, "tid": 1, "ts": 0, "dur": 2000},
    {"ph": "X", "name": "loop_pad_fusion", "pid": 1, "tid": 1, "ts": 3000, "dur": 1000},
    {"ph": "X", "name": "copy", "pid": 1, "tid": 2, "ts": 0, "dur": 9000},
    {},
  ]
  path = tmp_path / "vm.trace.json.gz"
  with gzip.open(path, "wt") as file:
    json.dump({"traceEvents": events}, file)
  rows = load("accelerator_runs").kernels(path).splitlines()[2:]
  assert rows == [
    "| matrix products | 2.0 | 50.0% |",
    "| pads, slices, conversions, broadcasts | 1.0 | 25.0% |",
    "| nothing | 1.0 | 25.0% |",
  ]
  with gzip.open(path, "wt") as file:
    json.dump({"traceEvents": []}, file)
  assert load("accelerator_runs").kernels(path) == ""


def test_a_section_that_fails_is_on_the_page(tmp_path):
  """Its rows are missing, its reason and the end of its output are there; the exit code is 1."""
  done = run("--size=tiny", "--only=policy", f"--out={tmp_path}", JAX_PLATFORMS="no_such_device")
  page = (tmp_path / "accelerator.md").read_text()
  assert done.returncode == 1 and "failed: policy" in done.stderr
  assert "## policy (" in page and "**it ended with code 1**" in page
  assert "no_such_device" in page


def test_names_of_sections_are_checked(tmp_path):
  done = run("--only=device,speed", f"--out={tmp_path}")
  assert done.returncode == 2 and "no section 'speed'; valid: device, correctness" in done.stderr


@pytest.mark.slow
def test_the_whole_of_it_in_small(tmp_path):
  done = run("--size=tiny", f"--out={tmp_path}", "--seconds=1800")
  assert done.returncode == 0, done.stdout + done.stderr
  page = (tmp_path / "accelerator.md").read_text()
  sections = (
    "device",
    "correctness",
    "train",
    "policy",
    "repeat",
    "input",
    "labeling",
    "attention",
  )
  assert all(f"## {name} (" in page for name in sections)
  assert "| as shipped | resumed at step 10 | 20 of 20 | 0 | equal |" in page
