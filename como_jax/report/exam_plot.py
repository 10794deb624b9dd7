"""Plots the exam: how well z predicts motion, against how well it predicts appearance."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from como_jax.report import themes
from como_jax.report.data import Exam

Point = tuple[float, float, str, bool]  # S, appearance, name, whether it is the model

KINDS = {
  "model": ("this model", 2, "o"),
  "baseline": ("no training", 0, "s"),
  "control": ("labels", 4, "D"),
  "cheat": ("no motion", 1, "X"),
}
LOWEST, HIGHEST = -2.0, 1.5  # range of S on the plot; labels of points outside hold their value
# A cheat that is closer than this to a labeled point has no label; the other panel names all rows.
NEAR = 0.08
FLAG = 0.1  # excess above which appearance counts as readable, as in the exam


@themes.themed
def axes(data: Exam, theme: themes.Theme) -> bytes:
  """Draws two panels.

  The left panel has S against the label of appearance that z predicts best, both with 95 %
  intervals. The right panel has the errors of all rows, sorted.
  """
  figure, (left, right) = themes.panels(2, columns=2, row=4.6)
  labeled = _motion_and_appearance(left, data, theme)
  _errors(right, data, theme)
  _name_points(figure, left, labeled, theme)
  return themes.png(figure)


def _motion_and_appearance(axis: Axes, data: Exam, theme: themes.Theme) -> list[Point]:
  """Draws S against appearance; returns the points that get a label."""
  labeled: list[Point] = []
  for row in data.rows:
    _, color, marker = KINDS[row.kind]
    if row.score and row.leak:
      (s, low, high), (leak, leak_low, leak_high) = row.score, row.leak
      clipped_s, name = (
        float(np.clip(s, LOWEST, HIGHEST)),
        row.name if LOWEST <= s <= HIGHEST else f"{row.name} (S {s:.2f})",
      )
      axis.errorbar(
        clipped_s,
        leak,
        xerr=[[max(0, s - low)], [max(0, high - s)]],
        yerr=[[max(0, leak - leak_low)], [max(0, leak_high - leak)]],
        fmt=marker,
        color=theme.colors[color],
        markersize=8 if row.kind == "model" else 6,
        elinewidth=0.8,
        zorder=3 if row.kind == "model" else 2,
      )
      if row.kind != "cheat" or all(
        np.hypot(clipped_s - x, leak - y) > NEAR for x, y, *_ in labeled
      ):
        labeled.append((clipped_s, leak, name, row.kind == "model"))
  axis.axhline(FLAG, color=theme.faint, linestyle="--")
  axis.axvline(0, color=theme.faint, linestyle="--")
  axis.set(
    xlabel="S: 0 as one picture, 1 as both",
    ylabel="appearance read from z: 0 chance, 1 always",
    title="Motion and appearance",
  )
  named = {KINDS[row.kind][0]: KINDS[row.kind] for row in data.rows}
  handles = [
    axis.plot([], [], linestyle="", marker=marker, color=theme.colors[color], label=name)[0]
    for name, (_, color, marker) in named.items()
  ]
  axis.legend(handles=handles, loc="upper right")
  axis.set_xlim(right=max(HIGHEST, axis.get_xlim()[1]))
  return labeled


def _errors(axis: Axes, data: Exam, theme: themes.Theme) -> None:
  """Draws the errors of all rows, the largest at the bottom."""
  ranked = sorted(
    ((row, row.error) for row in data.rows if row.error), key=lambda pair: -pair[1][0]
  )
  for index, (row, (value, low, high)) in enumerate(ranked):
    axis.errorbar(
      value,
      index,
      xerr=[[value - low], [high - value]],
      fmt=KINDS[row.kind][2],
      color=theme.colors[KINDS[row.kind][1]],
      elinewidth=1,
    )
  axis.set_yticks(range(len(ranked)), [row.name for row, _ in ranked], fontsize=8)
  for value, name, side in (
    (data.single, "one picture", "left"),
    (data.both, "both, labels", "right"),
  ):
    if value is not None:
      axis.axvline(value, color=theme.ink, linewidth=0.8, linestyle=":")
      axis.annotate(
        name,
        (value, len(ranked) - 0.4),
        fontsize=7.5,
        ha=side,
        color=theme.ink,
        annotation_clip=False,
      )
  axis.set(
    xlabel="error of the move (1 = nothing known)", title="Error in unseen scenes and cameras\n"
  )


def _name_points(figure: Figure, axis: Axes, points: list[Point], theme: themes.Theme) -> None:
  """Writes the name of each point next to it where there is space, first that of the model."""
  figure.draw_without_rendering()  # computes the layout
  legend = axis.get_legend()
  occupied = [legend.get_window_extent()] if legend else []
  occupied += [_marker_box(axis, x, y) for x, y, *_ in points]
  for x, y, name, _ in sorted(points, key=lambda point: not point[3]):
    candidates = []
    for distance in (6, 14, 24, 36):
      for right, up in ((1, 1), (-1, -1), (1, -1), (-1, 1)):
        label = axis.annotate(
          name,
          (x, y),
          xytext=(right * 6, up * distance),
          textcoords="offset points",
          fontsize=7.5,
          color=theme.ink,
          ha="left" if right > 0 else "right",
          va="bottom" if up > 0 else "top",
        )
        box = label.get_window_extent()
        candidates.append(
          (
            sum(box.overlaps(other) for other in occupied) + 10 * (not _inside(box, axis.bbox)),
            len(candidates),
            label,
            box,
          )
        )
        label.set_visible(False)
    _, _, label, box = min(candidates)
    label.set_visible(True)
    occupied.append(box)


def _marker_box(axis: Axes, x: float, y: float) -> Bbox:
  """The 10 x 10 pixels around a point."""
  left, bottom = axis.transData.transform((x, y)) - 5
  return Bbox.from_bounds(left, bottom, 10, 10)


def _inside(box: Bbox, outer: Bbox) -> bool:
  return outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1
