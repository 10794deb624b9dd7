"""Tests whether z holds motion.

It computes all metrics of a motion model on a data set, next to those of the untrained model, and
writes the report.
"""

import dataclasses
import functools
import json
import shlex
import time

import jax

from como_jax import config as config_lib
from como_jax import models, report, trees
from como_jax.assembly import motion_data, motion_start, run_data
from como_jax.data import shards
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
  config, workdir = command.config, command.workdir
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  begin = time.monotonic()
  params, run_config = motion_checkpoint.read(config.checkpoint)
  model = models.build(run_config["model"])
  config = run_data.with_run_data(config, run_config)
  opened = motion_data.MotionData(config)
  sets = opened.mixture.datasets
  windows, fit_windows = (
    opened.windows(split, frames=3, batch_size=config.batch_size, max_windows=max_windows)
    for split, max_windows in (("validation", config.windows), ("train", config.fit_windows))
  )
  shapes = jax.eval_shape(model.init, rng.key(0, "init"))
  trained = trees.merge(shapes, params, what=f"checkpoint {config.checkpoint}")
  untrained = motion_start.untrained(model, trained, lambda: fit_windows, seed=config.seed)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  print(
    f"probe: {windows.size} held-out windows, {fit_windows.size} to fit on, "
    + ", ".join(f"{data_set.label} at {data_set.offset_seconds} s" for data_set in sets)
  )

  manifests = [shards.read_manifest(data_set.path) for data_set in sets]
  evaluator = motion_evaluator.MotionEvaluator(model)
  probed = motion_probe.probe(
    evaluator,
    {"trained": trained, "untrained": untrained},
    windows,
    fit_windows,
    names=motion_probe.label_names(manifests),
    state_names=STATE_NAMES,
    seed=config.seed,
  )
  seconds = time.monotonic() - begin

  summary = {
    "checkpoint": str(config.checkpoint),
    "data": [data_set.label for data_set in sets],
    "windows": windows.size,
    "offset_seconds": [data_set.offset_seconds for data_set in sets],
    "rows": probed.table.rows,
    "notes": probed.table.notes,
    "seconds": seconds,
  }
  (workdir / METRICS).write_text(json.dumps(summary, indent=2))
  motion_probe.save_latents(workdir / LATENTS, probed.trained)
  shown = probe_page.page(
    probed.table,
    probed.targets,
    consistency.principal_components(probed.trained.z),
    probe_page.drawings(
      windows.pictures(config.pictures), functools.partial(evaluator.predict, trained)
    ),
    split=probe_page.split_note(json.loads(config_lib.to_json(config.data)), run_config["data"]),
    training=motion_checkpoint.training_log(config.checkpoint),
    run_config=run_config,
  )
  facts = dict(
    versions=rundir.versions(),
    hardware=rundir.hardware(),
    time={"probe, seconds": round(seconds, 1), **shown.time},
    commands=["python -m como_jax.main " + shlex.join(command.words)],
    quarantine=probe_page.left_out(manifests),
  )
  page = report.write(workdir, dataclasses.replace(shown, **facts))
  print(probe_page.table(probed.table.rows, probed.table.notes))
  print(f"report: {page}")
  return 0
