"""The light and the dark theme of the plots, and figures with panels.

The colors are those of Okabe and Ito, which color-blind readers can distinguish.
"""

import dataclasses
import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends import backend_agg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

if TYPE_CHECKING:
  from matplotlib.typing import RcKeyType  # not in every version

Data = TypeVar("Data")
Options = ParamSpec("Options")

WIDTH, ROW, DPI = 9.6, 2.9, 120  # inches, inches, dots per inch


@dataclasses.dataclass(frozen=True)
class Theme:
  """Colors of the background, the text and the plots."""

  name: str
  back: str
  ink: str
  faint: str
  colors: tuple[str, ...]


LIGHT = Theme(
  "light",
  "#ffffff",
  "#1f2430",
  "#d9dde5",
  ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
)
DARK = Theme(
  "dark",
  "#1a1d24",
  "#e4e7ee",
  "#3a404c",
  ("#56B4E9", "#E69F00", "#29C49A", "#E294BF", "#F0E442", "#4C9BE8"),
)
THEMES = (LIGHT, DARK)


def themed(
  draw: Callable[Concatenate[Data, Theme, Options], bytes],
) -> Callable[Concatenate[Data, Theme, Options], bytes]:
  """Decorator that draws with the settings of the theme.

  Matplotlib reads these settings when a title or a legend is created, not when the figure is.
  """

  @functools.wraps(draw)
  def drawn(data: Data, theme: Theme, *args: Options.args, **kwargs: Options.kwargs) -> bytes:
    with matplotlib.rc_context(_style(theme)):
      return draw(data, theme, *args, **kwargs)

  return drawn


def panels(
  count: int, *, columns: int, row: float = ROW, square: bool = False
) -> tuple[Figure, list[Axes]]:
  """A figure with panels whose size does not depend on their number.

  Args:
    count: number of panels.
    columns: maximum number of panels in a row.
    row: height of a row in inches.
    square: makes panels square instead.
  """
  used = min(count, columns)
  rows = -(-count // columns)
  width = WIDTH if used == columns else WIDTH * used / columns
  figure = Figure(
    figsize=(width, rows * (WIDTH / columns * 1.08 if square else row)),
    layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.05),
  )
  axes = [figure.add_subplot(rows, used, i + 1) for i in range(count)]
  return figure, axes


def png(figure: Figure) -> bytes:
  """Encodes a figure as PNG."""
  backend_agg.FigureCanvasAgg(figure)
  stream = io.BytesIO()
  figure.savefig(stream, format="png", dpi=DPI)
  return stream.getvalue()


def _style(theme: Theme) -> "dict[RcKeyType, Any]":
  return {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.facecolor": theme.back,
    "axes.facecolor": theme.back,
    "savefig.facecolor": theme.back,
    "text.color": theme.ink,
    "axes.labelcolor": theme.ink,
    "axes.titlecolor": theme.ink,
    "xtick.color": theme.ink,
    "ytick.color": theme.ink,
    "axes.edgecolor": theme.faint,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": theme.faint,
    "grid.linewidth": 0.7,
    "legend.labelcolor": theme.ink,
  }
