"""Tests whether z holds motion.

It computes all metrics of a motion model on a data set, next to those of the untrained model, and
writes the report.
"""

import dataclasses
import functools
import json
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from como_jax import config as config_lib
from como_jax import data, models, report, trees
from como_jax.assembly import motion_data, motion_start, run_data
from como_jax.data import evaluation, shards
from como_jax.evaluate import consistency
from como_jax.inference import motion_checkpoint, motion_evaluator, motion_probe
from como_jax.report import probe_page
from como_jax.train import rng, rundir

METRICS, LATENTS = "metrics.json", "latents.npz"
STATE_NAMES = {"state_delta": report.TRUE_CHANGE, "state": report.TRUE_STATE}


def run(command: config_lib.CommandLine) -> int:
  """Writes metrics.json, latents.npz and report.html into the run directory; prints the metrics.

  With `config.exam.on`, it runs `tasks.exam` instead.
  """
  if command.config.exam.on:
    from como_jax.tasks import exam

    return exam.run(command)
  workdir, begin = command.workdir, time.monotonic()
  rundir.check(workdir, command.config, resume=command.resume, overwrite=command.overwrite)
  opened = prepare(command.config)
  rundir.open_run(workdir, opened.config, resume=command.resume, overwrite=command.overwrite)
  sets, windows = opened.sets, opened.windows
  print(
    f"probe: {windows.size} held-out windows, {opened.fit_windows.size} to fit on, "
    + ", ".join(f"{data_set.label} at {data_set.offset_seconds} s" for data_set in sets)
  )
  manifests = [shards.read_manifest(data_set.path) for data_set in sets]
  evaluator = motion_evaluator.MotionEvaluator(opened.model)
  probed = motion_probe.probe(
    evaluator,
    {"trained": opened.trained, "untrained": opened.untrained},
    windows,
    opened.fit_windows,
    names=motion_probe.label_names(manifests),
    state_names=STATE_NAMES,
    seed=opened.config.seed,
  )
  seconds = time.monotonic() - begin
  summary = {
    "checkpoint": str(opened.config.checkpoint),
    "data": [data_set.label for data_set in sets],
    "windows": windows.size,
    "offset_seconds": [data_set.offset_seconds for data_set in sets],
    "rows": probed.table.rows,
    "notes": probed.table.notes,
    "seconds": seconds,
  }
  (workdir / METRICS).write_text(json.dumps(summary, indent=2))
  motion_probe.save_latents(workdir / LATENTS, probed.trained)
  shown = page_data(opened, probed, functools.partial(evaluator.predict, opened.trained))
  facts = dict(
    versions=rundir.versions(),
    hardware=rundir.hardware(),
    time={"probe, seconds": round(seconds, 1), **shown.time},
    commands=["python -m como_jax.main " + shlex.join(command.words)],
    quarantine=probe_page.left_out(manifests),
  )
  file = report.write(workdir, dataclasses.replace(shown, **facts))
  print(probe_page.table(probed.table.rows, probed.table.notes))
  print(f"report: {file}")
  return 0


@dataclasses.dataclass(frozen=True)
class Opened:
  """A trained motion model and the windows on which it is probed.

  Attributes:
    config: of the probe, with the data section of the training run.
    run_config: of the training run.
    model: the motion model.
    trained, untrained: its parameters.
    sets: the data sets.
    windows, fit_windows: held out, and to fit the probes on.
  """

  config: config_lib.ConfigDict
  run_config: dict[str, Any]
  model: Any
  trained: Any
  untrained: Any
  sets: Sequence[data.DataSet]
  windows: evaluation.EvaluationWindows
  fit_windows: evaluation.EvaluationWindows


def prepare(config: config_lib.ConfigDict) -> Opened:
  """Opens model and data; writes nothing.

  Raises:
    errors.UserError: a checkpoint or data set that does not exist or does not fit.
  """
  params, run_config = motion_checkpoint.read(config.checkpoint)
  model = models.build(run_config["model"])
  config = run_data.with_run_data(config, run_config)
  opened = motion_data.MotionData(config)
  windows, fit_windows = (
    opened.windows(split, frames=3, batch_size=config.batch_size, max_windows=max_windows)
    for split, max_windows in (("validation", config.windows), ("train", config.fit_windows))
  )
  shapes = jax.eval_shape(model.init, rng.key(0, "init"))
  trained = trees.merge(shapes, params, what=f"checkpoint {config.checkpoint}")
  untrained = motion_start.untrained(model, trained, lambda: fit_windows, seed=config.seed)
  sets = opened.mixture.datasets
  return Opened(config, run_config, model, trained, untrained, sets, windows, fit_windows)


def page_data(
  opened: Opened, probed: motion_probe.Probed, predict: Callable[..., Any]
) -> report.ReportData:
  """The page of a probe, without the facts of this machine."""
  config = opened.config
  return probe_page.page(
    probed.table,
    probed.targets,
    consistency.principal_components(probed.trained.z),
    probe_page.drawings(opened.windows.pictures(config.pictures), predict),
    split=probe_page.split_note(
      json.loads(config_lib.to_json(config.data)), opened.run_config["data"]
    ),
    training=motion_checkpoint.training_log(config.checkpoint),
    run_config=opened.run_config,
  )
