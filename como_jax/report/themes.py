"""The light and the dark theme of the plots, and figures with panels.

The colors are those of Okabe and Ito, which color-blind readers can distinguish.
"""

import contextvars
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

# Within `in_all_themes`: the figure that is laid out, once there is one.
_LAID_OUT: contextvars.ContextVar[list[Figure] | None] = contextvars.ContextVar(
  "_LAID_OUT", default=None
)


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


def in_all_themes(draw: Callable[[Theme], bytes]) -> tuple[bytes, ...]:
  """A figure in each of `THEMES`, laid out once, which takes as long as to draw it.

  Args:
    draw: theme -> PNG of one figure, the same but for its colors.
  """
  token = _LAID_OUT.set([])
  try:
    return tuple(draw(theme) for theme in THEMES)
  finally:
    _LAID_OUT.reset(token)


def png(figure: Figure) -> bytes:
  """Lays a figure out and encodes it as PNG."""
  backend_agg.FigureCanvasAgg(figure)
  figure.dpi = DPI
  _lay_out(figure)
  stream = io.BytesIO()
  figure.savefig(stream, format="png", dpi=DPI)
  return stream.getvalue()


def _lay_out(figure: Figure) -> None:
  """Places the axes, as those of the figure in the theme before where there is one."""
  engine, laid_out = figure.get_layout_engine(), _LAID_OUT.get()
  if laid_out:
    for axis, placed in zip(figure.axes, laid_out[0].axes, strict=True):
      axis.set_position(placed.get_position(original=True))
      # of color bars
      axis.set(
        aspect=placed.get_aspect(), anchor=placed.get_anchor(), box_aspect=placed.get_box_aspect()
      )
  elif engine is not None:
    engine.execute(figure)
  # with an engine, `savefig` would draw twice: once for the layout alone
  figure.set_layout_engine(None)
  if laid_out is not None:
    laid_out[:] = [figure]


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
