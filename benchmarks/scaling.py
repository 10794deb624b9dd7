"""Do the figures of a chip stay constant as a run grows?

Plans for 1 to 256 chips and several slices, with a constant batch per chip.

python benchmarks/scaling.py [--workdir runs/plans] [--only TEXT] [--out]
    (about a minute per program on one core; needs libtpu, no TPU)
Every plan is a run of configs/compile.py, whose command is printed beside its table. Finished plans
are kept in the workdir, so the program can be stopped and run again. All figures come from the TPU
compiler and its programs: nothing runs, and no time except the compiler's is measured.
Writes benchmarks/results/<date>-compile-plans.md: first tables of the figures that must stay
constant, then every plan.
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
from como_jax.report import plan_page

ROOT = pathlib.Path(__file__).parent.parent

# the state is sharded over groups of 8 chips of a slice; the groups exchange only gradients
SHARDED = "train.mesh.data=-1 train.mesh.fsdp=8"
WIDE = (
  "model.trunk.width=1536 model.trunk.mlp_dim=6144 model.dit.width=1536 "
  "model.dit.mlp_dim=6144 model.dit.depth=16"
)
FLAT = 0.05  # maximum relative growth of a figure of a chip


@dataclasses.dataclass(frozen=True)
class Plan:
  """One call of configs/compile.py.

  Attributes:
    topology: of the machine.
    of: config of the planned run.
    changes: to that config.
    programs: to compile.
    batch: per device.
    more: further arguments.
  """

  topology: str
  of: str
  changes: str = ""
  programs: tuple[str, ...] = ("train",)
  batch: int = 16
  more: tuple[str, ...] = ()

  @property
  def folder(self) -> str:
    """Name of the plan's folder."""
    name = "".join(
      character if character.isalnum() else "-"
      for character in f"{self.topology} {self.of.removeprefix('configs/')} {self.changes} "
      f"{' '.join(self.programs)} {self.batch} {' '.join(self.more)}"
    )
    return name.strip("-").replace("model-", "").replace("train-mesh-", "")[:120]

  def arguments(self, workdir: pathlib.Path) -> list[str]:
    """Arguments of como_jax.main."""
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
# figures that must stay constant: name -> plans; the others are compared with the plan of 16 chips
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
  """Compiles the plans and prints the page."""
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
  for plan in dict.fromkeys([*(plan for plans in SERIES.values() for plan in plans), *SINGLE]):
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
  """Returns the result of a plan, and compiles it if necessary; None when this fails."""
  path = ROOT / workdir / plan.folder / "plan.json"
  arguments = plan.arguments(workdir)
  command = "python -m como_jax.main " + shlex.join(arguments)
  if path.exists() and (result := json.loads(path.read_text()))["command"] == command:
    return result
  print(f"== {command}", flush=True)
  run = subprocess.run(
    [
      sys.executable,
      "-m",
      "como_jax.main",
      *arguments,
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


def _total(program: dict, key: str) -> float:
  """Sum over the collectives of a program, MiB."""
  return sum(row[key] for row in program["collectives"]) / 2**20


COLUMNS = {  # of a chip: name -> (figure of a program's plan, format)
  "TFLOP": (lambda program: program["flops"] / program["devices"] / 1e12, ".3f"),
  "HBM GiB": (lambda program: program["memory"]["needed"], ".2f"),
  "arguments GiB": (lambda program: program["memory"].get("arguments"), ".2f"),
  "temporaries GiB": (lambda program: program["memory"].get("temporaries"), ".2f"),
  "collectives' arrays MiB": (lambda program: _total(program, "bytes"), ".0f"),
  "sent over ICI MiB": (lambda program: _total(program, "ici"), ".0f"),
  "sent over DCN MiB": (lambda program: _total(program, "dcn"), ".1f"),
  "gradients alone": (lambda program: gradients(program) / 2**20, ".1f"),
}
WATCHED = ("TFLOP", "HBM GiB", "collectives' arrays MiB", "sent over ICI MiB")


def gradients(program: dict) -> float:
  """Minimum bytes of gradients that a device sends to other slices.

  The gradients are sharded over the slice, and reduced in bfloat16, in which they are computed.
  """
  machine = topology.parse(program["topology"])
  ring = 2 * (machine.slices - 1) / machine.slices
  return ring * 2 * program["trainable"] / machine.slice_devices


def series(plans: list[Plan], results: dict) -> str:
  """Formats a row per topology, and the growth of each figure from 16 and from 64 chips on."""
  rows, found = [], []
  for plan in plans:
    result = results.get(plan)
    program = result and next(
      (entry for entry in result["programs"] if entry["program"] == "train"), None
    )
    if not program or program["memory"]["refused"]:
      rows.append(
        [
          plan.topology,
          "",
          "",
          plan_page.verdict(program) if program else "could not be compiled",
          *[""] * (len(COLUMNS) - 1),
        ]
      )
      continue
    values = {name: figure(program) for name, (figure, _) in COLUMNS.items()}
    found.append((program, values))
    mesh = " x ".join(str(size) for size in program["mesh"].values())
    rows.append(
      [
        plan.topology,
        program["devices"],
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
  for minimum in (16, 64):
    larger = [values for program, values in found if program["devices"] >= minimum]
    worst = {
      name: max(values[name] / larger[0][name] - 1 for values in larger)
      for name in WATCHED
      if larger and larger[0][name]
    }
    changes = ", ".join(f"{name} {share:.1%}" for name, share in worst.items())
    lines.append(
      f"* The most a figure of a chip grows from {minimum} chips on: {changes}. Within {FLAT:.0%}: "
      f"{'yes' if worst and max(worst.values()) <= FLAT else 'no'}."
    )
  return "\n".join(lines)


if __name__ == "__main__":
  main()
