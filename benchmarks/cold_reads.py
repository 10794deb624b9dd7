"""What reading costs when nothing is cached: bytes, start, memory and rate, at a million clips.

  python benchmarks/cold_reads.py --folder FOLDER [--before CHECKOUT] [--codec jpeg] [--out]

The table and the index are complete, for a million clips; the shards are one real shard under many
names (`cold_reads_data`), and everything that is kept is kept by name. "asked" are the ranges that
are read, with the rows of the mapped index that are looked at; "used" are the encoded frames that
are decoded (of H.264 their whole groups) and the rows of numbers that a sample needs. "index pages"
are what a disk reads of the mapped index for that, 4 KiB each. Rates are frames a CPU second of one
thread, next to raw decoding of the same frames from memory: the pages of the files are in the
machine's memory, so waiting for a disk is no part of them.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from benchmarks import cold_reads_data, common

ROOT = pathlib.Path(__file__).parent.parent
KINDS = ("training", "validation", "policy", "labeling")
COLUMNS = (
  "row",
  "start: s",
  "start: CPU s",
  "start: MB asked",
  "sample: asked / used",
  "sample: kB asked",
  "sample: index pages, kB",
  "reads a sample",
  "worker: own MiB",
  "worker: of files MiB",
  "frames a CPU s",
  "of raw decoding",
)


def measure(code: str, folder: str, kind: str, *, samples: int, kept: bool = False) -> dict:
  """Runs the two steps of a row in processes of their own.

  Args:
    code: checkout whose code is measured.
    folder: of the shards.
    kind: of `KINDS`.
    samples: number of samples of the worker.
    kept: whether a policy uses the statistics that ingest kept.
  """
  results: dict[str, Any] = {}
  state = os.path.join(folder, "state.pickle")
  for step in ("start", "work"):
    command = [sys.executable, str(ROOT / "benchmarks/cold_reads_rows.py"), folder, kind]
    command += [state, step, f"--samples={samples}", *(["--kept"] if kept else [])]
    environment = os.environ | {"PYTHONPATH": os.path.abspath(code)}
    done = subprocess.run(
      command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment
    )
    results[step] = json.loads(done.stdout.splitlines()[-1])
  os.remove(state)
  return results


def row(name: str, result: dict) -> tuple[str, ...]:
  """The cells of a row."""
  start, work = result["start"], result["work"]
  return (
    name,
    f"{start['wall']:.1f}",
    f"{start['cpu']:.1f}",
    f"{start['asked'] / 1e6:.1f}",
    f"{work['asked'] / work['used']:.3f}",
    f"{work['asked'] / work['samples'] / 1e3:.1f}",
    f"{work['pages'] / work['samples'] / 1e3:.1f}",
    f"{work['requests'] / work['samples']:.2f}",
    f"{work['own_mib']:.0f}",
    f"{work['shared_mib']:.0f}",
    f"{work['ours']:.0f}",
    f"{work['ours'] / work['raw']:.2f}",
  )


def _is_file(path: str) -> bool:
  return bool(path) and os.path.isfile(path)


def main() -> None:
  """Measures the rows and prints the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--folder", required=True, help="made where it is missing, and kept")
  parser.add_argument("--codec", default="jpeg", choices=("jpeg", "h264"))
  parser.add_argument("--clips", type=int, default=1_000_000)
  parser.add_argument("--samples", type=int, default=512)
  parser.add_argument("--kinds", nargs="*", default=list(KINDS))
  parser.add_argument("--rows", default="", help="JSON file of rows, which later commands add to")
  parser.add_argument("--before", default="", help="checkout of an older version to compare with")
  common.add_options(parser, rounds=None)
  options = parser.parse_args()
  if not os.path.isdir(options.folder):
    cold_reads_data.make(
      options.folder, options.codec, clips=options.clips, per_shard=528, real=24, index=True
    )
  rows = json.loads(pathlib.Path(options.rows).read_text()) if _is_file(options.rows) else []
  for kind in options.kinds:
    for version, code in (("before", options.before), ("now", str(ROOT))):
      for kept in (False, True) if kind == "policy" and version == "now" else (False,):
        if not code:
          continue
        name = f"{options.codec}, {kind}{', kept statistics' if kept else ''}, {version}"
        result = measure(code, options.folder, kind, samples=options.samples, kept=kept)
        rows = [each for each in rows if each[0] != name] + [row(name, result)]
        print(*rows[-1], flush=True)
        if options.rows:
          pathlib.Path(options.rows).write_text(json.dumps(rows))
  title = "Cold reads of a million clips"
  common.finish("cold-reads", title, [common.table(COLUMNS, rows)], options)


if __name__ == "__main__":
  main()
