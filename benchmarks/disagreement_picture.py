"""A figure of six pairs of pictures with the moves that are read from two latents.

Legend: V views of three pictures, P = 2V pairs, A dimensions of the target, of which the first two
are the move right and down in widths of the picture.
"""

import dataclasses
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from disagreement_exam import Exam
from disagreement_rows import Measured
from matplotlib import patheffects
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image

from como_jax import errors
from como_jax.exam import exam_set
from como_jax.inference import exam_pictures
from como_jax.report import themes

PAIRS, SEED = 6, 2026  # drawn at random; the seed was chosen before any picture was made
CLOSE = 0.085  # fraction of a width: minimum half side of the crop around the hand
# points: side of a panel, and the length below which a move is drawn as a ring
PANEL, SHORT = 106, 5
MAX_BYTES = 380_000  # of the PNG; a larger one gets a palette of 256 colors
TRUTH, FIRST, SECOND = (
  "#000000",
  themes.LIGHT.colors[4],
  themes.LIGHT.colors[0],
)  # black, orange, blue; also distinguishable in gray
# points: the last arrow is the thinnest, so that overlapping arrows are all visible
WIDTHS = (4.6, 3.0, 1.6)


@dataclasses.dataclass(frozen=True)
class Move:
  """One pair of the exam.

  Attributes:
    pair: index of the pair.
    pictures: both pictures, uint8 [H, W, 3].
    places: [2, 2], image position of the hand in both, in widths from the center.
    true: [2], the true move, in widths.
    read: [2] each, the moves that are read from the two latents.
  """

  pair: int
  pictures: tuple[np.ndarray, np.ndarray]
  places: np.ndarray
  true: np.ndarray
  read: tuple[np.ndarray, np.ndarray]


def moves(exam: Exam, latents: tuple[Measured, Measured]) -> list[Move]:
  """Draws six pairs of the test (unseen cameras and scenes) at random.

  Raises:
    errors.UserError: the set does not contain the hand's image position.
  """
  with np.load(exam.folder / exam_set.TABLE) as file:
    if "place" not in file.files:
      raise errors.UserError(
        f"{exam.folder / exam_set.TABLE}: array 'place' is missing: expected the hand's place [V, "
        f"3, 2] in widths of the picture; {errors.nearest('place', file.files)}"
      )
    places = file["place"]
  pairs = np.sort(
    np.random.default_rng(SEED).choice(exam.set.rows(exam_set.TEST), PAIRS, replace=False)
  )
  read = [exam.probe(latent).predict(exam.latents(latent)[pairs])[:, :2] for latent in latents]
  frames = exam_pictures.frames(exam.folder, 0)
  result = []
  for i, pair in enumerate(pairs):
    view, begin = divmod(int(pair), 2)
    result.append(
      Move(
        int(pair),
        (frames[view, begin], frames[view, begin + 1]),
        places[view, begin : begin + 2],
        exam.set.target[pair, :2],
        (read[0][i], read[1][i]),
      )
    )
  return result


def draw(pairs: Sequence[Move], names: tuple[str, str], path: pathlib.Path) -> None:
  """Writes the PNG.

  It shows, for each pair, both pictures with the position of the hand, and a crop of the first
  picture around the hand with the three arrows.

  Args:
    pairs: to draw.
    names: legend of the two latents.
    path: of the PNG.
  """
  path.write_bytes(_compress(_draw(pairs, themes.LIGHT, names=names)))


@themes.themed
def _draw(pairs: Sequence[Move], theme: themes.Theme, *, names: tuple[str, str]) -> bytes:
  figure, axes = themes.panels(3 * len(pairs), columns=6, row=1.86)
  for i, pair in enumerate(pairs):
    height, width = pair.pictures[0].shape[:2]
    begin, end = 0.5 * np.array([width, height]) + pair.places * width
    ends = [begin + width * move for move in (pair.true, *pair.read)]
    center, half = _crop(np.array([begin, *ends]), CLOSE * width)
    for axis, picture, title in zip(
      axes[3 * i : 3 * i + 3],
      (0, 1, 0),
      (f"{i + 1}: first picture", "second picture", "first, at the hand"),
      strict=False,
    ):
      axis.imshow(pair.pictures[picture], extent=(0, width, height, 0), interpolation="nearest")
      axis.set(xticks=[], yticks=[])
      axis.grid(False)
      axis.set_title(title, fontsize=9, fontweight="normal")
    for axis, place in zip(axes[3 * i : 3 * i + 2], (begin, end), strict=False):
      axis.add_patch(
        Rectangle(center - half, 2 * half, 2 * half, fill=False, edgecolor="white", linewidth=1.0)
      )
      axis.plot(*place, "o", color="white", markeredgecolor="black", markersize=4)
    close = axes[3 * i + 2]
    close.set(
      xlim=(center[0] - half, center[0] + half),
      ylim=(center[1] + half, center[1] - half),
      facecolor=theme.faint,
    )
    for tip, color, line in zip(ends, (TRUTH, FIRST, SECOND), WIDTHS, strict=False):
      _arrow(close, begin, tip, color, line)
    close.plot(*begin, "o", color="white", markeredgecolor="black", markersize=5, zorder=5)
  handles = [
    Line2D(
      [], [], color=color, linewidth=line, marker=">", markevery=[1], markersize=9, label=label
    )
    for color, line, label in zip(
      (TRUTH, FIRST, SECOND), WIDTHS, ("true move", *names), strict=False
    )
  ]
  handles.insert(
    0,
    Line2D(
      [],
      [],
      linestyle="",
      marker="o",
      color="white",
      markeredgecolor="black",
      markersize=5,
      label="hand",
    ),
  )
  figure.legend(
    handles=handles, loc="outside lower center", ncols=2 if sum(map(len, names)) > 60 else 4
  )
  return themes.png(figure)


def _arrow(axis, begin: np.ndarray, end: np.ndarray, color: str, line: float) -> None:
  """Draws an arrow with a white edge, which is visible on any picture.

  A move that is too short for an arrow's head is drawn as a ring.
  """
  length = PANEL * np.linalg.norm(end - begin) / abs(np.ptp(axis.get_xlim()))
  if length < SHORT:
    axis.plot(*begin, "o", color=color, markersize=6 + 2 * line, zorder=4, path_effects=_edge(1.0))
    return
  scale = min(9 + 2.2 * line, 1.4 * length)  # twice the size of the head
  axis.add_patch(
    FancyArrowPatch(
      begin,
      end,
      arrowstyle="-|>,head_length=0.5,head_width=0.25",
      mutation_scale=scale,
      shrinkA=0,
      shrinkB=0,
      linewidth=line,
      color=color,
      zorder=4,
      joinstyle="miter",
      capstyle="butt",
      path_effects=_edge(line),
    )
  )


def _edge(line: float) -> list[patheffects.AbstractPathEffect]:
  return [patheffects.withStroke(linewidth=line + 1.8, foreground="white")]


def _crop(points: np.ndarray, minimum: float) -> tuple[np.ndarray, float]:
  """(center, half side) of a square that contains all points [n, 2] with a margin."""
  low, high = points.min(axis=0), points.max(axis=0)
  return (low + high) / 2, max(minimum, 0.7 * float((high - low).max()))


def _compress(png: bytes) -> bytes:
  """Compresses a PNG; uses a palette if it has too many bytes."""
  picture, stream = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
  picture.save(stream, format="PNG", optimize=True)
  if stream.tell() > MAX_BYTES:
    stream = io.BytesIO()
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
      stream, format="PNG", optimize=True
    )
  return stream.getvalue()
