r"""Training time after which z beats components of the untrained feature difference in the exam.

python benchmarks/time_to_beat.py --workdir DIR [--steps 100 350] [--seeds 5] [--only RECIPE \
    ...] [--out FILE.md]
Each point is a separate run, because the learning rate decays over the length of a run. The first
point of a recipe is its start, the exam's row "untrained". Finished runs are kept, so the program
can be stopped and run again. It writes DIR/time_to_beat.md and a plot, DIR/time_to_beat.png.
Seconds are wall-clock and CPU seconds. On a machine with other work, use the CPU seconds.
"""

import argparse
import json
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from scipy import stats

ROOT = pathlib.Path(__file__).parent.parent
RECIPES = {
  "small": "configs/motion.py:small",
  "small, path=none (CoMo's)": "configs/motion.py:small,path=none",
  "small, path=features": "configs/motion.py:small,path=features",
}
CLASSES = ("scene", "camera", "objects", "palette")


def main() -> None:
  """Trains and examines all points; writes the table and the plot."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--steps", type=int, nargs="+", default=[100, 350])
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
  parser.add_argument("--data", default="bundled")
  parser.add_argument("--out", type=pathlib.Path)
  options = parser.parse_args()
  found: dict[tuple[str, int], list[dict]] = {}
  # seed by seed, so that an interrupted program has a complete table of fewer seeds
  for seed in range(options.seeds):
    for name in options.only:
      for steps in options.steps:
        start, trained = _run(options, name, steps, seed)
        if steps == options.steps[0]:
          found.setdefault((name, 0), []).append(start)
        found.setdefault((name, steps), []).append(trained)
    text = table(found)
    (options.workdir / "time_to_beat.md").write_text(text)
    draw(found, options.workdir / "time_to_beat.png")
  if options.out:
    options.out.write_text(text)
  print(text)


def _run(options: argparse.Namespace, name: str, steps: int, seed: int) -> tuple[dict, dict]:
  """Trains and examines one model, unless its files exist.

  Returns:
    The exam's rows of the start and of the trained model. They also have the wall-clock and CPU
    seconds of the training, from the start of the program to its weights.
  """
  folder = (
    options.workdir.absolute()
    / f"{''.join(c if c.isalnum() else '-' for c in name)}-{steps}-{seed}"
  )
  clock, product = folder / "seconds.json", folder / "exam" / "exam.json"
  if not clock.exists():
    shutil.rmtree(folder, ignore_errors=True)  # it may have an exam of other weights
    begin, used = time.monotonic(), _processor()
    _main(
      RECIPES[name],
      folder / "motion",
      f"--config.data.path={options.data}",
      f"--config.train.steps={steps}",
      f"--config.seed={seed}",
      f"--config.train.log_every={max(1, min(10, steps))}",
      "--config.train.evaluate_every=0",
      "--overwrite",
    )
    clock.write_text(
      json.dumps(
        {"seconds_of_training": time.monotonic() - begin, "processor": _processor() - used}
      )
    )
  if not product.exists():
    _main(
      "configs/probe.py:exam",
      folder / "exam",
      f"--config.checkpoint={folder / 'motion'}",
      f"--config.data.path={options.data}",
      f"--config.seed={seed}",
      "--overwrite",
    )
  rows = json.loads(product.read_text())["rows"]
  if "untrained" not in rows:
    sys.exit(f"error: {product} has no row 'untrained': {folder} is of another version, remove it")
  beside = {
    "components": rows["components of the difference"]["e_z"],
    "flow": rows["components of the optical flow"]["e_z"],
  }
  start = rows["untrained"] | {"seconds_of_training": 0.0, "processor": 0.0}
  return start | beside, rows["trained"] | beside | json.loads(clock.read_text())


def _processor() -> float:
  """CPU seconds of all finished child processes, over all cores."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def table(found: dict[tuple[str, int], list[dict]]) -> str:
  """Formats a line per recipe and length: means over seeds, and differences.

  The differences, with Student's 95 % intervals, are to the components and to the recipe's start.
  """
  lines = [
    "| recipe | steps | seeds | seconds | of the processor | S | appearance read best | error of "
    "the move | minus components of the difference | minus a start of its kind | each seed's "
    "interval over moves |",
    "| --- |" + " --- |" * 10,
  ]
  for (name, steps), rows in found.items():
    mean = {
      key: statistics.fmean(row[key] for row in rows)
      for key in ("seconds_of_training", "processor", "e_z")
    }
    scores = [row["s"] for row in rows if row["s"] is not None]
    seeds = "; ".join(
      f"[{row['minus_components_low']:+.3f}, {row['minus_components_high']:+.3f}]" for row in rows
    )
    cells = [
      name,
      steps,
      len(rows),
      f"{mean['seconds_of_training']:.0f}",
      f"{mean['processor']:.0f}",
      f"{statistics.fmean(scores):.2f}" if scores else "withheld",
      f"{statistics.fmean(map(_appearance, rows)):.2f}",
      f"{mean['e_z']:.3f}",
      over_seeds([row["minus_components"] for row in rows]),
      over_seeds([row["minus_untrained"] for row in rows]) if steps else "",
      seeds,
    ]
    lines.append(f"| {' | '.join(map(str, cells))} |")
  reference = next(iter(found.values()))[0]
  lines.append(
    f"\nWithout training: components of the difference {reference['components']:.3f}, of the "
    f"optical flow {reference['flow']:.3f}. Seconds are those of the whole training program, with "
    "its start and compilation."
  )
  return "\n".join(lines) + "\n"


def over_seeds(values: list[float]) -> str:
  """Formats the mean and Student's 95 % interval."""
  mean, wide = (
    statistics.fmean(values),
    float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    if len(values) > 1
    else float("nan"),
  )
  return (
    f"{mean:+.3f} [{mean - wide:+.3f}, {mean + wide:+.3f}]" if len(values) > 1 else f"{mean:+.3f}"
  )


def _appearance(row: dict) -> float:
  """Excess of the class that is read best."""
  return max(row[f"excess/{name}"] for name in CLASSES)


def draw(found: dict[tuple[str, int], list[dict]], path: pathlib.Path) -> None:
  """Plots the error of the move and the appearance over the CPU seconds of training.

  Other work on the machine does not change the CPU seconds.
  """
  figure, axes = pyplot.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
  for name in dict.fromkeys(name for name, _ in found):
    points = [rows for (recipe, _), rows in found.items() if recipe == name]
    seconds = [statistics.fmean(row["processor"] for row in rows) for rows in points]
    values = (
      [statistics.fmean(row["e_z"] for row in rows) for rows in points],
      [statistics.fmean(map(_appearance, rows)) for rows in points],
    )
    for axis, line in zip(axes, values, strict=True):
      axis.plot(seconds, line, marker="o", label=name)
  reference = next(iter(found.values()))[0]
  for value, label, style in (
    (reference["components"], "components of the difference", "--"),
    (reference["flow"], "components of the flow", ":"),
  ):
    axes[0].axhline(value, linestyle=style, color="black", linewidth=0.9, label=label)
  axes[0].set(xlabel="seconds of the processor", ylabel="error of the move (1 = nothing known)")
  axes[1].set(xlabel="seconds of the processor", ylabel="appearance read best (0 = chance)")
  axes[0].legend(fontsize=8)
  figure.savefig(path, dpi=120)


def _main(config: str, workdir: pathlib.Path, *args: str) -> None:
  """Runs como_jax.main."""
  subprocess.run(
    [sys.executable, "-m", "como_jax.main", f"--config={config}", f"--workdir={workdir}", *args],
    check=True,
    cwd=ROOT,
  )


if __name__ == "__main__":
  main()
