"""How soon does a trained z tell more of the move than components of the untrained feature difference? The exam, against seconds of training.

python benchmarks/time_to_beat.py --workdir DIR [--steps 1 100 350] [--seeds 5] [--only RECIPE ...] [--out FILE.md]
Each point is a run of its own, since the learning rate falls over a run's length; a run of 1 step is what a recipe starts from. Finished runs
are kept. Writes DIR/time_to_beat.md and a picture of the curve, DIR/time_to_beat.png.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402
from scipy import stats  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent
RECIPES = {"small": "configs/motion.py:small", "small, path=none (CoMo's)": "configs/motion.py:small,path=none",
           "small, path=features": "configs/motion.py:small,path=features"}
CLASSES = ("scene", "camera", "objects", "palette")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--steps", type=int, nargs="+", default=[1, 100, 350])
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
  parser.add_argument("--data", default="bundled")
  parser.add_argument("--out", type=pathlib.Path)
  options = parser.parse_args()
  found = {(name, steps): [_run(options, name, steps, seed) for seed in range(options.seeds)] for name in options.only for steps in options.steps}
  text = table(found)
  (options.workdir / "time_to_beat.md").write_text(text)
  if options.out:
    options.out.write_text(text)
  draw(found, options.workdir / "time_to_beat.png")
  print(text)


def _run(options: argparse.Namespace, name: str, steps: int, seed: int) -> dict:
  """Trains and examines, unless it is there already: the exam's row and "seconds" of training, from the program's start to its weights."""
  folder = options.workdir.absolute() / f"{''.join(c if c.isalnum() else '-' for c in name)}-{steps}-{seed}"
  clock, product = folder / "seconds", folder / "exam" / "exam.json"
  if not clock.exists():
    begin = time.monotonic()
    _main(RECIPES[name], folder / "motion", f"--config.data.path={options.data}", f"--config.train.steps={steps}", f"--config.seed={seed}",
          f"--config.train.log_every={max(1, min(10, steps))}", "--config.train.evaluate_every=0", "--overwrite")
    clock.write_text(str(time.monotonic() - begin))
  if not product.exists():
    _main("configs/probe.py:exam", folder / "exam", f"--config.checkpoint={folder / 'motion'}", "--overwrite")
  rows = json.loads(product.read_text())["rows"]
  return {**rows["trained"], "seconds_of_training": float(clock.read_text()), "components": rows["components of the difference"]["e_z"],
          "flow": rows["components of the optical flow"]["e_z"]}


def table(found: dict[tuple[str, int], list[dict]]) -> str:
  """A line a recipe and length: means over seeds, Student's 95 % interval of the difference to the components."""
  lines = ["| recipe | steps | seeds | seconds | S | appearance read best | error of the move | minus components of the difference | each seed's interval over moves |",
           "| --- |" + " --- |" * 8]
  for (name, steps), rows in found.items():
    gaps = [row["minus_components"] for row in rows]
    wide = float(stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps)) if len(gaps) > 1 else float("nan")
    most = [max(row[f"excess/{one}"] for one in CLASSES) for row in rows]
    scores = [row["s"] for row in rows if row["s"] is not None]
    seeds = "; ".join(f"[{row['minus_components_low']:+.3f}, {row['minus_components_high']:+.3f}]" for row in rows)
    mean = statistics.fmean(gaps)
    lines.append(f"| {name} | {steps} | {len(rows)} | {statistics.fmean(row['seconds_of_training'] for row in rows):.0f} | "
                 f"{statistics.fmean(scores) if scores else float('nan'):.2f} | {statistics.fmean(most):.2f} | {statistics.fmean(row['e_z'] for row in rows):.3f} | "
                 f"{mean:+.3f} [{mean - wide:+.3f}, {mean + wide:+.3f}] | {seeds} |")
  one = next(iter(found.values()))[0]
  lines.append(f"\nWithout training: components of the difference {one['components']:.3f}, of the optical flow {one['flow']:.3f}. Seconds are those of the whole "
               "training program, with its start and compilation.")
  return "\n".join(lines) + "\n"


def draw(found: dict[tuple[str, int], list[dict]], path: pathlib.Path) -> None:
  """Error of the move, and appearance, against seconds of training."""
  figure, axes = pyplot.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
  for name in dict.fromkeys(name for name, _ in found):
    points = [rows for (one, _), rows in found.items() if one == name]
    seconds = [statistics.fmean(row["seconds_of_training"] for row in rows) for rows in points]
    values = ([statistics.fmean(row["e_z"] for row in rows) for rows in points],
              [statistics.fmean(max(row[f"excess/{one}"] for one in CLASSES) for row in rows) for rows in points])
    for axis, line in zip(axes, values, strict=True):
      axis.plot(seconds, line, marker="o", label=name)
  one = next(iter(found.values()))[0]
  for value, label, style in ((one["components"], "components of the difference", "--"), (one["flow"], "components of the flow", ":")):
    axes[0].axhline(value, linestyle=style, color="black", linewidth=0.9, label=label)
  axes[0].set(xlabel="seconds of training", ylabel="error of the move (1 = nothing known)")
  axes[1].set(xlabel="seconds of training", ylabel="appearance read best (0 = chance)")
  axes[0].legend(fontsize=8)
  figure.savefig(path, dpi=120)


def _main(config: str, workdir: pathlib.Path, *words: str) -> None:
  subprocess.run([sys.executable, "-m", "como_jax.main", f"--config={config}", f"--workdir={workdir}", *words], check=True, cwd=ROOT)


if __name__ == "__main__":
  main()
