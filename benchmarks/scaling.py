"""Do the figures of a chip stay what they are as a run grows?

Plans for 1 to 256 chips and several slices, at one batch a chip.

python benchmarks/scaling.py [--workdir runs/plans] [--only TEXT] [--out]
    (about a minute a program on one core; needs libtpu, no TPU)
Every plan is a run of configs/compile.py, whose command stands beside its table; finished ones are
kept in the workdir, so it can be
stopped and run again. Everything is computed by the TPU compiler and counted in its programs:
nothing runs, no time but the compiler's
is measured.
Writes benchmarks/results/<date>-compile-plans.md: tables of what must stay flat first, then every
plan.
"""

import argparse
import dataclasses
import json
import pathlib
import shlex
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import common

from como_jax.parallel import topology
from como_jax.tasks import plan_page

ROOT = pathlib.Path(__file__).parent.parent

# the state over 8 chips of a slice; these groups and the slices share only gradients
SHARDED = "train.mesh.data=-1 train.mesh.fsdp=8"
WIDE = (
  "model.trunk.width=1536 model.trunk.mlp=6144 model.dit.width=1536 model.dit.mlp=6144 "
  "model.dit.depth=16"
)
FLAT = 0.05  # the most that a figure of a chip may grow


@dataclasses.dataclass(frozen=True)
class Plan:
  """One call of configs/compile.py."""

  topology: str
  of: str
  changes: str = ""
  programs: tuple[str, ...] = ("train",)
  batch: int = 16
  more: tuple[str, ...] = ()

  @property
  def folder(self) -> str:
    kept = "".join(
      one if one.isalnum() else "-"
      for one in f"{self.topology} {self.of.removeprefix('configs/')} {self.changes} "
      f"{' '.join(self.programs)} {self.batch} {' '.join(self.more)}"
    )
    return kept.strip("-").replace("model-", "").replace("train-mesh-", "")[:120]

  def words(self, workdir: pathlib.Path) -> list[str]:
    return [
      "--config=configs/compile.py",
      f"--config.topology={self.topology}",
      f"--config.of={self.of}",
      *([f"--config.changes={self.changes}"] if self.changes else []),
      f"--config.programs={self.programs!r}",
      f"--config.batch_per_device={self.batch}",
      *self.more,
      f"--workdir={workdir / self.folder}",
    ]


MOTION, POLICY = "configs/motion.py", "configs/policy.py"
# what must stay flat: name -> plans, the first of 16 chips is what the others are compared with
SERIES = {
  "published motion model, 16 clips a chip": [
    Plan("v5e-1", MOTION),
    *(
      Plan(name, MOTION, SHARDED)
      for name in ("v5e-16", "v5e-64", "v5e-256", "v5e-64x2", "v5e-64x4")
    ),
  ],
  "policy of the 1B class, 16 examples a chip": [
    Plan(name, POLICY, f"{SHARDED} {WIDE}")
    for name in ("v5e-16", "v5e-64", "v5e-256", "v5e-64x2", "v5e-64x4")
  ],
}
NOTES = {
  "policy of the 1B class, 16 examples a chip": (
    "The exchange of gradients between n groups of 8 chips is a ring, which sends 2 (n - 1) / n "
    "of a chip's part: that is the growth of what is sent. With several slices XLA makes a "
    "reduce-scatter and an all-gather of it, with the step between slices in the middle: the "
    "same bytes are sent, and two arrays are counted for one."
  )
}
SINGLE = [  # other machines and programs
  Plan("v5e-16", MOTION, programs=("train", "extract")),
  Plan("v5e-256", MOTION, programs=("train", "extract")),
  Plan("v6e-256", MOTION, programs=("train", "extract")),
  Plan("v5p-128x2", MOTION, SHARDED, ("train", "extract")),
  Plan("v5e-16", POLICY, programs=("train", "policy")),
  Plan("v5e-256", POLICY),
  Plan("v6e-256", POLICY, programs=("train", "policy")),
  Plan("v5p-128x2", POLICY, SHARDED, ("train", "policy")),
  Plan("v5p-512", POLICY, f"{SHARDED} {WIDE}"),
  Plan("v5p-512", MOTION, SHARDED),
  Plan("v5e-16", MOTION, SHARDED, more=("--config.largest=true",)),
]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/plans"))
  parser.add_argument(
    "--only",
    default="",
    help="plans whose folder's name has this in it; the page needs all of them",
  )
  parser.add_argument(
    "--out", action="store_true", help="also write the page into benchmarks/results"
  )
  options = parser.parse_args()
  results = {}
  for plan in dict.fromkeys([*(one for plans in SERIES.values() for one in plans), *SINGLE]):
    if options.only in plan.folder:
      results[plan] = made(plan, options.workdir)
  if options.only:
    return
  parts = [ABOUT]
  for name, plans in SERIES.items():
    parts += [f"## Flat? {name}", series(plans, results), *([NOTES[name]] if name in NOTES else [])]
  parts += ["## Every plan", "Sizes are a device's; the plan's own page has more."]
  parts += [plan_page.short(result) for result in results.values() if result]
  versions = next(result["versions"] for result in results.values() if result)
  where = (
    f"{common.today()}, jax {versions['jax']}, libtpu as in requirements-tpu.txt; compiled on a "
    "CPU, no TPU was used."
  )
  common.finish("compile-plans", "What runs on TPU slices would need", parts, options, where=where)


ABOUT = (
  "Computed, not run: the TPU compiler (effort -1) compiled each program for a machine that is "
  "not there. FLOPs are counted in the trace, bytes and collectives in the compiled program. "
  '"Sent" is what a device sends at the least, by rings inside a slice (ICI) and across slices '
  '(DCN); "gradients alone" is the part of it over DCN that the exchange of gradients between '
  "the slices needs."
)


def made(plan: Plan, workdir: pathlib.Path) -> dict | None:
  """The plan's result, compiled unless it is there; None when it cannot be made."""
  path = ROOT / workdir / plan.folder / "plan.json"
  words = plan.words(workdir)
  command = "python -m como_jax.main " + shlex.join(words)
  if path.exists() and (result := json.loads(path.read_text()))["command"] == command:
    return result
  print(f"== {command}", flush=True)
  run = subprocess.run(
    [
      sys.executable,
      "-m",
      "como_jax.main",
      *words,
      *(["--overwrite"] if path.parent.exists() else []),
    ],
    cwd=ROOT,
  )
  if run.returncode:
    print(f"== failed with {run.returncode}", flush=True)
    return None
  result = json.loads(path.read_text()) | {"command": command}
  path.write_text(json.dumps(result, indent=2))
  return result


COLUMNS = {  # of a chip: name -> (figure of a program's plan, format)
  "TFLOP": (lambda one: one["flops"] / one["devices"] / 1e12, ".3f"),
  "HBM GiB": (lambda one: one["memory"]["needed"], ".2f"),
  "arguments GiB": (lambda one: one["memory"].get("arguments"), ".2f"),
  "temporaries GiB": (lambda one: one["memory"].get("temporaries"), ".2f"),
  "collectives' arrays MiB": (
    lambda one: sum(row["bytes"] for row in one["collectives"]) / 2**20,
    ".0f",
  ),
  "sent over ICI MiB": (lambda one: sum(row["ici"] for row in one["collectives"]) / 2**20, ".0f"),
  "sent over DCN MiB": (lambda one: sum(row["dcn"] for row in one["collectives"]) / 2**20, ".1f"),
  "gradients alone": (lambda one: gradients(one) / 2**20, ".1f"),
}
WATCHED = ("TFLOP", "HBM GiB", "collectives' arrays MiB", "sent over ICI MiB")


def gradients(one: dict) -> float:
  """Bytes that a device sends to other slices at the least: of its part of the gradients, reduced
  in bfloat16 as they are computed.
  """
  machine = topology.parse(one["topology"])
  return 2 * (machine.slices - 1) / machine.slices * 2 * one["trainable"] / machine.slice_devices


def series(plans: list[Plan], results: dict) -> str:
  """A row a topology, and the most that each figure is above that of 16 chips, and of 64."""
  rows, found = [], []
  for plan in plans:
    result = results.get(plan)
    one = result and next((one for one in result["programs"] if one["program"] == "train"), None)
    if not one or one["memory"]["refused"]:
      rows.append(
        [
          plan.topology,
          "",
          "",
          plan_page.verdict(one) if one else "could not be compiled",
          *[""] * (len(COLUMNS) - 1),
        ]
      )
      continue
    values = {name: figure(one) for name, (figure, _) in COLUMNS.items()}
    found.append((one, values))
    mesh = " x ".join(str(size) for size in one["mesh"].values())
    rows.append(
      [
        plan.topology,
        one["devices"],
        mesh,
        *(format(values[name], form) for name, (_, form) in COLUMNS.items()),
      ]
    )
  lines = [
    f"{found[-1][0]['parameters']:,} parameters, {found[-1][0]['trainable']:,} trained."
    if found
    else "",
    "",
    common.table(("topology", "chips", "data x fsdp x tensor", *COLUMNS), rows),
    "",
  ]
  for least in (16, 64):
    larger = [values for one, values in found if one["devices"] >= least]
    worst = {
      name: max(values[name] / larger[0][name] - 1 for values in larger)
      for name in WATCHED
      if larger and larger[0][name]
    }
    changes = ", ".join(f"{name} {share:.1%}" for name, share in worst.items())
    lines.append(
      f"* The most a figure of a chip grows from {least} chips on: {changes}. Within {FLAT:.0%}: "
      f"{'yes' if worst and max(worst.values()) <= FLAT else 'no'}."
    )
  return "\n".join(lines)


if __name__ == "__main__":
  main()
