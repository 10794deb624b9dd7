"""Frames side by side, with amplified differences. Legend: N rows, H W pixels."""

import dataclasses
import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import font_manager  # ships a font that has − and ×
from PIL import Image, ImageDraw, ImageFont

from como_jax import errors
from como_jax.report.data import Reconstruction, Rollouts, Transfer

HEAT = "inferno"  # dark where nothing differs, and as readable in gray
CELL, GAP, HEAD, LABEL = 128, 6, 34, 150  # pixels of the PNG


@dataclasses.dataclass(frozen=True)
class Grid:
  """Columns of pictures; `factor` is what differences were multiplied by before coloring."""

  columns: Mapping[str, np.ndarray]  # heading -> uint8 [N, H, W, 3]
  captions: tuple[str, ...]  # [N]
  factor: int
  differences: tuple[str, ...]  # the columns that are differences


def reconstruction(data: Reconstruction) -> Grid:
  """The three frames, how the target differs from the current one (the motion), and the prediction
  from the target.
  """
  current, target, predicted = _frames(
    current=data.current, target=data.target, predicted=data.predicted
  )
  change, miss = _difference(target, current), _difference(predicted, target)
  factor = factor_for(np.concatenate([change, miss]))
  columns = {
    "current": current,
    "target": target,
    "predicted": predicted,
    "target − current": heat(change, factor),
    "predicted − target": heat(miss, factor),
  }
  return Grid(columns, _captions(data.captions, len(current)), factor, tuple(columns)[3:])


def transfer(data: Transfer) -> Grid:
  """Clip A's frames, clip B's first, what A's motion makes of it, and the two changes, which should
  look alike.
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
  """One episode a row, time from left to right."""
  strips = _frames(**dict(data.films))
  columns = {
    "start" if i == 0 else f"{i + 1}": np.stack([strip[i] for strip in strips])
    for i in range(len(strips[0]))
  }
  return Grid(columns, tuple(map(str, data.films)), 1, ())


def factor_for(differences: np.ndarray) -> int:
  """1, 2, 4 or 8: the most that leaves 99.5 % of the amplified differences [.., H, W] (gray levels)
  below 255.
  """
  most = max(float(np.quantile(differences, 0.995)), 1.0)
  return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * most <= 255)


def heat(differences: np.ndarray, factor: int) -> np.ndarray:
  """Differences [N, H, W] in gray levels -> colors uint8 [N, H, W, 3]."""
  return palette()[np.clip(np.rint(differences * factor), 0, 255).astype(np.uint8)]


def palette() -> np.ndarray:
  """The heat colors, uint8 [256, 3]."""
  return (matplotlib.colormaps[HEAT](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def png(image: np.ndarray) -> bytes:
  """uint8 [H, W, 3] as PNG."""
  stream = io.BytesIO()
  Image.fromarray(image).save(stream, format="PNG", optimize=True)
  return stream.getvalue()


def sheet(grid: Grid) -> bytes:
  """The whole grid as one PNG with headings, captions and a legend, to put into slides."""
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
  """What the heat colors mean."""
  return (
    f"difference 0 … {255 / factor:.0f} gray levels (of 255), amplified ×{factor}, mean over "
    "channels"
  )


def _fit(draw: ImageDraw.ImageDraw, text: str, width: int, font: ImageFont.ImageFont) -> str:
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
