"""The verdict and the tables of numbers, as HTML."""

import html
import math
from collections.abc import Sequence

from como_jax.report import explain, markup, verdict
from como_jax.report.data import Exam, Goodput, ReportData


def checks(result: verdict.Verdict) -> str:
  """The verdict with the answer to each of its questions."""
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


def metrics(data: ReportData) -> str:
  """The table of metrics, how to read them and how they were measured."""
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
      markup.number(*values[row], digits=metric.digits, best=best)
      if row in values
      else "<td>–</td>"
      for row in rows
    )
    lines.append(f'<tr><th scope="row">{html.escape(metric.title)}{arrow}</th>{cells}</tr>')
  reading = "".join(
    f"<dt>{html.escape(explain.METRICS[name].title)}</dt><dd>{html.escape(explain.METRICS[name].reading)}</dd>"
    for name in names
    if name in explain.METRICS
  )
  notes = (
    f"<h3>How they were measured</h3>{markup.bullets(data.metric_notes)}"
    if data.metric_notes
    else ""
  )
  reading = f'<h3>How to read them</h3><dl class="reading">{reading}</dl>' if reading else ""
  return (
    '<div class="scroll"><table class="numbers"><thead><tr><th scope="col"></th>'
    f"{head}</tr></thead>"
    f"<tbody>{''.join(lines)}</tbody></table></div>{reading}{notes}"
  )


def exam(data: Exam) -> str:
  """The text about the two axes of the exam, and the table of its rows."""

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
    for row in data.rows
  ]
  names = ("", "kind", "S", "error", "minus components", "appearance", "future", "readable")
  heads = "".join(f"<th scope=col>{name}</th>" for name in names)
  return markup.text(
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


GOODPUT = {
  "productive": "training steps that count: devices, the host's own work, the log",
  "waiting_for_data": "idle devices, and no batch yet",
  "saving": "the main thread saves a checkpoint or the weights",
  "evaluating": "held-out metrics during training",
  "restoring": "a checkpoint is read",
  "starting": "from the first start to the end of the first step: imports, data, compilation",
  "restarting": "from the end of an attempt to the end of the next one's first step",
  "ending": "from the last line of an attempt to the end of its process",
  "lost": "training that was done again, and what came after the last line of a killed attempt",
  "unaccounted": "in no category",
}


def goodput(data: Goodput) -> str:
  """The text and the tables about the time of a training run."""
  wall = data.wall or 1.0
  rows = "".join(
    f'<tr><th scope="row">{html.escape(name.replace("_", " "))} '
    f"<small>{html.escape(GOODPUT.get(name, ''))}</small></th><td>{value:,.1f}</td>"
    f"<td>{100 * value / wall:.1f} %</td></tr>"
    for name, value in {**data.seconds, "unaccounted": data.unaccounted}.items()
  )
  attempts = "".join(
    f"<tr><th scope=row>{i + 1}</th><td>{html.escape(str(one['began']))}</td>"
    f"<td>{one['from_step']:,}</td><td>{one['to_step']:,}</td><td>{one['seconds']:,.1f}</td></tr>"
    for i, one in enumerate(data.attempts)
  )
  share = data.seconds.get("productive", 0.0) / wall
  return (
    markup.text(
      f"Goodput {100 * share:.1f} %: the share of the {data.wall:,.1f} s from the first start to "
      f"the last end that was training which counts. {data.redone_steps:,} steps were done again."
    )
    + f"""<div class="scroll"><table class="numbers"><thead><tr>{_heads("", "s", "share")}"""
    f"</tr></thead><tbody>{rows}</tbody></table></div><h3>Attempts</h3>"
    f"""<div class="scroll"><table class="numbers"><thead><tr>"""
    f"{_heads('', 'began', 'from step', 'to step', 's')}"
    f"</tr></thead><tbody>{attempts}</tbody></table></div>"
  )


def _heads(*names: str) -> str:
  return "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
