"""Builds the page from its sections: one self-contained HTML file, with PNG files next to it."""

import base64
import html
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from como_jax import errors
from como_jax.report import exam_plot, explain, grids, plots, style, verdict
from como_jax.report.data import Exam, ReportData

Section = tuple[str, str, str]  # anchor, heading, HTML


def write(path: str | os.PathLike, data: ReportData) -> pathlib.Path:
  """Writes the report and its PNG files.

  Args:
    path: a folder, which is created if needed and gets `report.html`, or the path of the page,
      ending in `.html`.
    data: the content; parts without data are left out.

  Returns:
    The path of the page. Its plots are in the same folder, as `NAME.png` and `NAME-dark.png`.

  Raises:
    errors.UserError: the folder cannot be written, or frames have a wrong shape.
  """
  path = pathlib.Path(path)
  page = path if path.suffix == ".html" else path / "report.html"
  try:
    page.parent.mkdir(parents=True, exist_ok=True)
    sections = list(_sections(data, page.parent))
    page.write_text(_document(data, sections), encoding="utf-8")
  except OSError as error:
    raise errors.UserError(f"report {page} cannot be written: {error.strerror or error}") from error
  return page


def _sections(data: ReportData, folder: pathlib.Path) -> Iterator[Section]:
  def figure(name, draw, alt):
    return _figure(folder, name, draw, alt)

  if result := verdict.judge(data.metrics):
    yield "verdict", "Is it motion?", _verdict(result)
  if data.exam is not None:
    yield (
      "exam",
      "Motion and appearance",
      _exam(data.exam)
      + figure(
        "exam",
        lambda theme: exam_plot.axes(data.exam, theme),
        "S and appearance read from z of " + ", ".join(row.name for row in data.exam.rows),
      ),
    )
  if data.metrics:
    yield "metrics", "Metrics", _metrics(data)
  if data.rollouts is not None:
    figures = figure(
      "success",
      lambda theme: plots.success(data.rollouts, theme),
      "success of " + ", ".join(data.rollouts.rates),
    )
    if data.rollouts.films:
      figures += _grid(folder, "films", grids.films(data.rollouts))
    yield (
      "rollouts",
      "Closed-loop success",
      _text(
        "The policy acts in the simulator until the goal is reached or time is up. Below: "
        "episodes, time from left to right."
      )
      + figures,
    )
  if data.curves:
    yield (
      "curves",
      "Training curves",
      _text(
        "Faint: every logged value; line: smoothed; markers: held-out episodes. Training falling "
        "while validation rises means the model is memorizing."
      )
      + figure(
        "curves",
        lambda theme: plots.curves(data.curves, theme, log=data.log_curves),
        "training curves: " + ", ".join(data.curves),
      ),
    )
  if data.reconstruction is not None:
    yield (
      "reconstruction",
      "Reconstruction",
      _text(
        "The model sees the current frame and z, never the target. The last column should be "
        "darker than the one before it, wherever something moved."
      )
      + _grid(folder, "reconstruction", grids.reconstruction(data.reconstruction)),
    )
  if data.transfer is not None:
    yield (
      "transfer",
      "Motion transfer",
      _text(
        "The motion of clip A, as z, applied to the first frame of clip B. If z is motion, B "
        "changes as A did, and keeps its own looks. If z is appearance, A's scene shows up in B."
      )
      + _grid(folder, "transfer", grids.transfer(data.transfer)),
    )
  if data.s_pcfc:
    yield (
      "s-pcfc",
      "S-PCFC",
      _text(
        "Two motions that end in the same frame, one from the past and one from the future. All "
        "mass at 1: z only encodes that frame. Spread out: z knows where the motion came from."
      )
      + figure(
        "s_pcfc",
        lambda theme: plots.s_pcfc(data.s_pcfc, theme),
        "histogram of cosines for " + ", ".join(data.s_pcfc),
      ),
    )
  if data.probes:
    yield (
      "probes",
      "Linear probe",
      _text(
        "Held-out episodes: the action read from z by a linear layer, against the true one. "
        "Points on the dashed line are perfect; a flat cloud means that z does not carry this "
        "dimension."
      )
      + figure(
        "probes",
        lambda theme: plots.probes(data.probes, theme),
        "true against predicted for " + ", ".join(data.probes),
      ),
    )
  if data.pca is not None:
    yield (
      "pca",
      "Latent space",
      _text(
        "z on its two main axes. A color that changes smoothly across the cloud is a direction "
        "that z encodes."
      )
      + figure("pca", lambda theme: plots.pca(data.pca, theme), "principal components of z"),
    )
  if data.similarity is not None:
    yield (
      "similarity",
      "Similarity across groups",
      _text(
        "Mean cosine similarity of z between groups. The same task seen from another view should "
        "be more alike than another task seen from the same view."
      )
      + figure(
        "similarity",
        lambda theme: plots.similarity(data.similarity, theme),
        "similarity matrix of " + ", ".join(map(str, data.similarity.labels)),
      ),
    )
  if data.notes:
    yield "notes", "Notes", _list(data.notes)
  if data.quarantine:
    yield "quarantine", "Quarantined files", _quarantine(data.quarantine)
  if data.commands:
    yield (
      "commands",
      "Commands",
      "".join(f"<pre>{html.escape(command)}</pre>" for command in data.commands),
    )
  facts = {"Time": data.time, "Hardware": data.hardware, "Versions": data.versions}
  if any(facts.values()):
    blocks = (
      f"<div><h3>{name}</h3>{_keys(values)}</div>" for name, values in facts.items() if values
    )
    yield "run", "Time and machine", f'<div class="facts">{"".join(blocks)}</div>'
  if data.config:
    count = len(_flat(data.config))
    yield (
      "config",
      "Configuration",
      f"<details{' open' if count <= 12 else ''}><summary>{count} values</summary>"
      f"{_keys(data.config)}</details>",
    )


def _document(data: ReportData, sections: Sequence[Section]) -> str:
  links = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading, _ in sections)
  body = "\n".join(_section(*section) for section in sections)
  title = html.escape(data.title)
  summary = f"<p>{html.escape(data.summary)}</p>" if data.summary else ""
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style.CSS}</style>
</head>
<body>
<div class="layout">
<header><h1>{title}</h1>{summary}</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{body}
</main>
</div>
</body>
</html>
"""


def _section(anchor: str, heading: str, content: str) -> str:
  if anchor == "verdict":
    return content
  return f'<section id="{anchor}"><h2>{heading}</h2>{content}</section>'


def _verdict(result: verdict.Verdict) -> str:
  items = [
    f'<li class="{"yes" if check.passed else "no"}"><b>'
    f"{'✓ yes' if check.passed else '✗ no'}</b><span>{html.escape(check.question)}"
    f"<small>{html.escape(check.evidence)}</small></span></li>"
    for check in result.checks
  ]
  items += [
    f'<li class="unknown"><b>? —</b><span>{html.escape(question)}'
    f"<small>{html.escape(why)}</small></span></li>"
    for question, why in result.missing
  ]
  return (
    f'<section id="verdict" class="verdict {result.level}"><h2>Is it motion?</h2>'
    f'<div class="headline">{html.escape(result.headline)}</div>'
    f'<ul class="checks">{"".join(items)}</ul></section>'
  )


def _metrics(data: ReportData) -> str:
  rows = list(data.metrics)
  used = {name for row in rows for name in data.metrics[row]}
  names = [name for name in explain.METRICS if name in used] + sorted(used - set(explain.METRICS))
  head = "".join(f'<th scope="col">{html.escape(row)}</th>' for row in rows)
  lines = []
  for name in names:
    metric = explain.METRICS.get(name, explain.Metric(name, "", ""))
    values = {
      row: explain.value_of(data.metrics[row][name])
      for row in rows
      if data.metrics[row].get(name) is not None
    }
    finite = [
      value
      for row, (value, _) in values.items()
      if math.isfinite(value) and row not in explain.REFERENCES
    ]
    best = (
      {"lower": min, "higher": max}[metric.better](finite)
      if metric.better and len(finite) > 1
      else None
    )
    arrow = {
      "lower": " <small>↓<span> lower is better</span></small>",
      "higher": " <small>↑<span> higher is better</span></small>",
      "": "",
    }[metric.better]
    cells = "".join(
      _number(*values[row], digits=metric.digits, best=best) if row in values else "<td>–</td>"
      for row in rows
    )
    lines.append(f'<tr><th scope="row">{html.escape(metric.title)}{arrow}</th>{cells}</tr>')
  reading = "".join(
    f"<dt>{html.escape(explain.METRICS[name].title)}</dt><dd>{html.escape(explain.METRICS[name].reading)}</dd>"
    for name in names
    if name in explain.METRICS
  )
  notes = f"<h3>How they were measured</h3>{_list(data.metric_notes)}" if data.metric_notes else ""
  reading = f'<h3>How to read them</h3><dl class="reading">{reading}</dl>' if reading else ""
  return (
    '<div class="scroll"><table class="numbers"><thead><tr><th scope="col"></th>'
    f"{head}</tr></thead>"
    f"<tbody>{''.join(lines)}</tbody></table></div>{reading}{notes}"
  )


def _exam(exam: Exam) -> str:
  """The text about the two axes, and the table of rows."""

  def cell(interval: Sequence[float] | None, none: str = "–") -> str:
    return (
      "<td>{:.3f} <small>[{:.3f}, {:.3f}]</small></td>".format(*interval)
      if interval
      else f"<td>{none}</td>"
    )

  lines = [
    f'<tr><th scope="row">{html.escape(row.name)}</th><td>{row.kind}</td>'
    f"{cell(row.score, 'withheld')}{cell(row.error)}{cell(row.gap)}"
    f"{cell(row.leak)}{cell(row.future)}<td>{html.escape(', '.join(row.read)) or 'no'}</td></tr>"
    for row in exam.rows
  ]
  names = ("", "kind", "S", "error", "minus components", "appearance", "future", "readable")
  heads = "".join(f"<th scope=col>{name}</th>" for name in names)
  return _text(
    "Pairs of pictures in scenes and cameras that none of the shipped training data shows, whose "
    "move one picture tells little of. S: how much of the move z alone tells, 0 as the better "
    "single picture, were its true pose known, 1 as both (a network trained with labels). "
    "Appearance: how well the best-read of scene, camera, objects and colors is read from z, 0 at "
    "chance. Future: how much of what moves in the second picture is rebuilt from z, 1 all of it. "
    "A latent of motion is on the right and at the bottom; one that copies the picture passes "
    "only one of the two."
  ) + (
    f'<div class="scroll"><table class="numbers"><thead><tr>{heads}</tr></thead>'
    f"<tbody>{''.join(lines)}</tbody></table></div>"
  )


def _number(value: float, error: float | None, *, digits: int, best: float | None) -> str:
  mark = ' class="best"' if best is not None and value == best else ""
  spread = f" <small>± {error:.{digits}f}</small>" if error is not None else ""
  return (
    f"<td{mark}>{value:.{digits}f}{spread}</td>" if math.isfinite(value) else "<td>undefined</td>"
  )


def _figure(folder: pathlib.Path, name: str, draw: Callable[[plots.Theme], bytes], alt: str) -> str:
  """Draws a figure in both themes and writes both files; the HTML shows the browser's theme."""
  light, dark = (draw(theme) for theme in plots.THEMES)
  (folder / f"{name}.png").write_bytes(light)
  (folder / f"{name}-dark.png").write_bytes(dark)
  return (
    '<div class="scroll figure"><picture><source media="(prefers-color-scheme: dark)" '
    f'srcset="{_embed(dark)}"><img src="{_embed(light)}" alt="{html.escape(alt)}" '
    'loading="lazy"></picture></div>'
  )


def _grid(folder: pathlib.Path, name: str, grid: grids.Grid) -> str:
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


def _text(text: str) -> str:
  return f"<p>{html.escape(text)}</p>"


def _list(lines: Sequence[Any]) -> str:
  return (
    '<ul class="plain">' + "".join(f"<li>{html.escape(str(line))}</li>" for line in lines) + "</ul>"
  )


def _quarantine(entries: Sequence[Any]) -> str:
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
  return _text("Left out of the data set because they could not be read.") + (
    table
    if len(pairs) <= 20
    else f"<details><summary>{len(pairs)} files</summary>{table}</details>"
  )


def _keys(values: Mapping[str, Any]) -> str:
  rows = "".join(
    f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>'
    for name, value in _flat(values).items()
  )
  return f'<div class="scroll"><table class="keys"><tbody>{rows}</tbody></table></div>'


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in values.items():
    if isinstance(value, Mapping) and value:
      flat.update(_flat(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = value
  return flat
