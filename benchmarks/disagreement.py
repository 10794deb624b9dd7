r"""Where do the published metrics and the exam rank two latents differently?

A table of pairs, rank correlations, and six pairs of pictures to look at.

python benchmarks/disagreement.py --runs FOLDER [FOLDER ...] [--pair A B] [--set bundled] \
    [--out FILE.md]
FOLDER: as written by benchmarks/variants.py (NAME-STEPS-SEED with motion/, probe/metrics.json,
exam/exam.json, exam/latents.npz). Folders that cannot be used are named and left out. A row is a
variant with its seeds, or a latent without training that both programs measure. --pair compares
only two rows, given by their names in the table or by folder, and always draws them. Without it,
the clearest disagreement is drawn, if there is one. A probe of the moves takes about 15 s of CPU
time, components of the features 50 s.
"""

import argparse
import math
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from scipy import stats

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import common
import disagreement_pairs as compared
import disagreement_picture as picture
from disagreement_exam import Exam
from disagreement_rows import Found, Measured, Row, named, read

from como_jax import errors
from como_jax.exam import exam_set

NAMES = {"lp_mse": "LP-MSE of the action", "s_pcfc": "S-PCFC", "e_z": "error of the move"}
MAX_PAIRS = 20  # in the table


def main() -> None:
  """Prints the report."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--runs", type=pathlib.Path, nargs="+", default=[], help="folders of runs")
  parser.add_argument(
    "--pair", nargs=2, metavar=("A", "B"), help="two rows, or folders, to look at alone"
  )
  parser.add_argument("--set", default="bundled", help="of the exam")
  parser.add_argument("--out", type=pathlib.Path, help="Markdown page; the picture lies beside it")
  options = parser.parse_args()
  try:
    text = report(options)
  except errors.UserError as error:
    sys.exit(f"error: {error}")
  print("\n" + text)


def report(options: argparse.Namespace) -> str:
  """Builds the page; with --out, also writes it.

  Raises:
    errors.UserError: no folder can be used, or a row of --pair is unknown.
  """
  exam = Exam(exam_set.find(options.set, "hand"))
  found = read(_folders(options), exam.stored)
  for line in found.left:
    print(f"left out: {line}", flush=True)
  rows = [_row(found.rows, name) for name in options.pair] if options.pair else found.rows
  if options.pair and rows[0] is rows[1]:
    raise errors.UserError(f"--pair: both are the row {rows[0].name!r}, expected two")
  searched = compared.search(rows, compared.of_latents(exam))
  drawn = None
  if searched.clear:
    drawn = searched.clear[0].published, searched.clear[0].exam
  elif options.pair:
    drawn = rows[0], rows[1]
  parts = page(found, searched, exam, given=bool(options.pair))
  if drawn and options.out:
    try:
      parts += picture_part(
        exam, drawn, options.out.with_suffix(".png"), disagree=bool(searched.clear)
      )
    except errors.UserError as error:  # the tables are complete without the picture
      print(f"no picture: {error}", flush=True)
  parts.append(closing(found))
  text = "\n\n".join(["# Where the published metrics and the exam disagree", *parts]) + "\n"
  if options.out:
    options.out.write_text(text)
  return text


def page(found: Found, searched: compared.Search, exam: Exam, *, given: bool) -> list[str]:
  """Builds all parts of the page except the picture and the last part."""
  chains = len(np.unique(exam.chains[exam.set.rows(exam_set.TEST)]))
  trained = [len(row.runs) for row in found.rows if row.trained]
  head = (
    f"`python benchmarks/disagreement.py --runs DIR/*{' --pair A B' * given}`, "
    f"{plural(sum(trained), 'run')} of {plural(len(trained), 'trained row')}. {common.machine()}."
  )
  what = (
    f"LP-MSE of the action and S-PCFC: `configs/probe.py`, {found.windows}. Error of the move and "
    f"S: `configs/probe.py:exam`, tier hand, {chains} test chains in unseen cameras and scenes; S "
    "comes from that error and the set's controls, and falls where the error rises. Of LP-MSE, "
    "S-PCFC and the error lower counts as better. [ ]: with several seeds Student's 95 % "
    "interval over them, with one the 95 % interval of the error over test chains; ±: standard "
    "error over held-out motions, of one seed."
  )
  return [
    head,
    what,
    rows_table(found.rows, exam),
    "Rows without training that both programs measure:\n\n"
    + "\n".join(f"* {line}." for line in found.untrained),
    "## Pairs in opposite order",
    *([pairs_table(searched)] if searched.pairs else []),
    sentence(searched, given=given),
    "## Ranks",
    *(
      rank_sentence(compared.correlation(found.rows, metric), metric)
      for metric in compared.PUBLISHED
    ),
  ]


def rows_table(rows: Sequence[Row], exam: Exam) -> str:
  """Formats the table of the rows, in the order of the exam's error."""
  lines = []
  for row in sorted(rows, key=lambda row: row.mean("e_z")):
    appearance = row.values("appearance")
    lines.append(
      (
        row.name,
        len(row.runs) if row.trained else "",
        *(_cell(row, metric) for metric in NAMES),
        f"{exam.s(row.mean('e_z')):.2f}",
        f"{np.mean(appearance):.2f}" if appearance else "",
      )
    )
  return common.table(("row", "seeds", *NAMES.values(), "S", "appearance read best"), lines)


def _cell(row: Row, metric: str) -> str:
  values = row.values(metric)
  if not values:
    return ""
  mean = f"{np.mean(values):.3f}"
  if len(values) > 1:
    reach = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean} [{np.mean(values) - reach:.3f}, {np.mean(values) + reach:.3f}]"
  if metric == "lp_mse" and math.isfinite(row.first.lp_mse[1]):
    return f"{mean} ± {row.first.lp_mse[1]:.3f}"
  if metric == "e_z" and row.first.limits:
    return f"{mean} [{row.first.limits[0]:.3f}, {row.first.limits[1]:.3f}]"
  return mean


def pairs_table(searched: compared.Search) -> str:
  """Formats the table of the pairs in opposite order."""
  lines = [
    (
      pair.published.name,
      pair.exam.name,
      *(str(pair.gaps[metric]) if metric in pair.gaps else "not known" for metric in NAMES),
      pair.unit,
      f"{pair.holm:.2g}",
      "yes" if pair.clear else "no",
    )
    for pair in searched.pairs[:MAX_PAIRS]
  ]
  more = (
    f"\n\n{len(searched.pairs) - MAX_PAIRS} more pairs, none of them surer, are left out here."
    if len(searched.pairs) > MAX_PAIRS
    else ""
  )
  return (
    "The first of a pair less the second; Holm's p is of the whole disagreement (the largest p "
    f"of its differences), corrected for all {searched.looked} pairs looked at.\n\n"
    + common.table(
      (
        "the published metrics prefer",
        "the exam prefers",
        *NAMES.values(),
        "interval over",
        "Holm's p",
        "shown",
      ),
      lines,
    )
    + more
  )


def sentence(searched: compared.Search, *, given: bool) -> str:
  """Formats the sentences about the pairs."""
  have = (
    f"{len(searched.pairs)} {'has' if len(searched.pairs) == 1 else 'have'} values in opposite "
    "order"
  )
  begin = f"Of {plural(searched.looked, 'pair')} {'given' if given else 'looked at'}, {have}"
  condition = f"every difference is clear of zero with Holm's p below {compared.LEVEL:g}"
  if not searched.clear:
    return f"**No clear disagreement.** {begin}" + (
      f"; in none {condition}." if searched.pairs else "."
    )
  lines = []
  for pair in searched.clear:
    prefer = (
      "LP-MSE and S-PCFC prefer"
      if "s_pcfc" in pair.gaps
      else "LP-MSE (S-PCFC is not known) prefers"
    )
    numbers = ", ".join(
      str(pair.gaps[metric]) for metric in compared.PUBLISHED if metric in pair.gaps
    )
    lines.append(
      f"* {prefer} **{pair.published.name}** to **{pair.exam.name}** ({numbers}); the exam has "
      f"the opposite order: error of the move {pair.gaps['e_z']}. Interval over {pair.unit}; "
      f"Holm's p = {pair.holm:.2g}."
    )
  return f"{begin}, and in {len(searched.clear)} of them {condition}:\n\n" + "\n".join(lines)


def plural(count: int, name: str) -> str:
  """Formats a count with its noun, for example "1 run" or "2 runs"."""
  return f"{count} {name}{'s' * (count != 1)}"


def rank_sentence(found: compared.Correlation, metric: str) -> str:
  """Formats the correlation of the ranks by a published metric and by the exam."""
  pair = f"{NAMES[metric]} against error of the move"
  if math.isnan(found.spearman):
    few = f"too few to rank or without an order (at least {compared.LEAST} are asked)"
    return f"{pair}: n = {plural(found.n, 'row')}, {few}."
  order = "alike" if found.spearman > 0 else "in opposite order"
  conclusion = "not told from no relation"
  if max(found.p_spearman, found.p_kendall) < compared.LEVEL:
    conclusion = f"they rank these rows {order} more than chance does"
  return (
    f"{pair}: Spearman's rho {found.spearman:+.2f} (p = {found.p_spearman:.2g}), Kendall's tau "
    f"{found.kendall:+.2f} (p = {found.p_kendall:.2g}), n = {found.n} rows: {conclusion}."
  )


def picture_part(
  exam: Exam, drawn: tuple[Row, Row], path: pathlib.Path, *, disagree: bool
) -> list[str]:
  """Draws two rows (the first seed that has latents), and formats the explanation."""
  latents = tuple(_drawable(row) for row in drawn)
  moves = picture.moves(exam, latents)
  picture.draw(
    moves,
    tuple(f"read from {letter}: {row.name}" for letter, row in zip("AB", drawn, strict=False)),
    path,
  )
  right_down = [exam.errors(latent)[:, :2].mean(axis=0) for latent in latents]
  errors_text = "; ".join(
    f"{name} {right:.3f} and {down:.3f}"
    for name, (right, down) in zip("AB", right_down, strict=False)
  )
  seeds = " and ".join(
    f"{name} is {row.name}" + f", seed {_seed(row, latent)}" * row.trained
    for name, row, latent in zip("AB", drawn, latents, strict=False)
  )
  which = "A is preferred by the published metrics, B by the exam"
  return [
    "## An example to look at",
    f"![Six pairs of pictures with the true move and the moves read from two latents]({path.name})",
    f"Six of the {len(exam.set.rows(exam_set.TEST)):,} test pairs, from cameras and scenes that "
    f"no probe was fitted on, drawn at random (seed {picture.SEED}; pairs "
    f"{', '.join(str(move.pair) for move in moves)}), not chosen. {seeds}. "
    f"{which if disagree else 'No disagreement of these two is shown'}. Arrows begin at the hand "
    "and show its move in the picture, right and down: the true one, and what kernel ridge, "
    "fitted on the fit part, reads from either latent. A ring is a move too short to draw. The "
    "squares in the pictures are the cut beside them. Over all test pairs the squared error "
    f"right and down, in units of the variance: {errors_text}. Six pairs show what an error looks "
    "like; how large it is, the table says.",
  ]


def closing(found: Found) -> str:
  """Formats the last part: the limits of the result."""
  single = [row.name for row in found.rows if row.trained and len(row.runs) == 1]
  lines = [
    "LP-MSE and S-PCFC are of demonstrations, the exam's error is of other pictures and moves: a "
    "disagreement shows that one of the two cannot stand for the other, not which is right about "
    "a use that was not tried.",
    "The rows are the project's own, no sample of all latents: the ranks are of these rows.",
  ]
  if single:
    lines.append(
      "One seed each, so what is said of differences between them is about these trained models "
      f"and not about recipes: {'; '.join(single)}. Errors of single windows are not stored, so "
      "the standard error of a difference in LP-MSE between two of them is an upper bound."
    )
  if found.left:
    lines.append(f"Left out: {'; '.join(found.left)}.")
  return "## What it shows not\n\n" + "\n".join(f"* {line}" for line in lines)


def _seed(row: Row, latent: Measured) -> int:
  return next(seed for seed, run in row.runs.items() if run is latent)


def _folders(options: argparse.Namespace) -> list[pathlib.Path]:
  """The folders of --runs, and those of --pair if they are folders."""
  paths = [
    *options.runs,
    *(path for name in options.pair or () if (path := pathlib.Path(name)).is_dir()),
  ]
  return list(dict.fromkeys(path.absolute() for path in paths))


def _row(rows: Sequence[Row], name: str) -> Row:
  """The row with a name, or of a folder."""
  target = named(pathlib.Path(name).absolute())[0] if pathlib.Path(name).is_dir() else name
  for row in rows:
    if target in (row.name, row.name.removesuffix(" (no training)")):
      return row
  raise errors.UserError(
    f"--pair {name!r}: no such row: {errors.nearest(target, [row.name for row in rows])}"
  )


def _drawable(row: Row) -> Measured:
  """The run with the lowest seed that has the exam's latents."""
  for run in row.runs.values():
    if run.has_latents:
      return run
  raise errors.UserError(
    f"{row.name}: none of its runs has exam/latents.npz: expected one of "
    f"{', '.join(str(seed) for seed in row.runs)}"
  )


if __name__ == "__main__":
  main()
