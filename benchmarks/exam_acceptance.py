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

from como_jax.exam import exam_set
from como_jax.exam import run as scoring
from como_jax.sim import exam_design
from como_jax.tasks import exam, exam_rows

WIDTHS = (16, 128, 512, 1_024)
# how near controls have to be to what they should be; S below which a cheat is seen through
NEAR, SEPARATE = 0.03, 0.1


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--set", default="bundled")
  parser.add_argument("--tier", default="hand", choices=exam_design.TIERS)
  parser.add_argument("--out", type=pathlib.Path)
  options = parser.parse_args()
  folder = exam.find(options.set, options.tier)
  given, stored = exam_set.load(folder), json.loads((folder / exam.ROWS).read_text())
  lines = [
    f"Set {options.set}, tier {options.tier}: {given.pairs} pairs of {len(given.views['chain'])} "
    f"views, {len(np.unique(given.of_pairs('chain')[given.rows(exam_set.TEST)]))} test chains of "
    "two moves.",
    "",
  ]
  checks = [*controls(given, options.tier), *cheats(stored), *truth(stored), *widths(given)]
  lines += [
    "| check | found | asked | holds |",
    "| --- | --- | --- | --- |",
    *(
      f"| {what} | {found} | {asked} | {'yes' if good else '**no**'} |"
      for what, found, asked, good in checks
    ),
  ]
  lines += ["", *rows_table(stored), "", *parts_table(stored), "", *cameras_table(given)]
  text = "\n".join(lines) + "\n"
  print(text)
  if options.out:
    options.out.write_text(text)


def controls(given: exam_set.ExamSet, tier: str) -> list[tuple]:
  """Errors before capping, means over the numbers asked for."""
  error = {name: (values / given.variance).mean(axis=0) for name, values in given.errors.items()}
  closed = exam_design.closed_form(exam_design.TIERS.index(tier))
  found = []
  for kind in ("linear", "kernel"):
    value = error[f"first_{kind}"].mean()
    found.append(
      (f"first picture, {kind}", f"{value:.3f}", f"1.00 ± {NEAR}", abs(value - 1) <= NEAR)
    )
  for kind, form in (("linear", "linear"), ("kernel", "conditional")):
    value, wanted = error[f"oracle_second_{kind}"].mean(), closed[form].mean()
    found.append(
      (
        f"true second pose, {kind}",
        f"{value:.3f}",
        f"closed form {wanted:.3f} ± {NEAR}",
        abs(value - wanted) <= NEAR,
      )
    )
  oracle = min(error["oracle_second_linear"].mean(), error["oracle_second_kernel"].mean())
  for name in sorted(error):
    if name.startswith("second_"):
      value = error[name].mean()
      found.append(
        (
          f"second picture, {name.removeprefix('second_')}",
          f"{value:.3f}",
          f"at least {oracle - NEAR:.3f} (true pose {oracle:.3f})",
          value >= oracle - NEAR,
        )
      )
  return found


def cheats(stored: dict) -> list[tuple]:
  """Every cheat: S below 0.1, or appearance is readable."""
  found = []
  for name in exam_rows.CHEATS:
    row = stored[name]
    good = (row["s"] is not None and row["s"] < SEPARATE) or bool(row["flags"])
    found.append(
      (
        f"cheat: {name}",
        f"S {number(row['s']) or 'withheld'}, readable: {', '.join(row['flags']) or 'nothing'}",
        f"S < {SEPARATE} or readable",
        good,
      )
    )
  return found


def truth(stored: dict) -> list[tuple]:
  """The true displacement, and how well S is known."""
  row = stored["true displacement"]
  shown = [
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
    shown.append(
      (
        f"standard error of S: {name}",
        number(row["s_error"], 3),
        "at most 0.02",
        row["s_error"] is not None and row["s_error"] <= 0.02,
      )
    )
    shown.append(
      (
        f"its range over cameras, scenes: {name}",
        f"{number(row['s_range_cameras'])}, {number(row['s_range_scenes'])}",
        "printed",
        True,
      )
    )
  return shown


def widths(given: exam_set.ExamSet) -> list[tuple]:
  """16 numbers (the true displacement with noise) and random full-rank maps of them."""
  rng = np.random.default_rng(0)
  signal = given.target / np.sqrt((given.target**2).mean(axis=0))
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
    scores[width] = scoring.evaluate(given, latent.astype(np.float32)).score.s.value
    seconds[width] = time.monotonic() - begin
  found = [
    (
      f"16 numbers mapped to {width}",
      f"S {scores[width]:.3f} (16 themselves: {scores[0]:.3f})",
      "within 0.02",
      abs(scores[width] - scores[0]) <= 0.02,
    )
    for width in WIDTHS
  ]
  worst = max(seconds.values())
  return [
    *found,
    (
      "time to score 1,024 numbers, numpy alone",
      f"{seconds[1024]:.0f} s",
      "below 300 s",
      worst < 300,
    ),
  ]


def rows_table(stored: dict) -> list[str]:
  """All rows of the set, with intervals over moves."""
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
  """The error of each number asked for, the standard error of e, and the shares of z."""
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
    cells = [number(row[f"error/{one}"], 3) for one in names] + [
      number(row["e_z_error"], 3),
      number(row.get("reversal")),
      number(row.get("shifted")),
    ]
    cells += [number(row.get(f"share/{one}")) for one in shares]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  return lines


def cameras_table(given: exam_set.ExamSet) -> list[str]:
  """Errors of the controls of both pictures under each of the test's cameras."""
  test = given.rows(exam_set.TEST)
  camera, squares = given.of_pairs("camera")[test], given.target[test] ** 2
  lines = [
    "| camera | pairs | control | " + " | ".join(f"error: {name}" for name in given.names) + " |",
    "| --- |" + " --- |" * (2 + len(given.names)),
  ]
  for one in np.unique(camera):
    some = camera == one
    name = f"{one}{' (moves)' if given.camera_speed.reshape(-1)[test][some].any() else ''}"
    for control in exam_set.controls(given.errors, "both"):
      values = given.errors[control][some].mean(axis=0) / squares[some].mean(axis=0)
      lines.append(
        f"| {name} | {some.sum()} | {control} | "
        + " | ".join(f"{value:.2f}" for value in values)
        + " |"
      )
  return lines


def number(value: float | None, digits: int = 2) -> str:
  return "" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no "-0.00"


if __name__ == "__main__":
  main()
