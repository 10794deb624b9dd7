"""Do the published directions show?

The program trains the small motion model with every input, bottleneck and width, takes the exam and
prints one table.

python benchmarks/variants.py --workdir DIR [--steps 100] [--seeds 5] [--hours 20] [--only NAME ...]
The number of steps, equal for all rows, is doubled until the best row's score in the exam changes
by less than half its 95 % interval over seeds, or until the hours are used up. The last change is
then printed. Finished runs are kept, so the program can be stopped and run again. It writes
DIR/variants.md and DIR/variants.json. A run of 100 steps takes about three minutes on 2 CPU cores;
the exam and the probe take two of them. All rows train without random shifts of the images, so that
the tokens of the frozen encoder can be cached.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np
from scipy import stats

from como_jax.evaluate import runs

ROOT = pathlib.Path(__file__).parent.parent

GATE = "--config.objectives.contrastive.gate=0.001"
# options of configs/motion.py:small, then further arguments
VARIANTS: dict[str, tuple[str, ...]] = {
  "future features (collapse)": ("path=none,inputs=future,tcl=off",),
  "VQ": ("path=none,inputs=none,bottleneck=vq,tcl=off",),
  "pre-VQ": ("path=none,inputs=none,bottleneck=pre_vq,tcl=off",),
  "KL": ("path=none,inputs=none,bottleneck=kl,tcl=off",),
  "none (w/o VQ)": ("path=none,inputs=none,tcl=off",),
  "RGB difference": ("path=none,inputs=rgb_diff,tcl=off",),
  "Td": ("path=none,inputs=feature_diff,tcl=off",),
  "Tcl": ("path=none,inputs=none,tcl=on",),
  "Td + Tcl": ("path=none,inputs=feature_diff,tcl=on",),
  "Td + Tcl, gated": ("path=none,inputs=feature_diff,tcl=on", GATE),
  "Td + Tcl, 128 numbers": (
    "path=none,inputs=feature_diff,tcl=on",
    "--config.model.bottleneck.latent_dim=32",
  ),
  "Td + Tcl, 512 numbers": (
    "path=none,inputs=feature_diff,tcl=on",
    "--config.model.bottleneck.latent_dim=128",
  ),
  "Td + Tcl, direct": ("path=none,inputs=feature_diff,tcl=on", "--config.model.fdm.output=direct"),
  "Td + Tcl, path of the difference": ("path=features,inputs=feature_diff,tcl=on",),
  "Td + Tcl, path of the flow": ("path=flow,inputs=feature_diff,tcl=on",),
}
COMMON = ("--config.data.augment.shift.on=False", "--config.train.evaluate_every=0")
CACHED = "--config.train.cache_tokens=True"  # not for RGB differences, which encode other images
# Published results (arXiv 2505.17006, v1 and v2): metrics in which the first of two rows is better
# (lower). e_z is the exam's.
PUBLISHED = (
  ("none (w/o VQ)", "future features (collapse)", ("lp_mse", "s_pcfc")),
  ("none (w/o VQ)", "VQ", ("lp_mse",)),
  ("VQ", "none (w/o VQ)", ("s_pcfc",)),
  ("Td", "none (w/o VQ)", ("lp_mse", "s_pcfc")),
  ("Tcl", "none (w/o VQ)", ("lp_mse", "s_pcfc")),
  ("Td + Tcl", "Td", ("lp_mse", "s_pcfc")),
  ("Td + Tcl", "Tcl", ("lp_mse", "s_pcfc")),
  ("VQ", "Td + Tcl", ("s_pcfc",)),
  ("Td", "pre-VQ", ("lp_mse",)),
  ("Td + Tcl", "Td + Tcl, 128 numbers", ("s_pcfc",)),  # published for Td alone
  ("Td + Tcl, 128 numbers", "Td + Tcl, 512 numbers", ("s_pcfc",)),
)
FURTHER = (
  ("Td", "RGB difference"),
  ("Td + Tcl", "Td + Tcl, direct"),
  ("Td + Tcl, gated", "Td + Tcl"),
  ("Td + Tcl, path of the difference", "Td + Tcl"),
  ("Td + Tcl, path of the flow", "Td + Tcl"),
)  # further comparisons, in the exam alone
EXAM = ("s", "e_z", "minus_components", "appearance")
COLUMNS = (
  *EXAM,
  "lp_mse",
  "lp_gain",
  "state_lp_mse",
  "state_lp_gain",
  "mlp_mse",
  "s_pcfc",
  "effective_rank",
  "copy_ratio_moving",
  "camera_excess",
)
GAINS = ("lp_gain", "state_lp_gain")
CLASSES = ("scene", "camera", "objects", "palette")


def main() -> None:
  """Runs all variants; writes the tables after each run."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument(
    "--steps", type=int, default=100, help="of the first round; doubled in each further one"
  )
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--hours", type=float, default=20.0, help="of computing, over all rounds")
  parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
  options = parser.parse_args()
  workdir, steps, rounds = options.workdir.absolute(), options.steps, []
  while True:
    rows: dict[str, list[dict]] = {name: [] for name in options.only}
    # seed by seed, so that an interrupted round is a complete table of fewer seeds
    for seed in range(options.seeds):
      for name in options.only:
        if spent(workdir) < options.hours * 3600:
          rows[name].append(_run(workdir, name, seed, steps))
          write(workdir, [*rounds, (steps, rows)])
    rounds.append((steps, rows))
    if spent(workdir) >= options.hours * 3600 or settled(rounds):
      break
    steps *= 2
  print((workdir / "variants.md").read_text())


def settled(rounds: list[tuple[int, dict[str, list[dict]]]]) -> bool:
  """Whether the last doubling changed the best row's score by less than half its interval.

  The interval is the 95 % interval over seeds.
  """
  if len(rounds) < 2:
    return False
  (_, before), (_, now) = rounds[-2:]
  best = max(now, key=lambda name: mean(now[name], "s"))
  return abs(mean(now[best], "s") - mean(before[best], "s")) < half_width(now[best], "s")


def write(workdir: pathlib.Path, rounds: list[tuple[int, dict[str, list[dict]]]]) -> None:
  """Writes the table of every round, and the change of the best row's score between rounds."""
  parts = []
  for i, (steps, rows) in enumerate(rounds):
    found = {name: [run["trained"] for run in runs_of] for name, runs_of in rows.items() if runs_of}
    parts.append(f"## {steps} steps\n\n" + table(found, rows))
    if i and all(rows.values()):
      best = max(found, key=lambda name: mean(rows[name], "s"))
      moved = mean(rows[best], "s") - mean(rounds[i - 1][1][best], "s")
      parts.append(
        f"S of the best row ({best}) moved by {moved:+.3f} from {rounds[i - 1][0]} steps; half "
        f"its interval over seeds is {half_width(rows[best], 's'):.3f}."
      )
    parts += [corrected(found), directions(rows)]
  parts.append(f"{spent(workdir) / 3600:.1f} hours of computing so far.")
  (workdir / "variants.md").write_text("\n\n".join(parts) + "\n")
  (workdir / "variants.json").write_text(json.dumps(rounds, indent=1))


def table(found: dict[str, list[dict]], rows: dict[str, list[dict]]) -> str:
  """Formats one line per variant, then the rows without training."""
  lines = [
    "| variant | seeds | " + " | ".join(COLUMNS) + " | pairs/s |",
    "| --- |" + " --- |" * (len(COLUMNS) + 2),
  ]
  for name, trained in found.items():
    lines.append(
      f"| {name} | {len(trained)} | "
      + " | ".join(_cell(trained, key) for key in COLUMNS)
      + f" | {statistics.mean(run['pairs_per_s'] for run in rows[name]):.0f} |"
    )
  first = next(iter(rows.values()))[0]
  for name, row in first["beside"].items():
    lines.append(f"| {name} | | " + " | ".join(_cell([row], key) for key in COLUMNS) + " | |")
  return "\n".join(lines)


def _run(workdir: pathlib.Path, name: str, seed: int, steps: int) -> dict:
  """Trains, probes and examines one variant, unless its files exist."""
  folder = workdir / f"{''.join(c if c.isalnum() else '-' for c in name)}-{steps}-{seed}"
  product, motion = folder / "exam" / "exam.json", folder / "motion"
  if not product.exists():
    begin, (option, *arguments) = time.monotonic(), VARIANTS[name]
    resume = ["--resume"] if (motion / "config.json").exists() else []
    cached = () if "rgb_diff" in option else (CACHED,)
    _main(
      f"configs/motion.py:small,{option}",
      motion,
      f"--config.train.steps={steps}",
      f"--config.seed={seed}",
      *COMMON,
      *cached,
      *arguments,
      *resume,
    )
    for task, task_arguments in (
      ("probe", ["--config.windows=600", "--config.fit_windows=1500"]),
      ("exam", [f"--config.seed={seed}"]),
    ):
      config = "configs/probe.py" + (":exam" if task == "exam" else "")
      if not (folder / task / "report.html").exists():
        _main(
          config,
          folder / task,
          f"--config.checkpoint={motion}",
          *task_arguments,
          *(["--overwrite"] if (folder / task).exists() else []),
        )
    clock = folder / "seconds"
    clock.write_text(
      str(time.monotonic() - begin + (float(clock.read_text()) if clock.exists() else 0))
    )
  probed, examined = (
    json.loads((folder / "probe" / "metrics.json").read_text())["rows"],
    json.loads(product.read_text())["rows"],
  )
  beside = {
    row: appearance(examined[row])
    for row in examined
    if examined[row]["kind"] in ("baseline", "control") and row != "untrained"
  }
  beside |= {
    f"probe's {row}": probed[row]
    for row in ("untrained", "difference", "first-only", "second-only", "both-pictures")
    if row in probed and row != "untrained"
  }
  return {
    "trained": {**probed["trained"], **appearance(examined["trained"])},
    "beside": beside,
    "pairs_per_s": json.loads((motion / "speed.json").read_text())["pairs_per_s"],
  }


def appearance(row: dict) -> dict:
  """Adds the excess of the class that is read best to a row of the exam."""
  return row | {
    "appearance": max(
      (row[f"excess/{name}"] for name in CLASSES if row.get(f"excess/{name}") is not None),
      default=None,
    )
  }


def spent(workdir: pathlib.Path) -> float:
  """Seconds of all finished runs."""
  return sum(float(file.read_text()) for file in workdir.glob("*/seconds"))


def mean(found: list[dict], key: str) -> float:
  """Mean over seeds; a withheld score counts as the worst."""
  values = [run["trained"].get(key) for run in found]
  return -np.inf if not values or None in values else statistics.fmean(values)


def half_width(found: list[dict], key: str) -> float:
  """Half width of Student's 95 % interval over seeds; infinite for one seed."""
  values = [run["trained"][key] for run in found]
  return (
    float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)) if len(values) > 1 else np.inf
  )


def corrected(rows: dict[str, list[dict]]) -> str:
  """Formats the p-values of the gains after Holm's correction over the whole table.

  With one seed, the error of a gain is over held-out episodes (a claim about this trained model).
  With more seeds, it is Student's over seeds (a claim about the recipe).
  """
  p = {}
  for name, found in rows.items():
    for key in GAINS:
      values = [row[key] for row in found if row.get(key) is not None]
      means = [_value(one) for one in values]
      if len(means) > 1 and len(set(means)) > 1:
        p[f"{name}, {key}"] = float(stats.ttest_1samp(means, 0.0).pvalue)
      elif len(values) == 1 and isinstance(values[0], list) and values[0][1]:
        p[f"{name}, {key}"] = float(2 * stats.norm.sf(abs(values[0][0]) / values[0][1]))
  parts = [
    f"{name} {value:.2g}" for name, value in zip(p, runs.holm(list(p.values())), strict=True)
  ]
  seeds = max((len(found) for found in rows.values()), default=0)
  unit = (
    "held-out episodes of one trained model a row, n = 1 seed"
    if seeds == 1
    else f"{seeds} seeds a row"
  )
  return (
    f"Gains against zero, p after Holm's correction over these {len(p)} ({unit}): "
    f"{'; '.join(parts)}."
  )


def directions(rows: dict[str, list[dict]]) -> str:
  """Formats each published comparison, and the same pair in the exam.

  It shows the mean difference over the common seeds, Student's 95 % interval, and p after Holm's
  correction over all comparisons with two seeds or more whose differences are not all equal.
  """
  comparisons = [
    (first, second, key) for first, second, keys in PUBLISHED for key in (*keys, "e_z")
  ]
  comparisons += [(first, second, "e_z") for first, second in FURTHER]
  found = {}
  for first, second, key in comparisons:
    pairs = [
      (a["trained"].get(key), b["trained"].get(key))
      for a, b in zip(rows.get(first, ()), rows.get(second, ()), strict=False)
    ]
    gaps = [_value(a) - _value(b) for a, b in pairs if a is not None and b is not None]
    if len(gaps) > 1 and len(set(gaps)) > 1:
      test = stats.ttest_1samp(gaps, 0.0)
      found[first, second, key] = (
        statistics.fmean(gaps),
        *test.confidence_interval(),
        float(test.pvalue),
        len(gaps),
      )
  adjusted = dict(zip(found, runs.holm([values[3] for values in found.values()]), strict=True))
  lines = [
    "| first minus second row | number | difference [95 %] | seeds | p, corrected | |",
    "| --- |" + " --- |" * 5,
  ]
  for (first, second, key), (gap, low, high, _, count) in found.items():
    direction = (
      "not shown" if adjusted[first, second, key] >= 0.05 else "lower" if gap < 0 else "higher"
    )
    lines.append(
      f"| {first} - {second} | {key} | {gap:+.3f} [{low:+.3f}, {high:+.3f}] | {count} | "
      f"{adjusted[first, second, key]:.2g} | {direction} |"
    )
  return "\n".join(lines) if found else "No comparison has two seeds yet."


def _value(number: float | list[float]) -> float:
  return number[0] if isinstance(number, list) else number


def _main(config: str, workdir: pathlib.Path, *args: str) -> None:
  """Runs como_jax.main."""
  print(f"== {config} {' '.join(args)}", flush=True)
  subprocess.run(
    [sys.executable, "-m", "como_jax.main", f"--config={config}", f"--workdir={workdir}", *args],
    check=True,
    cwd=ROOT,
  )


def _cell(rows: list[dict], key: str) -> str:
  values = [_value(row.get(key)) for row in rows]
  if None in values:
    return ""
  if len(values) > 1:  # over seeds
    spread = f" ± {statistics.stdev(values):.3f}"
  else:  # over held-out episodes
    spread = f" ± {rows[0][key][1]:.3f}" if isinstance(rows[0].get(key), list) else ""
  return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
  main()
