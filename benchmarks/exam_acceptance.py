"""Is the exam itself sound?

Its controls against their closed form, every cheat, and one latent at many widths.

python benchmarks/exam_acceptance.py [--set DIR] [--tier hand] [--out FILE.md]
    (about ten minutes on 2 CPU cores)
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from como_jax.evaluate import exam_baselines
from como_jax.exam import exam_set
from como_jax.exam import rows as rows_lib
from como_jax.exam import run as scoring
from como_jax.sim import exam_design, exam_draws

WIDTHS = (16, 128, 512, 1_024)
# tolerance of the controls' errors; value of S below which a cheat counts as detected
NEAR, SEPARATE = 0.03, 0.1


def main() -> None:
  """Prints the checks and the tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--set", default="bundled")
  parser.add_argument("--tier", default="hand", choices=exam_design.TIERS)
  parser.add_argument("--out", type=pathlib.Path)
  options = parser.parse_args()
  folder = exam_set.find(options.set, options.tier)
  exam_data, stored = exam_set.load(folder), json.loads((folder / rows_lib.ROWS).read_text())
  test_chains = np.unique(exam_data.of_pairs("chain")[exam_data.rows(exam_set.TEST)])
  lines = [
    f"Set {options.set}, tier {options.tier}: {exam_data.pairs} pairs of "
    f"{len(exam_data.views['chain'])} views, {len(test_chains)} test chains of two moves.",
    "",
  ]
  checks = [*controls(exam_data, options.tier), *cheats(stored), *truth(stored), *widths(exam_data)]
  lines += [
    "| check | found | asked | holds |",
    "| --- | --- | --- | --- |",
    *(
      f"| {what} | {found} | {asked} | {'yes' if good else '**no**'} |"
      for what, found, asked, good in checks
    ),
  ]
  lines += ["", *rows_table(stored), "", *parts_table(stored), "", *cameras_table(exam_data)]
  text = "\n".join(lines) + "\n"
  print(text)
  if options.out:
    options.out.write_text(text)


def controls(exam_data: exam_set.ExamSet, tier: str) -> list[tuple]:
  """Checks of the controls' errors before capping, means over the dimensions of the target."""
  error = {
    name: (values / exam_data.variance).mean(axis=0) for name, values in exam_data.errors.items()
  }
  closed = exam_draws.closed_form(exam_design.TIERS.index(tier))
  checks = []
  for kind in ("linear", "kernel"):
    value = error[f"first_{kind}"].mean()
    checks.append(
      (f"first picture, {kind}", f"{value:.3f}", f"1.00 ± {NEAR}", abs(value - 1) <= NEAR)
    )
  for kind, form in (("linear", "linear"), ("kernel", "conditional")):
    value, expected = error[f"oracle_second_{kind}"].mean(), closed[form].mean()
    checks.append(
      (
        f"true second pose, {kind}",
        f"{value:.3f}",
        f"closed form {expected:.3f} ± {NEAR}",
        abs(value - expected) <= NEAR,
      )
    )
  oracle = min(error["oracle_second_linear"].mean(), error["oracle_second_kernel"].mean())
  for name in sorted(error):
    if name.startswith("second_"):
      value = error[name].mean()
      checks.append(
        (
          f"second picture, {name.removeprefix('second_')}",
          f"{value:.3f}",
          f"at least {oracle - NEAR:.3f} (true pose {oracle:.3f})",
          value >= oracle - NEAR,
        )
      )
  return checks


def cheats(stored: dict) -> list[tuple]:
  """Checks of the cheats: S is below 0.1, or appearance is readable."""
  checks = []
  for name in exam_baselines.CHEATS:
    row = stored[name]
    good = (row["s"] is not None and row["s"] < SEPARATE) or bool(row["flags"])
    checks.append(
      (
        f"cheat: {name}",
        f"S {number(row['s']) or 'withheld'}, readable: {', '.join(row['flags']) or 'nothing'}",
        f"S < {SEPARATE} or readable",
        good,
      )
    )
  return checks


def truth(stored: dict) -> list[tuple]:
  """Checks of the true displacement, and of the standard error of S."""
  row = stored["true displacement"]
  checks = [
    (
      "true displacement, camera's frame",
      f"S {number(row['s'])}",
      "at least 0.95",
      row["s"] is not None and row["s"] >= 0.95,
    ),
    ("true displacement, robot's frame", f"S {number(row.get('s_robot'))}", "no bound", True),
  ]
  for name in (
    "components of the difference",
    "components of the optical flow",
    "supervised inverse model",
  ):
    row = stored[name]
    checks.append(
      (
        f"standard error of S: {name}",
        number(row["s_error"], 3),
        "at most 0.02",
        row["s_error"] is not None and row["s_error"] <= 0.02,
      )
    )
    checks.append(
      (
        f"its range over cameras, scenes: {name}",
        f"{number(row['s_range_cameras'])}, {number(row['s_range_scenes'])}",
        "printed",
        True,
      )
    )
  return checks


def widths(exam_data: exam_set.ExamSet) -> list[tuple]:
  """Checks of 16 dimensions (the true displacement with noise) and random maps of full rank."""
  rng = np.random.default_rng(0)
  signal = exam_data.target / np.sqrt((exam_data.target**2).mean(axis=0))
  z = np.concatenate(
    [
      signal + 0.7 * rng.normal(size=signal.shape),
      rng.normal(size=(len(signal), 16 - signal.shape[1])),
    ],
    axis=1,
  )
  scores, seconds = {}, {}
  for width in (0, *WIDTHS):
    begin = time.monotonic()
    latent = z @ rng.normal(size=(16, width)) if width else z
    scores[width] = scoring.evaluate(exam_data, latent.astype(np.float32)).score.s.value
    seconds[width] = time.monotonic() - begin
  checks = [
    (
      f"16 numbers mapped to {width}",
      f"S {scores[width]:.3f} (16 themselves: {scores[0]:.3f})",
      "within 0.02",
      abs(scores[width] - scores[0]) <= 0.02,
    )
    for width in WIDTHS
  ]
  slowest = max(seconds.values())
  return [
    *checks,
    (
      "time to score 1,024 numbers, numpy alone",
      f"{seconds[1024]:.0f} s",
      "below 300 s",
      slowest < 300,
    ),
  ]


def rows_table(stored: dict) -> list[str]:
  """Formats all rows of the set, with intervals over moves."""
  lines = [
    (
      "| row | S | error | scene | camera | objects | colors | second picture rebuilt | better "
      "than the first by | S, robot's frame | readable |"
    ),
    "| --- |" + " --- |" * 10,
  ]
  for name, row in stored.items():
    s = (
      f"{number(row['s'])} [{number(row['s_low'])}, {number(row['s_high'])}]"
      if row["s"] is not None
      else "withheld"
    )
    cells = [number(row.get(f"excess/{key}")) for key in ("scene", "camera", "objects", "palette")]
    cells += [number(row.get("future/second")), number(row.get("future/gap"))]
    lines.append(
      (
        f"| {name} | {s} | {number(row['e_z'], 3)} [{number(row['e_z_low'], 3)}, "
        f"{number(row['e_z_high'], 3)}] | "
      )
      + " | ".join(cells)
      + f" | {number(row.get('s_robot'))} | {', '.join(row['flags']) or 'nothing'} |"
    )
  return lines


def parts_table(stored: dict) -> list[str]:
  """Formats the error of each target dimension, the standard error of e, and the shares of z."""
  names = [
    key.removeprefix("error/")
    for key in next(iter(stored.values()))
    if key.startswith("error/") and not key.endswith(("_low", "_high"))
  ]
  shares = (
    "motion",
    "camera",
    "scene",
    "motion x camera",
    "motion x scene",
    "camera x scene",
    "rest",
  )
  lines = [
    "| row | "
    + " | ".join(f"error: {name}" for name in names)
    + " | standard error of e | reversal | both pictures shifted | "
    + " | ".join(f"share: {name}" for name in shares)
    + " |",
    "| --- |" + " --- |" * (len(names) + 3 + len(shares)),
  ]
  for name, row in stored.items():
    cells = [number(row[f"error/{part}"], 3) for part in names] + [
      number(row["e_z_error"], 3),
      number(row.get("reversal")),
      number(row.get("shifted")),
    ]
    cells += [number(row.get(f"share/{part}")) for part in shares]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  return lines


def cameras_table(exam_data: exam_set.ExamSet) -> list[str]:
  """Formats errors of the controls of both pictures, for each test camera."""
  test = exam_data.rows(exam_set.TEST)
  camera, squares = exam_data.of_pairs("camera")[test], exam_data.target[test] ** 2
  lines = [
    "| camera | pairs | control | "
    + " | ".join(f"error: {name}" for name in exam_data.names)
    + " |",
    "| --- |" + " --- |" * (2 + len(exam_data.names)),
  ]
  for index in np.unique(camera):
    selected = camera == index
    name = (
      f"{index}{' (moves)' if exam_data.camera_speed.reshape(-1)[test][selected].any() else ''}"
    )
    for control in exam_set.controls(exam_data.errors, "both"):
      values = exam_data.errors[control][selected].mean(axis=0) / squares[selected].mean(axis=0)
      lines.append(
        f"| {name} | {selected.sum()} | {control} | "
        + " | ".join(f"{value:.2f}" for value in values)
        + " |"
      )
  return lines


def number(value: float | None, digits: int = 2) -> str:
  """Formats a value; "" for None."""
  return "" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no "-0.00"


if __name__ == "__main__":
  main()
