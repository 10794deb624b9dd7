"""The exam as a picture: how much motion a latent tells, against how much appearance can be read from it."""

import numpy as np

from como_jax.report import plots
from como_jax.report.data import Exam

KINDS = {"model": ("this model", 2, "o"), "baseline": ("no training", 0, "s"), "control": ("labels", 4, "D"), "cheat": ("no motion", 1, "X")}
LOWEST, HIGHEST = -2.0, 1.3  # of S on the plot; the label of a point outside says its value
NEAR = 0.08  # cheats so close to a labeled point have no label of their own: the other panel names them all
FLAG = 0.1  # excess above which appearance counts as readable, as in the exam


@plots.themed
def axes(data: Exam, theme: plots.Theme) -> bytes:
  """Two panels: S against the best-read class of appearance, both with 95 % intervals; and the error of every row, sorted."""
  figure, (left, right) = plots.panels(2, columns=2, row=4.6)
  labeled: list[tuple[float, float]] = []
  for row in data.rows:
    _, color, marker = KINDS[row.kind]
    color = theme.colours[color]
    if row.score and row.leak:
      (s, low, high), (leak, under, over) = row.score, row.leak
      shown, name = float(np.clip(s, LOWEST, HIGHEST)), row.name if LOWEST <= s <= HIGHEST else f"{row.name} (S {s:.2f})"
      left.errorbar(shown, leak, xerr=[[max(0, s - low)], [max(0, high - s)]], yerr=[[max(0, leak - under)], [max(0, over - leak)]],
                    fmt=marker, color=color, markersize=8 if row.kind == "model" else 6, elinewidth=0.8, zorder=3 if row.kind == "model" else 2)
      if row.kind != "cheat" or all(np.hypot(shown - x, leak - y) > NEAR for x, y in labeled):
        labeled.append((shown, leak))
        below = row.kind == "model"
        left.annotate(name, (shown, leak), xytext=(-7, -8) if below or shown > 1 else (6, 5), textcoords="offset points", fontsize=7.5,
                      color=theme.ink, ha="right" if below or shown > 1 else "left", va="top" if below or shown > 1 else "bottom")
  left.axhline(FLAG, color=theme.faint, linestyle="--")
  left.axvline(0, color=theme.faint, linestyle="--")
  left.set(xlabel="S: 0 as one picture, 1 as both", ylabel="appearance read from z: 0 chance, 1 always", title="Motion and appearance")
  named = {KINDS[row.kind][0]: KINDS[row.kind] for row in data.rows}
  handles = [left.plot([], [], linestyle="", marker=marker, color=theme.colours[color], label=name)[0] for name, (_, color, marker) in named.items()]
  left.legend(handles=handles, loc="best")
  ranked = sorted((row for row in data.rows if row.error), key=lambda row: -row.error[0])
  for place, row in enumerate(ranked):
    value, low, high = row.error
    right.errorbar(value, place, xerr=[[value - low], [high - value]], fmt=KINDS[row.kind][2], color=theme.colours[KINDS[row.kind][1]], elinewidth=1)
  right.set_yticks(range(len(ranked)), [row.name for row in ranked], fontsize=8)
  for value, name, side in ((data.single, "one picture", "left"), (data.both, "both, labels", "right")):
    if value is not None:
      right.axvline(value, color=theme.ink, linewidth=0.8, linestyle=":")
      right.annotate(name, (value, len(ranked) - 0.4), fontsize=7.5, ha=side, color=theme.ink, annotation_clip=False)
  right.set(xlabel="error of the move (1 = nothing known)", title="Error in unseen scenes and cameras\n")
  return plots.png(figure)
