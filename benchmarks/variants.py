"""Do the published directions show? Trains every input and bottleneck of the small motion model and prints one table.

python benchmarks/variants.py --workdir DIR [--steps 1000] [--seeds 1] [--only NAME ...]     (about 4 minutes a variant on 2 CPU cores)
Finished variants are kept, so it can be stopped and run again. Writes DIR/variants.md and DIR/variants.json.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from scipy import stats  # noqa: E402

from como_jax.evaluate import runs  # noqa: E402

VARIANTS = {
    "future features": "inputs=future,tcl=off",
    "VQ": "inputs=none,bottleneck=vq,tcl=off",
    "pre-VQ": "inputs=none,bottleneck=pre_vq,tcl=off",
    "KL": "inputs=none,bottleneck=kl,tcl=off",
    "none (w/o VQ)": "inputs=none,tcl=off",
    "RGB difference": "inputs=rgb_diff,tcl=off",
    "Td": "inputs=feature_diff,tcl=off",
    "Tcl": "inputs=none,tcl=on",
    "Td + Tcl": "inputs=feature_diff,tcl=on",
}
COLUMNS = ("lp_mse", "lp_gain", "state_lp_mse", "state_lp_gain", "mlp_mse", "s_pcfc", "effective_rank", "psnr", "copy_ratio_moving", "camera_excess")
GAINS = ("lp_gain", "state_lp_gain")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--steps", type=int, default=1_000)
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
  options = parser.parse_args()
  rows, untrained, begin = {}, [], time.monotonic()
  for name in options.only:
    rows[name] = []
    for seed in range(options.seeds):
      rows[name].append(_run(options.workdir.absolute(), name, seed, options.steps))
      if name == "Td + Tcl":
        untrained.append(rows[name][-1]["untrained"])
  lines = ["| variant | " + " | ".join(COLUMNS) + " | pairs/s |", "| --- |" + " --- |" * (len(COLUMNS) + 1)]
  for name, found in rows.items():
    lines.append(f"| {name} | " + " | ".join(_cell([run["trained"] for run in found], key) for key in COLUMNS)
                 + f" | {statistics.mean(run['pairs_per_s'] for run in found):.0f} |")
  if untrained:
    lines.append("| untrained (Td) | " + " | ".join(_cell(untrained, key) for key in COLUMNS) + " | |")
    blank = ["" if key not in ("psnr", "copy_ratio_moving") else f"{untrained[0]['copy_psnr']:.3f}" if key == "psnr" else "1.000" for key in COLUMNS]
    lines.append("| copy current frame | " + " | ".join(blank) + " | |")
  text = "\n".join(lines) + "\n\n" + corrected({name: [run["trained"] for run in found] for name, found in rows.items()})
  (options.workdir / "variants.md").write_text(text + "\n")
  (options.workdir / "variants.json").write_text(json.dumps(rows, indent=2))
  print(f"\n{options.steps} steps, {options.seeds} seed(s), {time.monotonic() - begin:.0f} s\n\n{text}")


def _run(workdir: pathlib.Path, name: str, seed: int, steps: int) -> dict:
  """Trains and probes one variant, unless it is there already."""
  folder = workdir / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}"
  metrics = folder / "probe" / "metrics.json"
  if not metrics.exists():
    again = ["--resume"] if (folder / "motion" / "config.json").exists() else []
    _main("configs/motion.py:small," + VARIANTS[name], folder / "motion", f"--config.train.steps={steps}", f"--config.seed={seed}", *again)
    _main("configs/probe.py", folder / "probe", f"--config.checkpoint={folder / 'motion'}", "--config.windows=600", "--config.fit_windows=1500",
          *(["--overwrite"] if (folder / "probe").exists() else []))
  read = json.loads(metrics.read_text())["rows"]
  return {"trained": read["trained"], "untrained": {**read["untrained"], "copy_psnr": read["copy-current-frame"]["psnr"]},
          "pairs_per_s": json.loads((folder / "motion" / "speed.json").read_text())["pairs_per_s"]}


def corrected(rows: dict[str, list[dict]]) -> str:
  """Which gains are clear of zero after Holm's correction over all of the table, and what they are about.

  With one seed a gain's error is that over held-out episodes (a claim about this trained model), with more it is
  Student's over seeds (a claim about the recipe).
  """
  p = {}
  for name, found in rows.items():
    for key in GAINS:
      values = [row[key] for row in found if row.get(key) is not None]
      means = [one[0] if isinstance(one, list) else one for one in values]
      if len(means) > 1 and len(set(means)) > 1:
        p[f"{name}, {key}"] = float(stats.ttest_1samp(means, 0.0).pvalue)
      elif len(values) == 1 and isinstance(values[0], list) and values[0][1]:
        p[f"{name}, {key}"] = float(2 * stats.norm.sf(abs(values[0][0]) / values[0][1]))
  parts = [f"{name} {value:.2g}" for name, value in zip(p, runs.holm(list(p.values())), strict=True)]
  seeds = max((len(found) for found in rows.values()), default=0)
  unit = "held-out episodes of one trained model a row, n = 1 seed" if seeds == 1 else f"{seeds} seeds a row"
  return f"Gains against zero, p after Holm's correction over these {len(p)} ({unit}): {'; '.join(parts)}."


def _main(config: str, workdir: pathlib.Path, *words: str) -> None:
  print(f"== {config} {' '.join(words)}", flush=True)
  subprocess.run([sys.executable, "-m", "como_jax.main", f"--config={config}", f"--workdir={workdir}", *words], check=True, cwd=ROOT)


def _cell(rows: list[dict], key: str) -> str:
  values = [row[key][0] if isinstance(row.get(key), list) else row.get(key) for row in rows]
  if None in values:
    return ""
  if len(values) > 1:  # over seeds
    spread = f" ± {statistics.stdev(values):.3f}"
  else:  # over held-out episodes
    spread = f" ± {rows[0][key][1]:.3f}" if isinstance(rows[0].get(key), list) else ""
  return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
  main()
