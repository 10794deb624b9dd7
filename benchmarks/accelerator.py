r"""Is como_jax correct, fast and repeatable on this accelerator? One command.

benchmarks/accelerator.sh [--only=NAME,...] [--size=published|tiny] [--out=DIR] [--seconds=N]
    published: for a data-center GPU. tiny: the same code on two CPU cores, as a rehearsal.

Sections, in order of their value; each runs in its own process and saves its rows as it ends, so
that a failure or an end of the machine costs only that section:
    device       the rates that the others are compared with: matrix products and memory
    correctness  losses and gradients against the CPU; fused attention; bfloat16
    train        a motion step of published size, K = 2 and K = 8, beside a torch twin
    policy       latency of a chunk of actions, DiT and GPT
    repeat       the same 20 steps twice, and resumed, with and without deterministic operations
    input        a real run: rate, data wait, and a trace of some of its steps
    labeling     labels of frames, beside the bare encoder
    attention    the fused kernel beside XLA, at the sizes of the models

Most of the time is compilation: --seconds ends the last sections, --only takes some, and a second
try in the same DIR compiles nothing twice. The page is DIR/accelerator.md. A section that fails
says so there, with the end of its output.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

FOLDER = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Section:
  """A section: the function `name` of a module in this folder, and its limit in seconds."""

  module: str
  seconds: int


SECTIONS = {
  "device": Section("accelerator_speed", 60),
  "correctness": Section("accelerator_correctness", 150),
  "train": Section("accelerator_speed", 240),
  "policy": Section("accelerator_speed", 120),
  "repeat": Section("accelerator_runs", 150),
  "input": Section("accelerator_runs", 150),
  "labeling": Section("accelerator_speed", 120),
  "attention": Section("accelerator_speed", 60),
}
# Most of the minutes are XLA's: it tries kernels for every product. What is not timed does without.
UNTUNED = {"correctness", "repeat"}


def main() -> None:
  """Runs the sections, each in a process, and writes the page after each."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--only", default=",".join(SECTIONS), help="names of sections")
  parser.add_argument("--size", default="published", choices=("published", "tiny"))
  parser.add_argument("--out", default="accelerator-results", help="folder of the page")
  parser.add_argument("--seconds", type=int, default=360, help="limit of all sections together")
  parser.add_argument("--run", default="", choices=("", *SECTIONS), help=argparse.SUPPRESS)
  options = parser.parse_args()
  out = pathlib.Path(options.out).absolute()
  out.mkdir(parents=True, exist_ok=True)
  if options.run:
    run(options.run, options.size, out)
    return
  names = options.only.split(",")
  for name in names:
    if name not in SECTIONS:
      parser.error(f"--only: no section {name!r}; valid: {', '.join(SECTIONS)}")
  begin = time.monotonic()
  failed = [name for name in names if not _measure(name, options, out, begin)]
  print(f"written: {out / 'accelerator.md'}", flush=True)
  if failed:
    raise SystemExit(f"failed: {', '.join(failed)}")


def run(name: str, size: str, out: pathlib.Path) -> None:
  """Runs one section in this process and writes its part of the page."""
  from como_jax import main as entry

  entry.keep_memory()  # before a thread starts, as in our runs
  module = __import__(SECTIONS[name].module)
  parts = getattr(module, name)(size, out)
  (out / f"{name}.md").write_text("\n\n".join(parts) + "\n")


def _measure(name: str, options: argparse.Namespace, out: pathlib.Path, begin: float) -> bool:
  """Runs a section as a process; returns whether it ended well. The page is written anew."""
  left = options.seconds - (time.monotonic() - begin)
  limit = min(SECTIONS[name].seconds, left) if options.size == "published" else left
  part, started = out / f"{name}.md", time.monotonic()
  part.unlink(missing_ok=True)
  command = [sys.executable, str(FOLDER / "accelerator.py"), f"--run={name}"]
  command += [f"--size={options.size}", f"--out={out}"]
  flags = os.environ.get("XLA_FLAGS", "")
  environment = os.environ | {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_COMPILATION_CACHE_DIR": str(out / "compiled"),  # of all sections, and of a second try
    "XLA_FLAGS": f"{flags} --xla_gpu_autotune_level=0" if name in UNTUNED else flags,
  }
  message = ""
  try:
    with open(out / f"{name}.log", "w") as log:
      code = subprocess.run(
        command, stdout=log, stderr=subprocess.STDOUT, timeout=max(1, limit), env=environment
      ).returncode
    if code or not part.exists():
      message = f"it ended with code {code}"
  except subprocess.TimeoutExpired:
    message = f"it was not done after {limit:.0f} s"
  seconds = time.monotonic() - started
  if message:
    tail = (out / f"{name}.log").read_text(errors="replace").splitlines()[-12:]
    rows = part.read_text() if part.exists() else ""
    part.write_text("\n\n".join([rows, f"**{message}**", "```\n" + "\n".join(tail) + "\n```"]))
  text = part.read_text()
  part.write_text(f"## {name} ({seconds:.0f} s)\n\n{text.strip()}\n")
  print(part.read_text(), flush=True)
  _write_page(options, out)
  return not message


def _write_page(options: argparse.Namespace, out: pathlib.Path) -> None:
  parts = [out / f"{name}.md" for name in SECTIONS]
  command = f"benchmarks/accelerator.sh --size={options.size} --only={options.only}"
  page = ["# On an accelerator", f"`{command}`", *(p.read_text() for p in parts if p.exists())]
  (out / "accelerator.md").write_text("\n\n".join(page))


if __name__ == "__main__":
  main()
