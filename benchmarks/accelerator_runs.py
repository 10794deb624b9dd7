"""Sections "input" and "repeat" of accelerator.py: runs of the program itself.

Their data are JPEG shards of moving textures (`Synthetic` of input_pipeline_data.py).
"""

import collections
import functools
import gzip
import hashlib
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import common
from input_pipeline_data import Synthetic

from como_jax.data import ingest, ingest_settings

ROOT = pathlib.Path(__file__).parent.parent
# episodes of 128 frames from two cameras, their side in pixels
DATA = {"published": (24, 224), "tiny": (2, 64)}
# variant of configs/motion.py, batch, steps, profiled steps
INPUT = {"published": ("published", 256, 30, "(20,24)"), "tiny": ("debug", 4, 6, "(4,5)")}
STEPS = 20
# Kind of a GPU kernel -> parts of its name, in the order in which they are looked for.
KERNELS = {
  "matrix products": ("nvjet", "gemm", "cutlass"),
  "fused attention": ("cudnn",),
  "copies": ("mem",),
  "pads, slices, conversions, broadcasts": (
    "loop_pad",
    "loop_slice",
    "loop_convert",
    "loop_broadcast",
  ),
  "other fused elementwise work and reductions": ("",),
}
# The names of one XLA option, in the order of their age: operations that give the same bits again.
DETERMINISTIC = ("--xla_gpu_exclude_nondeterministic_ops=true", "--xla_gpu_deterministic_ops=true")


def make_shards(size: str, out: pathlib.Path) -> pathlib.Path:
  """The data of the runs, made once: a folder of JPEG shards."""
  folder, (episodes, side) = out / "data", DATA[size]
  if not (folder / "manifest.json").exists():
    shutil.rmtree(folder, ignore_errors=True)
    ingest.run(
      Synthetic(episodes, side),
      str(folder),
      ingest_settings.StorageOptions(image_size=side),
      workers=min(8, len(os.sched_getaffinity(0))) if episodes > 2 else 0,
      progress=False,
    )
  return folder


def input(size: str, out: pathlib.Path) -> list[str]:
  """The part of the page: a run of the program, its rate, data wait and trace."""
  variant, batch, steps, profiled = INPUT[size]
  workdir, config = out / "input", f"configs/motion.py:{variant}"
  shutil.rmtree(workdir, ignore_errors=True)
  changes = _changes(make_shards(size, out), steps) | {
    "train.batch_size": batch,
    "train.profile_steps": profiled,
    "data.workers": 8 if size == "published" else 0,
  }
  begin = time.monotonic()
  _wait(_start(workdir, config, changes, {}))
  seconds = time.monotonic() - begin
  speed = json.loads((workdir / "speed.json").read_text())
  rows = [(name, f"{value:.5g}") for name, value in speed.items()]
  rows += [("seconds with start and compilation", f"{seconds:.1f}")]
  profile = workdir / "tensorboard" / "plugins" / "profile"
  traces = sorted(path for path in profile.rglob("*") if path.is_file())
  for path in traces:
    if path.stat().st_size < 12e6:
      shutil.copy(path, out / f"trace-{path.name}")
  rows += [(f"trace {path.name}", f"{path.stat().st_size / 1e6:.2f} MB") for path in traces]
  said = pathlib.Path(f"{workdir}.log").read_text().splitlines()
  devices = next(line for line in said if line.startswith("devices:"))
  last = next(line for line in reversed(said) if line.startswith(f"step {steps}/"))
  return [
    f"{config}, batch {batch}, {steps} steps; {devices}; {last}",
    common.table(("of the run", "value"), rows),
    *(kernels(path) for path in traces if path.name.endswith(".trace.json.gz")),
  ]


def kernels(trace: pathlib.Path) -> str:
  """A table of what the device did in a trace, by kind of kernel; "" without device events.

  Args:
    trace: NAME.trace.json.gz of jax's profiler.
  """
  with gzip.open(trace) as file:
    events = json.load(file)["traceEvents"]
  streams = {
    (event["pid"], event["tid"])
    for event in events
    if event.get("ph") == "M"
    and event["name"] == "thread_name"
    and "Compute" in event["args"]["name"]
  }
  kinds, begin, end = collections.Counter(), math.inf, -math.inf
  for event in events:
    if event.get("ph") == "X" and (event["pid"], event["tid"]) in streams:
      name = event["name"]
      kind = next(kind for kind, words in KERNELS.items() if any(word in name for word in words))
      kinds[kind] += event["dur"] / 1e3
      begin, end = min(begin, event["ts"]), max(end, event["ts"] + event["dur"])
  if not kinds:
    return ""
  span = (end - begin) / 1e3
  rows = [(kind, f"{ms:.1f}", f"{ms / span:.1%}") for kind, ms in kinds.most_common()]
  rows.append(("nothing", f"{span - kinds.total():.1f}", f"{1 - kinds.total() / span:.1%}"))
  return common.table(("of the traced steps, the device did", "ms", "share"), rows)


def repeat(size: str, out: pathlib.Path) -> list[str]:
  """The part of the page: are the same steps the same bits?"""
  data = make_shards(size, out)
  flags = {"as shipped": ""}
  if _on_gpu():
    flags["deterministic operations"] = next(flag for flag in DETERMINISTIC if _accepted(flag))
  config = "configs/motion.py:small" if size == "published" else "configs/motion.py:debug"
  changes = _changes(data, STEPS) | {
    "train.batch_size": 32 if size == "published" else 4,
    "train.checkpoint_every": STEPS // 2,
    "model.dtype": "bfloat16" if size == "published" else "float32",
  }
  folders = {
    (name, run): out / f"repeat-{name.split()[0]}-{run}" for name in flags for run in "abc"
  }
  for folder in folders.values():
    shutil.rmtree(folder, ignore_errors=True)

  def start(name: str, run: str, *words: str) -> subprocess.Popen:
    environment = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags[name]}".strip()}
    return _start(folders[name, run], config, changes, environment, *words)

  for process in [start(name, run) for name in flags for run in "ab"]:
    _wait(process)
  for name in flags:  # what a run leaves that was killed after its first checkpoint
    shutil.copytree(folders[name, "a"], folders[name, "c"])
    shutil.rmtree(folders[name, "c"] / "checkpoints" / str(STEPS))
    shutil.rmtree(folders[name, "c"] / "weights")
  for process in [start(name, "c", "--resume") for name in flags]:
    _wait(process)
  rows = [
    (name, what, *_compare(folders[name, "a"], folders[name, run]))
    for name in flags
    for run, what in (("b", "the same again"), ("c", f"resumed at step {STEPS // 2}"))
  ]
  columns = ("operations", "run", "steps with an equal loss", "largest difference of a loss")
  return [
    f"{config}, {changes['model.dtype']}, {STEPS} steps of one seed, beside the first run. "
    f"Deterministic operations: {flags.get('deterministic operations', 'no such on this device')}.",
    common.table((*columns, "weights"), rows),
  ]


def _changes(data: pathlib.Path, steps: int) -> dict[str, Any]:
  """Changes of the config that all runs have."""
  return {
    "data.path": data,
    "encoder_weights": "",
    "train.steps": steps,
    "train.log_every": 1,
    "evaluation.windows": 16,
  }


def _start(
  workdir: pathlib.Path,
  config: str,
  changes: Mapping[str, Any],
  environment: Mapping[str, str],
  *words: str,
) -> subprocess.Popen:
  """A run of the program, its output in WORKDIR.log."""
  command = [sys.executable, "-m", "como_jax.main", f"--config={config}", f"--workdir={workdir}"]
  command += [f"--config.{key}={value}" for key, value in changes.items()]
  command += [f"--expect={'gpu:1' if _on_gpu() else 'cpu'}", *words]
  with open(f"{workdir}.log", "a") as log:
    return subprocess.Popen(
      command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=os.environ | environment
    )


def _wait(process: subprocess.Popen) -> None:
  """Raises SystemExit with the end of the output when the run failed."""
  if process.wait():
    workdir = next(word for word in process.args if word.startswith("--workdir="))
    text = pathlib.Path(workdir.partition("=")[2] + ".log").read_text()
    raise SystemExit(f"{' '.join(map(str, process.args))}\n{text[-3000:]}")


def _compare(first: pathlib.Path, other: pathlib.Path) -> tuple[str, str, str]:
  """(steps with an equal loss, largest difference, whether the weights are the same bytes)."""
  one, two = (_losses(folder) for folder in (first, other))
  differences = [abs(one[step] - two[step]) for step in range(1, STEPS + 1)]
  equal = sum(not difference for difference in differences)
  digests = {
    hashlib.sha256((folder / "weights" / "params.safetensors").read_bytes()).hexdigest()
    for folder in (first, other)
  }
  return (
    f"{equal} of {STEPS}",
    f"{max(differences):.2g}",
    "equal" if len(digests) == 1 else "different",
  )


def _losses(workdir: pathlib.Path) -> dict[int, float]:
  """Loss by step; of steps that a resumed run took again, the later."""
  lines = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
  return {line["step"]: line["loss"] for line in lines if "loss" in line}


def _on_gpu() -> bool:
  return _devices() == "gpu"


@functools.cache
def _devices() -> str:
  """The backend that a run finds; asked in a process, so that this one holds no device memory."""
  code = "import jax; print(jax.default_backend())"
  return subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  ).stdout.strip()


def _accepted(flag: str) -> bool:
  """Whether this XLA knows a flag; it ends a process that gives an unknown one."""
  code = "import jax; jax.numpy.ones(2).sum().block_until_ready()"
  environment = os.environ | {"XLA_FLAGS": flag}
  return not subprocess.run([sys.executable, "-c", code], env=environment).returncode
