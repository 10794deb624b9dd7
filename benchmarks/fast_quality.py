r"""What do clips of 8 frames and Tcl on one drawn pair of each cost in quality?

python benchmarks/fast_quality.py --workdir DIR [--steps 2000] [--seeds 5] [--option path=none] \
    [--margin 0.05] [--only RECIPE ...] [--rehearse]
The small model is trained and examined for each seed with every recipe, of one data order and
initialization a seed:
    published      clips of 2 frames, Tcl on all pairs (the recipe that the others are compared to)
    clips          clips of 8 frames, Tcl on all pairs
    fast           clips of 8 frames, Tcl on one drawn pair of each; as many pairs as published
    fast, longer   fast for as many CPU seconds as published: its steps follow from the speed that
                   fast and published of the same seed had after compilation
The table compares with published, seed by seed: S of the exam (higher is better) and leakage, the
excess of the class of appearance that is read best (lower is better), each with a one-sided 90 %
bound over seeds. A recipe is no worse by more than the margin if the bound says so.
Finished runs are kept, so the program can be stopped and run again; a run that was stopped begins
again. Training reads --config.data.workers=0, so CPU seconds are of one process. It writes
DIR/fast_quality.md and DIR/fast_quality.json. On 2 CPU cores about 10 minutes a run of 2,000
steps and 2 minutes an exam. --rehearse: 2 seeds of a few steps, which say nothing but that it runs.
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

from scipy import stats

ROOT = pathlib.Path(__file__).parent.parent
PUBLISHED, FAST, LONGER = "published", "fast", "fast, longer"
PAIRS = 56  # of a step: 56 clips of 2 frames or 8 of 8
_CLIPS = ("--config.data.frames=8", f"--config.train.batch_size={PAIRS // 7}")
RECIPES: dict[str, tuple[str, ...]] = {
  PUBLISHED: ("--config.data.frames=2", f"--config.train.batch_size={PAIRS}"),
  "clips": _CLIPS,
  FAST: (*_CLIPS, f"--config.objectives.contrastive.fraction={1 / 7}"),
  LONGER: (*_CLIPS, f"--config.objectives.contrastive.fraction={1 / 7}"),
}
CLASSES = ("scene", "camera", "objects", "palette")
LEVEL = 0.9  # of the one-sided bounds


def main() -> None:
  """Trains and examines every recipe; writes the table after each seed."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--steps", type=int, default=2000)
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--option", default="", help="further options of configs/motion.py:small")
  parser.add_argument("--margin", type=float, default=0.05, help="of S and of the leakage")
  parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES))
  parser.add_argument("--rehearse", action="store_true", help="2 seeds of a few steps")
  options = parser.parse_args()
  if LONGER in options.only and not {PUBLISHED, FAST} <= set(options.only):
    parser.error(f"--only: {LONGER!r} needs {PUBLISHED!r} and {FAST!r}, whose speed it takes")
  if options.rehearse:
    options.steps, options.seeds = 6, 2
  found: dict[str, list[dict]] = {name: [] for name in options.only}
  # seed by seed, so that an interrupted program has a complete table of fewer seeds
  for seed in range(options.seeds):
    for name in options.only:
      steps = options.steps
      if name == LONGER:
        steps = steps_in_equal_seconds(found[PUBLISHED][-1], found[FAST][-1])
      found[name].append(_run(options, name, seed, steps))
    text = table(found, options.margin)
    (options.workdir / "fast_quality.md").write_text(text)
    (options.workdir / "fast_quality.json").write_text(json.dumps(found, indent=1) + "\n")
    print(text, flush=True)


def steps_in_equal_seconds(published: dict, fast: dict) -> int:
  """Steps of the fast recipe in the CPU seconds of the published one.

  Args:
    published: a run, with "steps" and "seconds_a_step".
    fast: a run of the same seed.
  """
  return round(published["steps"] * published["seconds_a_step"] / fast["seconds_a_step"])


def _run(options: argparse.Namespace, name: str, seed: int, steps: int) -> dict:
  """Trains and examines one model, unless its files exist.

  Returns:
    "s", "leakage", "e_z", "steps", "pairs" and "seconds", the CPU seconds of the training.
  """
  words = "".join(c if c.isalnum() else "-" for c in name)
  # the length of the longer run follows from measured speeds, and is kept where it was begun
  label = f"{words}-{'equal' if name == LONGER else steps}-{seed}"
  folder = options.workdir.absolute() / label
  clock, product = folder / "run.json", folder / "exam" / "exam.json"
  variant = ",".join(part for part in ("small", options.option) if part)
  if not clock.exists():
    shutil.rmtree(folder, ignore_errors=True)  # it may have an exam of other weights
    speed = _train(options, folder, variant, (*RECIPES[name], f"--config.seed={seed}"), steps)
    clock.write_text(json.dumps({"steps": steps, "pairs": steps * PAIRS, **speed}))
  if not product.exists():
    _main(
      "configs/probe.py:exam",
      folder / "exam",
      f"--config.checkpoint={folder / 'motion'}",
      f"--config.seed={seed}",
      "--overwrite",
    )
  row = json.loads(product.read_text())["rows"]["trained"]
  leakage = max(row[f"excess/{kind}"] for kind in CLASSES)
  return {"s": row["s"], "leakage": leakage, "e_z": row["e_z"], **json.loads(clock.read_text())}


def _train(
  options: argparse.Namespace,
  folder: pathlib.Path,
  variant: str,
  settings: tuple[str, ...],
  steps: int,
) -> dict[str, float]:
  """Trains; returns its "seconds" of the processor and "seconds_a_step".

  A step's seconds are the difference to a run of one step, which is not kept: starting and
  compiling cost as much as many steps.
  """
  common = (
    f"--config=configs/motion.py:{variant}",
    *settings,
    "--config.data.workers=0",
    "--config.train.evaluate_every=0",
    f"--config.train.checkpoint_every={steps}",
    "--overwrite",
  )
  used = {}
  for count in (1, steps):
    begin, processor = time.monotonic(), _processor()
    _main_words(*common, f"--config.train.steps={count}", f"--workdir={folder / 'motion'}")
    used[count] = (_processor() - processor, time.monotonic() - begin)
  processor, wall = used[steps]
  return {
    "seconds": processor,
    "wall": wall,
    "seconds_a_step": max(processor - used[1][0], 1e-3) / max(steps - 1, 1),
  }


def table(found: dict[str, list[dict]], margin: float) -> str:
  """Formats a line for each recipe, and the comparisons with the published one.

  Args:
    found: recipe -> its runs, by seed.
    margin: within which a recipe is called no worse.
  """
  lines = [
    "| recipe | seeds | steps | pairs | CPU seconds | ms a step | S | leakage | error of a move |",
    "| --- |" + " --- |" * 8,
  ]
  for name, rows in found.items():
    if rows:
      cells = [
        name,
        len(rows),
        *(f"{statistics.fmean(row[key] for row in rows):.0f}" for key in ("steps", "pairs")),
        f"{statistics.fmean(row['seconds'] for row in rows):.0f}",
        f"{1e3 * statistics.fmean(row['seconds_a_step'] for row in rows):.0f}",
        _mean(rows, "s"),
        _mean(rows, "leakage"),
        _mean(rows, "e_z"),
      ]
      lines.append(f"| {' | '.join(map(str, cells))} |")
  lines += [
    "",
    "| minus published, same seeds | seeds | S, at least | leakage, at most | no worse by more "
    f"than {margin:g} |",
    "| --- |" + " --- |" * 4,
  ]
  for name, rows in found.items():
    if name == PUBLISHED or PUBLISHED not in found:
      continue
    score, leak = (gaps(rows, found[PUBLISHED], key) for key in ("s", "leakage"))
    low, high = 0.0 - bound([-gap for gap in score]), bound(leak)
    verdict = "yes" if low >= -margin and high <= margin else "not shown"
    lines.append(
      f"| {name} | {len(score)} | {_signed(score)} (90 %: {low:+.3f}) | {_signed(leak)} (90 %: "
      f"{high:+.3f}) | {verdict} |"
    )
  return "\n".join(lines) + "\n"


def gaps(rows: list[dict], others: list[dict], key: str) -> list[float]:
  """Differences of the runs of the same seeds; runs whose score is withheld are left out."""
  pairs = zip(rows, others, strict=False)
  return [a[key] - b[key] for a, b in pairs if a[key] is not None and b[key] is not None]


def bound(values: list[float]) -> float:
  """The mean of values is at most this, one-sided, by Student; infinite for fewer than two."""
  if len(values) < 2:
    return float("inf")
  return statistics.fmean(values) + float(stats.t.ppf(LEVEL, len(values) - 1) * stats.sem(values))


def _signed(values: list[float]) -> str:
  return f"{statistics.fmean(values):+.3f}" if values else "withheld"


def _mean(rows: list[dict], key: str) -> str:
  values = [row[key] for row in rows if row[key] is not None]
  if len(values) < 2:
    return f"{values[0]:.3f}" if values else "withheld"
  return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def _processor() -> float:
  """CPU seconds of all finished child processes, over all cores."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def _main(config: str, workdir: pathlib.Path, *args: str) -> None:
  _main_words(f"--config={config}", f"--workdir={workdir}", *args)


def _main_words(*words: str) -> None:
  """Runs como_jax.main."""
  subprocess.run([sys.executable, "-m", "como_jax.main", *words], check=True, cwd=ROOT)


if __name__ == "__main__":
  main()
