"""Runs both stages on one data source, with one summary and one page.

The stages are shards, motion model, probe, exam, labels, policy, rollouts and one served request. A
stage whose product exists is skipped, so that an interrupted run goes on where it stopped.
"""

import json
import pathlib
from collections.abc import Mapping

from como_jax import config as config_lib
from como_jax import errors, report, stages, tasks, weights
from como_jax.quickstart import options as options_lib
from como_jax.quickstart import plan, products
from como_jax.report import exam_rows, quickstart_page
from como_jax.train import atomic, rundir


def run(command: config_lib.CommandLine) -> int:
  """Runs the stages that are not finished yet; writes DIR/summary.json and DIR/report.html."""
  workdir, config = command.workdir.absolute(), command.config
  if command.overwrite:
    raise errors.UserError(
      f"quickstart never deletes: remove {workdir} by hand, or give another --workdir"
    )
  requested, file = json.loads(config_lib.to_json(config)), workdir / products.CONFIG
  changed = config_lib.differences(weights.read_config(file), requested) if file.exists() else {}
  if changed:
    key, (was, now) = next(iter(changed.items()))
    raise errors.UserError(
      f"{workdir} was started with {key}={was!r}, now it is {now!r}: give another --workdir"
    )
  workdir.mkdir(parents=True, exist_ok=True)
  atomic.write(file, json.dumps(requested, indent=2))
  options = options_lib.from_config(config)
  outcome = stages.run(plan.Plan(options, workdir, run_task).stages(), workdir)
  if outcome.complete:
    finish(workdir, seconds=outcome.seconds, skipped=outcome.skipped)
  return outcome.code


def run_task(words: list[str]) -> int:
  """Runs the task of a command line; returns the exit code."""
  return tasks.run(config_lib.parse(["main", *words]))


def finish(
  workdir: pathlib.Path, *, seconds: Mapping[str, float], skipped: Mapping[str, str]
) -> None:
  """Writes summary.json and report.html from the products of the stages; prints the summary.

  Args:
    workdir: folder of the quickstart.
    seconds: stage -> duration.
    skipped: stage -> reason why it was skipped.
  """
  found = products.read(workdir)
  summary = quickstart_page.summary(found, seconds=seconds, skipped=skipped)
  atomic.write(workdir / quickstart_page.SUMMARY, json.dumps(summary, indent=2))
  rollouts = found.rollout
  page = quickstart_page.page(
    found,
    summary,
    exam=exam_rows.exam(found.exam) if found.exam else None,
    rollouts=quickstart_page.rollouts(rollouts, products.films(found)) if rollouts else None,
    versions=rundir.versions(),
    hardware=rundir.hardware(),
  )
  report.write(workdir / quickstart_page.PAGE, page)
  print(quickstart_page.text(summary, workdir))
