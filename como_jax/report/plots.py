"""The plots of a report as PNG bytes."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from como_jax.report.data import Curve, Goodput, Projection, Rollouts, Scatter, Similarity
from como_jax.report.themes import WIDTH, Theme, panels, png, themed

MAX_POINTS = 2000  # maximum number of points of a scatter plot; more would only overlap


@themed
def curves(data: Mapping[str, Curve], theme: Theme, *, log: Sequence[str] | None = None) -> bytes:
  """Training curves, raw (faint) and smoothed, with validation as markers.

  There is one panel for each name, without "train/" or "validation/".

  Args:
    data: name -> curve.
    theme: the theme.
    log: names of panels with a logarithmic axis; None: by the range of the values.
  """
  named: dict[str, dict[str, Curve]] = {}
  for name, curve in data.items():
    named.setdefault(base(name), {})[
      "validation" if name.startswith("validation/") else "train"
    ] = curve
  figure, axes = panels(len(named), columns=2 if len(named) in (2, 4) else 3)
  for axis, (name, parts) in zip(axes, named.items(), strict=False):
    _curve_panel(axis, name, parts, theme, log=log)
    if len(named) == 1 or "validation" in parts:
      axis.legend()
  return png(figure)


def _curve_panel(
  axis: Axes, name: str, parts: Mapping[str, Curve], theme: Theme, *, log: Sequence[str] | None
) -> None:
  """Draws the training and the validation curve of one name."""
  logarithmic = _set_scale(axis, parts, None if log is None else name in log)
  if "train" in parts:
    steps, values = (np.asarray(part, np.float64) for part in parts["train"])
    smoothed = smooth(values)
    axis.plot(
      steps,
      values,
      color=theme.colors[0],
      alpha=0.28,
      linewidth=0.9,
      marker="o" if len(values) == 1 else None,
    )
    axis.plot(steps, smoothed, color=theme.colors[0], linewidth=2, label="training, smoothed")
  if "validation" in parts:
    axis.plot(
      *parts["validation"],
      color=theme.colors[1],
      marker="o",
      markersize=5,
      linewidth=1,
      linestyle=":",
      label="validation",
    )
  axis.set(title=name, xlabel="step", ylabel="value (log scale)" if logarithmic else "value")
  axis.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))


def _set_scale(axis: Axes, parts: Mapping[str, Curve], log: bool | None) -> bool:
  """Sets the scale of the values; returns whether it is logarithmic.

  Args:
    axis: the panel.
    parts: its curves.
    log: whether a logarithmic axis is asked for; None: by the range of the values.
  """
  all_values = np.concatenate([np.asarray(values, np.float64) for _, values in parts.values()])
  all_values = all_values[np.isfinite(all_values)]
  wide_range = len(all_values) and all_values.min() > 0 and all_values.max() > 20 * all_values.min()
  logarithmic = bool(
    wide_range if log is None else log and len(all_values) and all_values.min() > 0
  )
  if logarithmic:
    axis.set_yscale("log")
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())
    # With two decades or less, powers of ten alone would give too few ticks.
    if all_values.max() < 200 * all_values.min():
      axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
      axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
  else:
    axis.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
  return logarithmic


@themed
def s_pcfc(data: Mapping[str, np.ndarray], theme: Theme) -> bytes:
  """Histograms of the cosines between past-to-current and future-to-current motions."""
  figure, (axis,) = panels(1, columns=1, row=3.4)
  edges = np.linspace(-1, 1, 61).tolist()
  for i, (name, values) in enumerate(data.items()):
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
      continue
    color = theme.colors[i % len(theme.colors)]
    weights = np.full(len(values), 100.0 / len(values))
    axis.hist(values, bins=edges, weights=weights, color=color, alpha=0.35)
    axis.hist(
      values,
      bins=edges,
      weights=weights,
      color=color,
      histtype="step",
      linewidth=1.6,
      label=f"{name}: mean {values.mean():.3f}",
    )
    axis.axvline(values.mean(), color=color, linewidth=1.6, linestyle="--")
  axis.set(xlabel="cosine of z(t−n → t) and z(t+n → t)", ylabel="pairs [%]", xlim=(-1.02, 1.02))
  axis.legend(loc="upper left")
  return png(figure)


@themed
def probes(data: Mapping[str, Scatter], theme: Theme) -> bytes:
  """True against predicted value of each target dimension."""
  figure, axes = panels(len(data), columns=4 if len(data) > 3 else 3, square=True)
  for axis, (name, scatter) in zip(axes, data.items(), strict=False):
    true, predicted = _subsample(
      np.asarray(scatter.true, np.float64), np.asarray(scatter.predicted, np.float64)
    )
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    pad = 0.05 * (high - low) or 1.0
    axis.plot(
      [low - pad, high + pad],
      [low - pad, high + pad],
      color=theme.ink,
      linewidth=1,
      linestyle="--",
      alpha=0.7,
    )
    axis.scatter(true, predicted, s=9, alpha=0.4, color=theme.colors[0], linewidths=0)
    unit = f" [{scatter.unit}]" if scatter.unit else ""
    axis.set(
      title=f"{name}   R² = {scatter.r2:.2f}",
      xlabel=f"true{unit}",
      ylabel=f"predicted{unit}",
      xlim=(low - pad, high + pad),
      ylim=(low - pad, high + pad),
      aspect="equal",
    )
    for side in (axis.xaxis, axis.yaxis):
      side.set_major_locator(ticker.MaxNLocator(4))
  return png(figure)


@themed
def pca(data: Projection, theme: Theme) -> bytes:
  """Scatter plots of z on its two main axes, one for each quantity that colors it."""
  colors = dict(data.colors) or {"": None}
  figure, axes = panels(len(colors), columns=2 if len(colors) in (2, 4) else 3)
  points = np.asarray(data.points, np.float64)
  share = [f" ({100 * value:.0f} % of variance)" for value in data.explained] or ["", ""]
  for axis, (name, values) in zip(axes, colors.items(), strict=False):
    if values is None:
      x, y = _subsample(points[:, 0], points[:, 1])
      axis.scatter(x, y, s=9, alpha=0.6, color=theme.colors[0], linewidths=0)
    else:
      x, y, color_values = _subsample(points[:, 0], points[:, 1], np.asarray(values, np.float64))
      low, high = np.nanquantile(color_values, (0.02, 0.98))
      drawn = axis.scatter(
        x, y, c=color_values, s=9, alpha=0.8, cmap="viridis", vmin=low, vmax=high, linewidths=0
      )
      bar = figure.colorbar(drawn, ax=axis, pad=0.02, extend="both")
      bar.outline.set_visible(False)
      bar.ax.yaxis.set_major_locator(ticker.MaxNLocator(4))
    axis.set(title=name, xlabel="first axis" + share[0], ylabel="second axis" + share[1])
  return png(figure)


@themed
def similarity(data: Similarity, theme: Theme) -> bytes:
  """Heat map of the mean cosine similarity between groups, with numbers if there is space."""
  values, count = np.asarray(data.values, np.float64), len(data.labels)
  side = float(np.clip(2.6 + 0.42 * count, 4.2, WIDTH))
  figure = Figure(figsize=(side + 1.0, side), layout="constrained")
  axis = figure.add_subplot()
  limit = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
  drawn = axis.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit)
  labels = [textwrap.shorten(str(label), 28, placeholder="…") for label in data.labels]
  axis.set_xticks(range(count), labels, rotation=45, ha="right", rotation_mode="anchor")
  axis.set_yticks(range(count), labels)
  axis.grid(False)
  axis.tick_params(length=0)
  for spine in axis.spines.values():
    spine.set_visible(False)
  if count <= 14:
    for i, j in np.ndindex(count, count):
      if np.isfinite(values[i, j]):
        axis.text(
          j,
          i,
          f"{values[i, j]:z.2f}",
          ha="center",
          va="center",
          fontsize=9 if count <= 9 else 7.5,
          color="white" if abs(values[i, j]) > 0.6 * limit else "#1f2430",
        )
  bar = figure.colorbar(drawn, ax=axis, shrink=0.8, pad=0.02, label="mean cosine similarity")
  bar.outline.set_visible(False)
  return png(figure)


@themed
def success(data: Rollouts, theme: Theme) -> bytes:
  """Success rate of each task with its interval, one line per task."""
  figure = Figure(figsize=(WIDTH * 0.75, 0.9 + 0.34 * len(data.rates)), layout="constrained")
  axes = figure.add_subplot()
  rows = np.arange(len(data.rates))[::-1]
  values = np.array(list(data.rates.values()), np.float64) * 100
  axes.hlines(rows, values[:, 1], values[:, 2], color=theme.colors[0], linewidth=3, alpha=0.45)
  axes.plot(values[:, 0], rows, "o", color=theme.colors[0], markersize=7)
  for row, (rate, _, high) in zip(rows, values, strict=True):
    axes.annotate(
      f"{rate:.0f} %",
      (high, row),
      xytext=(8, 0),
      textcoords="offset points",
      va="center",
      fontsize=9,
    )
  axes.set_yticks(rows, list(data.rates))
  axes.set_ylim(-0.6, len(rows) - 0.4)
  axes.set_xlim(-2, 112)
  axes.set_xticks(range(0, 101, 20))
  axes.set_xlabel(f"success, % of {data.episodes} episodes a task (bar: 95 % interval)")
  axes.grid(visible=False, axis="y")
  return png(figure)


@themed
def goodput(data: Goodput, theme: Theme) -> bytes:
  """One bar of the run's time, divided into its categories."""
  figure = Figure(figsize=(WIDTH, 1.9), layout="constrained")
  axes = figure.add_subplot()
  wall, left = data.wall or 1.0, 0.0
  count = len(theme.colors)
  for i, (name, seconds) in enumerate(data.seconds.items()):
    share = 100 * seconds / wall
    axes.barh(
      0,
      share,
      left=left,
      color=theme.colors[i % count],
      hatch="///" if i >= count else None,  # the colors come again
      edgecolor=theme.back,
      linewidth=0,
      label=f"{name.replace('_', ' ')} {share:.1f} %",
    )
    left += share
  axes.set(xlim=(0, 100), yticks=[], xlabel="share of the time [%]")
  axes.grid(visible=False)
  figure.legend(loc="outside upper center", ncols=4, fontsize=8)
  return png(figure)


def base(name: str) -> str:
  """The panel of a curve: its name without "train/" or "validation/"."""
  return name.removeprefix("validation/").removeprefix("train/")


def smooth(values: np.ndarray) -> np.ndarray:
  """Smooths a curve with a centered Gaussian window, whose width is 1/50 of the curve.

  A centered window does not lag. Values that are not finite are skipped.
  """
  finite = np.isfinite(values)
  width = max(1.0, len(values) / 50)
  half = int(np.ceil(3 * width))
  taps = np.exp(-0.5 * (np.arange(-half, half + 1) / width) ** 2)
  inner = slice(half, half + len(values))
  total, weight = (
    np.convolve(part, taps)[inner]
    for part in (np.where(finite, values, 0.0), finite.astype(np.float64))
  )
  return np.divide(total, weight, out=np.full(len(values), np.nan), where=weight > 1e-9)


def _subsample(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
  """At most MAX_POINTS rows, chosen at random with a fixed seed."""
  if len(columns[0]) <= MAX_POINTS:
    return columns
  chosen = np.random.default_rng(0).permutation(len(columns[0]))[:MAX_POINTS]
  return tuple(column[chosen] for column in columns)
