"""Builds the page from its sections: one self-contained HTML file, with PNG files next to it."""

import html
import os
import pathlib
from collections.abc import Sequence

from como_jax import errors
from como_jax.report import exam_plot, grids, markup, plots, style, tables, verdict
from como_jax.report.data import ReportData

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
    sections = [section for build in SECTIONS if (section := build(data, page.parent))]
    page.write_text(_document(data, sections), encoding="utf-8")
  except OSError as error:
    raise errors.UserError(f"report {page} cannot be written: {error.strerror or error}") from error
  return page


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


def _verdict(data: ReportData, folder: pathlib.Path) -> Section | None:
  result = verdict.judge(data.metrics)
  return ("verdict", "Is it motion?", tables.checks(result)) if result else None


def _exam(data: ReportData, folder: pathlib.Path) -> Section | None:
  exam = data.exam
  if exam is None:
    return None
  figure = markup.figure(
    folder,
    "exam",
    lambda theme: exam_plot.axes(exam, theme),
    "S and appearance read from z of " + ", ".join(row.name for row in exam.rows),
  )
  return "exam", "Motion and appearance", tables.exam(exam) + figure


def _metrics(data: ReportData, folder: pathlib.Path) -> Section | None:
  return ("metrics", "Metrics", tables.metrics(data)) if data.metrics else None


def _rollouts(data: ReportData, folder: pathlib.Path) -> Section | None:
  rollouts = data.rollouts
  if rollouts is None:
    return None
  figures = markup.figure(
    folder,
    "success",
    lambda theme: plots.success(rollouts, theme),
    "success of " + ", ".join(rollouts.rates),
  )
  if rollouts.films:
    figures += markup.grid(folder, "films", grids.films(rollouts))
  text = markup.text(
    "The policy acts in the simulator until the goal is reached or time is up. Below: "
    "episodes, time from left to right."
  )
  return "rollouts", "Closed-loop success", text + figures


def _curves(data: ReportData, folder: pathlib.Path) -> Section | None:
  if not data.curves:
    return None
  text = markup.text(
    "Faint: every logged value; line: smoothed; markers: held-out episodes. Training falling "
    "while validation rises means the model is memorizing."
  )
  figure = markup.figure(
    folder,
    "curves",
    lambda theme: plots.curves(data.curves, theme, log=data.log_curves),
    "training curves: " + ", ".join(data.curves),
  )
  return "curves", "Training curves", text + figure


def _reconstruction(data: ReportData, folder: pathlib.Path) -> Section | None:
  if data.reconstruction is None:
    return None
  text = markup.text(
    "The model sees the current frame and z, never the target. The last column should be "
    "darker than the one before it, wherever something moved."
  )
  grid = markup.grid(folder, "reconstruction", grids.reconstruction(data.reconstruction))
  return "reconstruction", "Reconstruction", text + grid


def _transfer(data: ReportData, folder: pathlib.Path) -> Section | None:
  if data.transfer is None:
    return None
  text = markup.text(
    "The motion of clip A, as z, applied to the first frame of clip B. If z is motion, B "
    "changes as A did, and keeps its own looks. If z is appearance, A's scene shows up in B."
  )
  grid = markup.grid(folder, "transfer", grids.transfer(data.transfer))
  return "transfer", "Motion transfer", text + grid


def _s_pcfc(data: ReportData, folder: pathlib.Path) -> Section | None:
  if not data.s_pcfc:
    return None
  text = markup.text(
    "Two motions that end in the same frame, one from the past and one from the future. All "
    "mass at 1: z only encodes that frame. Spread out: z knows where the motion came from."
  )
  figure = markup.figure(
    folder,
    "s_pcfc",
    lambda theme: plots.s_pcfc(data.s_pcfc, theme),
    "histogram of cosines for " + ", ".join(data.s_pcfc),
  )
  return "s-pcfc", "S-PCFC", text + figure


def _probes(data: ReportData, folder: pathlib.Path) -> Section | None:
  if not data.probes:
    return None
  text = markup.text(
    "Held-out episodes: the action read from z by a linear layer, against the true one. "
    "Points on the dashed line are perfect; a flat cloud means that z does not carry this "
    "dimension."
  )
  figure = markup.figure(
    folder,
    "probes",
    lambda theme: plots.probes(data.probes, theme),
    "true against predicted for " + ", ".join(data.probes),
  )
  return "probes", "Linear probe", text + figure


def _pca(data: ReportData, folder: pathlib.Path) -> Section | None:
  projection = data.pca
  if projection is None:
    return None
  text = markup.text(
    "z on its two main axes. A color that changes smoothly across the cloud is a direction "
    "that z encodes."
  )
  figure = markup.figure(
    folder, "pca", lambda theme: plots.pca(projection, theme), "principal components of z"
  )
  return "pca", "Latent space", text + figure


def _similarity(data: ReportData, folder: pathlib.Path) -> Section | None:
  similarity = data.similarity
  if similarity is None:
    return None
  text = markup.text(
    "Mean cosine similarity of z between groups. The same task seen from another view should "
    "be more alike than another task seen from the same view."
  )
  figure = markup.figure(
    folder,
    "similarity",
    lambda theme: plots.similarity(similarity, theme),
    "similarity matrix of " + ", ".join(map(str, similarity.labels)),
  )
  return "similarity", "Similarity across groups", text + figure


def _notes(data: ReportData, folder: pathlib.Path) -> Section | None:
  return ("notes", "Notes", markup.bullets(data.notes)) if data.notes else None


def _quarantine(data: ReportData, folder: pathlib.Path) -> Section | None:
  if not data.quarantine:
    return None
  return "quarantine", "Quarantined files", markup.quarantine(data.quarantine)


def _commands(data: ReportData, folder: pathlib.Path) -> Section | None:
  if not data.commands:
    return None
  blocks = "".join(f"<pre>{html.escape(command)}</pre>" for command in data.commands)
  return "commands", "Commands", blocks


def _machine(data: ReportData, folder: pathlib.Path) -> Section | None:
  facts = {"Time": data.time, "Hardware": data.hardware, "Versions": data.versions}
  blocks = [
    f"<div><h3>{name}</h3>{markup.keys(values)}</div>" for name, values in facts.items() if values
  ]
  if not blocks:
    return None
  return "run", "Time and machine", f'<div class="facts">{"".join(blocks)}</div>'


def _goodput(data: ReportData, folder: pathlib.Path) -> Section | None:
  goodput = data.goodput
  if goodput is None:
    return None
  figure = markup.figure(
    folder,
    "goodput",
    lambda theme: plots.goodput(goodput, theme),
    "share of the training run's time: " + ", ".join(goodput.seconds),
  )
  return "goodput", "Where the time of the training went", tables.goodput(goodput) + figure


def _config(data: ReportData, folder: pathlib.Path) -> Section | None:
  if not data.config:
    return None
  count = len(markup.flatten(data.config))
  table = (
    f"<details{' open' if count <= 12 else ''}><summary>{count} values</summary>"
    f"{markup.keys(data.config)}</details>"
  )
  return "config", "Configuration", table


# Each gives its section, or None if the run has no data for it.
SECTIONS = (
  _verdict,
  _exam,
  _metrics,
  _rollouts,
  _curves,
  _reconstruction,
  _transfer,
  _s_pcfc,
  _probes,
  _pca,
  _similarity,
  _notes,
  _quarantine,
  _commands,
  _goodput,
  _machine,
  _config,
)
