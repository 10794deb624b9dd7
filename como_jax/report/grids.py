"""Frames side by side, with amplified differences.

Legend: N rows, H W pixels.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import font_manager  # includes a font that has − and ×
from PIL import Image, ImageDraw, ImageFont

from como_jax import errors
from como_jax.report.data import Reconstruction, Rollouts, Transfer

HEAT = "inferno"  # dark means no difference; it is readable in grayscale too
CELL, GAP, HEAD, LABEL = 128, 6, 34, 150  # pixels of the PNG


@dataclasses.dataclass(frozen=True)
class Grid:
  """Columns of pictures.

  Attributes:
    columns: heading -> uint8 [N, H, W, 3].
    captions: caption of each row [N].
    factor: factor by which differences were multiplied before coloring.
    differences: headings of the columns that are differences.
  """

  columns: Mapping[str, np.ndarray]
  captions: tuple[str, ...]
  factor: int
  differences: tuple[str, ...]


def reconstruction(data: Reconstruction) -> Grid:
  """The three frames, target - current (the motion), and predicted - target (the error)."""
  current, target, predicted = _frames(
    current=data.current, target=data.target, predicted=data.predicted
  )
  change, error = _difference(target, current), _difference(predicted, target)
  factor = factor_for(np.concatenate([change, error]))
  columns = {
    "current": current,
    "target": target,
    "predicted": predicted,
    "target − current": heat(change, factor),
    "predicted − target": heat(error, factor),
  }
  return Grid(columns, _captions(data.captions, len(current)), factor, tuple(columns)[3:])


def transfer(data: Transfer) -> Grid:
  """The frames of clip A, of clip B with the motion of A, and both changes.

  The two changes should look alike.
  """
  a, a_next, b, b_next = _frames(
    a_current=data.a_current,
    a_future=data.a_future,
    b_current=data.b_current,
    b_predicted=data.b_predicted,
  )
  in_a, in_b = _difference(a_next, a), _difference(b_next, b)
  factor = factor_for(np.concatenate([in_a, in_b]))
  columns = {
    "A current": a,
    "A future": a_next,
    "B current": b,
    "B predicted with A's z": b_next,
    "change in A": heat(in_a, factor),
    "change in B": heat(in_b, factor),
  }
  return Grid(columns, _captions(data.captions, len(a)), factor, tuple(columns)[4:])


def films(data: Rollouts) -> Grid:
  """One episode per row, time from left to right."""
  strips = _frames(**dict(data.films))
  columns = {
    "start" if i == 0 else f"{i + 1}": np.stack([strip[i] for strip in strips])
    for i in range(len(strips[0]))
  }
  return Grid(columns, tuple(map(str, data.films)), 1, ())


def factor_for(differences: np.ndarray) -> int:
  """The largest of 1, 2, 4 and 8 that keeps 99.5 % of the amplified differences at most 255.

  Args:
    differences: [..., H, W], in gray levels.
  """
  upper = max(float(np.quantile(differences, 0.995)), 1.0)
  return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * upper <= 255)


def heat(differences: np.ndarray, factor: int) -> np.ndarray:
  """Amplifies and colors differences.

  Args:
    differences: [N, H, W], in gray levels.
    factor: amplification.

  Returns:
    Colors, uint8 [N, H, W, 3].
  """
  return palette()[np.clip(np.rint(differences * factor), 0, 255).astype(np.uint8)]


def palette() -> np.ndarray:
  """The heat colors, uint8 [256, 3]."""
  return (matplotlib.colormaps[HEAT](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def png(image: np.ndarray) -> bytes:
  """Encodes an image, uint8 [H, W, 3], as PNG."""
  stream = io.BytesIO()
  Image.fromarray(image).save(stream, format="PNG", optimize=True)
  return stream.getvalue()


def sheet(grid: Grid) -> bytes:
  """Draws the whole grid as one PNG with headings, captions and a legend, for slides."""
  count, names = len(grid.captions), list(grid.columns)
  height, width = next(iter(grid.columns.values())).shape[1:3]
  cell_h = round(CELL * height / width)
  left = LABEL if any(grid.captions) else 0
  canvas = Image.new(
    "RGB", (left + len(names) * (CELL + GAP) + GAP, HEAD + count * (cell_h + GAP) + HEAD), "white"
  )
  draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 11)
  for j, name in enumerate(names):
    x = left + GAP + j * (CELL + GAP)
    title = f"{name} ×{grid.factor}" if name in grid.differences else name
    draw.text(
      (x + CELL / 2, HEAD / 2),
      _fit(draw, title, CELL, font),
      fill="#1f2430",
      font=font,
      anchor="mm",
    )
    for i in range(count):
      enlarge = Image.Resampling.NEAREST if width < CELL else Image.Resampling.LANCZOS
      canvas.paste(
        Image.fromarray(grid.columns[name][i]).resize((CELL, cell_h), enlarge),
        (x, HEAD + i * (cell_h + GAP)),
      )
  for i, caption in enumerate(grid.captions):
    draw.text(
      (GAP, HEAD + i * (cell_h + GAP) + cell_h / 2),
      _fit(draw, caption, LABEL - GAP, font),
      fill="#1f2430",
      font=font,
      anchor="lm",
    )
  if not grid.differences:
    return png(np.asarray(canvas))
  bar = Image.fromarray(np.broadcast_to(palette()[None], (12, 256, 3)).copy())
  y = canvas.height - HEAD / 2
  canvas.paste(bar, (left + GAP, int(y) - 6))
  draw.text((left + GAP + 264, y), legend(grid.factor), fill="#1f2430", font=font, anchor="lm")
  return png(np.asarray(canvas))


def legend(factor: int) -> str:
  """The legend of the heat colors."""
  return (
    f"difference 0 … {255 / factor:.0f} gray levels (of 255), amplified ×{factor}, mean over "
    "channels"
  )


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
  while len(text) > 1 and draw.textlength(text, font=font) > width:
    text = text[:-2].rstrip() + "…"
  return text


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  return np.abs(first.astype(np.float32) - second.astype(np.float32)).mean(axis=-1)


def _frames(**frames: np.ndarray) -> list[np.ndarray]:
  arrays = {name: np.asarray(value) for name, value in frames.items()}
  shape = next(iter(arrays.values())).shape
  for name, value in arrays.items():
    if (
      value.dtype != np.uint8
      or value.ndim != 4
      or value.shape[-1] != 3
      or value.shape != shape
      or not len(value)
    ):
      raise errors.UserError(
        f"report frames {name!r} are {value.dtype} {value.shape}, "
        "expected uint8 [N, H, W, 3], all of one shape, N at least 1"
      )
  return list(arrays.values())


def _captions(captions: Sequence[str], count: int) -> tuple[str, ...]:
  return tuple(str(caption) for caption in captions[:count]) + ("",) * (count - len(captions))
