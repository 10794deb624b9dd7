"""HTML of the page's parts: paragraphs, lists, tables, figures and grids of frames.

Every text is escaped here.
"""

import base64
import html
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from como_jax.report import grids, themes


def number(value: float, error: float | None, *, digits: int, best: float | None) -> str:
  """Cell of a table with a number and its error; marked if the number is the best one."""
  mark = ' class="best"' if best is not None and value == best else ""
  spread = f" <small>± {error:.{digits}f}</small>" if error is not None else ""
  return (
    f"<td{mark}>{value:.{digits}f}{spread}</td>" if math.isfinite(value) else "<td>undefined</td>"
  )


def figure(folder: pathlib.Path, name: str, draw: Callable[[themes.Theme], bytes], alt: str) -> str:
  """Draws a figure in both themes and writes both files; the HTML shows the browser's theme.

  Args:
    folder: gets NAME.png and NAME-dark.png.
    name: NAME.
    draw: theme -> PNG.
    alt: text for readers who do not see the figure.
  """
  light, dark = themes.in_all_themes(draw)
  (folder / f"{name}.png").write_bytes(light)
  (folder / f"{name}-dark.png").write_bytes(dark)
  return (
    '<div class="scroll figure"><picture><source media="(prefers-color-scheme: dark)" '
    f'srcset="{_embed(dark)}"><img src="{_embed(light)}" alt="{html.escape(alt)}" '
    'loading="lazy"></picture></div>'
  )


def grid(folder: pathlib.Path, name: str, grid: grids.Grid) -> str:
  """Frames as a table of single pictures, which stay sharp on any screen.

  It also writes all of them to one PNG next to the page.
  """
  (folder / f"{name}.png").write_bytes(grids.sheet(grid))
  captioned = any(grid.captions)
  head = ('<th style="width:14%"></th>' if captioned else "") + "".join(
    f'<th scope="col">{html.escape(title)}'
    f"{f' (×{grid.factor})' if title in grid.differences else ''}</th>"
    for title in grid.columns
  )
  rows = []
  for i, caption in enumerate(grid.captions):
    cells = "".join(
      f'<td><img class="{"enlarged" if frames.shape[2] < 96 else "smooth"}" '
      f'src="{_embed(grids.png(frames[i]))}" alt="{html.escape(f"{title}, row {i + 1}")}"></td>'
      for title, frames in grid.columns.items()
    )
    rows.append(
      f"<tr>{f'<th scope=row>{html.escape(caption)}</th>' if captioned else ''}{cells}</tr>"
    )
  table = (
    '<div class="scroll"><table '
    f'class="frames"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
  )
  if not grid.differences:
    return table
  stops = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in grids.palette()[::17])
  return (
    table
    + f'<div class="legend"><i style="background: linear-gradient(to right, {stops})"></i><span>'
    f"{html.escape(grids.legend(grid.factor))}</span></div>"
  )


def _embed(png: bytes) -> str:
  return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def text(text: str) -> str:
  """A paragraph."""
  return f"<p>{html.escape(text)}</p>"


def bullets(lines: Sequence[Any]) -> str:
  """A list with one entry for each line."""
  return (
    '<ul class="plain">' + "".join(f"<li>{html.escape(str(line))}</li>" for line in lines) + "</ul>"
  )


def quarantine(entries: Sequence[Any]) -> str:
  """Table of the files that were left out, and why; folded if it is long."""
  pairs = [
    (entry["name"], entry["reason"]) if isinstance(entry, Mapping) else tuple(entry)
    for entry in entries
  ]
  rows = "".join(
    f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(str(reason))}</td></tr>"
    for name, reason in pairs
  )
  table = (
    f'<div class="scroll"><table><thead><tr><th>file</th><th>reason</th></tr></thead>'
    f"<tbody>{rows}</tbody></table></div>"
  )
  return text("Left out of the data set because they could not be read.") + (
    table
    if len(pairs) <= 20
    else f"<details><summary>{len(pairs)} files</summary>{table}</details>"
  )


def keys(values: Mapping[str, Any]) -> str:
  """Table of keys and values; nested keys are joined by dots."""
  rows = "".join(
    f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>'
    for name, value in flatten(values).items()
  )
  return f'<div class="scroll"><table class="keys"><tbody>{rows}</tbody></table></div>'


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Nested mappings as one, whose keys are joined by dots and begin with `prefix`."""
  flat: dict[str, Any] = {}
  for key, value in values.items():
    if isinstance(value, Mapping) and value:
      flat.update(flatten(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = value
  return flat
