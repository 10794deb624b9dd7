"""The exam as a picture: how much motion a latent tells, against how much appearance can be read
from it.
"""

import numpy as np
from matplotlib.transforms import Bbox

from como_jax.report import plots
from como_jax.report.data import Exam

KINDS = {
  "model": ("this model", 2, "o"),
  "baseline": ("no training", 0, "s"),
  "control": ("labels", 4, "D"),
  "cheat": ("no motion", 1, "X"),
}
LOWEST, HIGHEST = -2.0, 1.5  # of S on the plot; the label of a point outside says its value
# cheats so close to a labeled point have no label of their own: the other panel names them all
NEAR = 0.08
FLAG = 0.1  # excess above which appearance counts as readable, as in the exam


@plots.themed
def axes(data: Exam, theme: plots.Theme) -> bytes:
  """Two panels: S against the best-read class of appearance, both with 95 % intervals; and the
  error of every row, sorted.
  """
  figure, (left, right) = plots.panels(2, columns=2, row=4.6)
  # S, appearance, name, whether it is the model that was asked about
  labeled: list[tuple[float, float, str, bool]] = []
  for row in data.rows:
    _, color, marker = KINDS[row.kind]
    color = theme.colors[color]
    if row.score and row.leak:
      (s, low, high), (leak, under, over) = row.score, row.leak
      shown, name = (
        float(np.clip(s, LOWEST, HIGHEST)),
        row.name if LOWEST <= s <= HIGHEST else f"{row.name} (S {s:.2f})",
      )
      left.errorbar(
        shown,
        leak,
        xerr=[[max(0, s - low)], [max(0, high - s)]],
        yerr=[[max(0, leak - under)], [max(0, over - leak)]],
        fmt=marker,
        color=color,
        markersize=8 if row.kind == "model" else 6,
        elinewidth=0.8,
        zorder=3 if row.kind == "model" else 2,
      )
      if row.kind != "cheat" or all(np.hypot(shown - x, leak - y) > NEAR for x, y, *_ in labeled):
        labeled.append((shown, leak, name, row.kind == "model"))
  left.axhline(FLAG, color=theme.faint, linestyle="--")
  left.axvline(0, color=theme.faint, linestyle="--")
  left.set(
    xlabel="S: 0 as one picture, 1 as both",
    ylabel="appearance read from z: 0 chance, 1 always",
    title="Motion and appearance",
  )
  named = {KINDS[row.kind][0]: KINDS[row.kind] for row in data.rows}
  handles = [
    left.plot([], [], linestyle="", marker=marker, color=theme.colors[color], label=name)[0]
    for name, (_, color, marker) in named.items()
  ]
  left.legend(handles=handles, loc="upper right")
  left.set_xlim(right=max(HIGHEST, left.get_xlim()[1]))
  ranked = sorted((row for row in data.rows if row.error), key=lambda row: -row.error[0])
  for place, row in enumerate(ranked):
    value, low, high = row.error
    right.errorbar(
      value,
      place,
      xerr=[[value - low], [high - value]],
      fmt=KINDS[row.kind][2],
      color=theme.colors[KINDS[row.kind][1]],
      elinewidth=1,
    )
  right.set_yticks(range(len(ranked)), [row.name for row in ranked], fontsize=8)
  for value, name, side in (
    (data.single, "one picture", "left"),
    (data.both, "both, labels", "right"),
  ):
    if value is not None:
      right.axvline(value, color=theme.ink, linewidth=0.8, linestyle=":")
      right.annotate(
        name,
        (value, len(ranked) - 0.4),
        fontsize=7.5,
        ha=side,
        color=theme.ink,
        annotation_clip=False,
      )
  right.set(
    xlabel="error of the move (1 = nothing known)", title="Error in unseen scenes and cameras\n"
  )
  _name_points(figure, left, labeled, theme)
  return plots.png(figure)


def _name_points(
  figure, axis, points: list[tuple[float, float, str, bool]], theme: plots.Theme
) -> None:
  """Writes each point's name beside it, where there is room; the model's first."""
  figure.draw_without_rendering()  # places are known from here
  taken = [axis.get_legend().get_window_extent()]
  taken += [
    Bbox.from_bounds(*(axis.transData.transform((x, y)) - 5), 10, 10) for x, y, *_ in points
  ]
  for x, y, name, _ in sorted(points, key=lambda point: not point[3]):
    tried = []
    for away in (6, 14, 24, 36):
      for right, up in ((1, 1), (-1, -1), (1, -1), (-1, 1)):
        label = axis.annotate(
          name,
          (x, y),
          xytext=(right * 6, up * away),
          textcoords="offset points",
          fontsize=7.5,
          color=theme.ink,
          ha="left" if right > 0 else "right",
          va="bottom" if up > 0 else "top",
        )
        box = label.get_window_extent()
        tried.append(
          (
            sum(box.overlaps(other) for other in taken) + 10 * (not _inside(box, axis.bbox)),
            len(tried),
            label,
            box,
          )
        )
        label.set_visible(False)
    _, _, label, box = min(tried)
    label.set_visible(True)
    taken.append(box)


def _inside(box: Bbox, outer: Bbox) -> bool:
  return outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1
