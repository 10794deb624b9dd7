"""Tests whether z holds motion.

It computes all metrics of a motion model on a data set, next to those of the untrained model, and
writes the report.
"""

import dataclasses
import functools
import json
import pathlib
import shlex
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import data, models, report, trees
from como_jax.assembly import motion_data, offsets
from como_jax.data import evaluation, shards
from como_jax.evaluate import consistency, probe_table, probe_targets
from como_jax.inference import motion_checkpoint, motion_evaluator
from como_jax.models.motion import component_init as components_lib
from como_jax.report import probe_page
from como_jax.train import checkpoint, log, rng, rundir

METRICS, LATENTS = "metrics.json", "latents.npz"
STATE_NAMES = {"state_delta": report.TRUE_CHANGE, "state": report.TRUE_STATE}


@dataclasses.dataclass(frozen=True)
class Probed:
  """A motion model that was probed.

  Attributes:
    config: config of the probe, with the data section of the training run.
    run_config: config of the training run.
    sets: the data sets.
    windows: the held-out windows.
    trained: the model on these windows.
    targets: targets of the probes.
    table: all metrics.
    seconds: duration.
  """

  config: config_lib.ConfigDict
  run_config: dict[str, Any]
  sets: Sequence[data.DataSet]
  windows: evaluation.Evaluation
  trained: motion_evaluator.MotionEvaluation
  targets: Sequence[probe_targets.Target]
  table: probe_table.Table
  seconds: float


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
  trained, run_config = motion_checkpoint.read(config.checkpoint)
  model = models.build(run_config["model"])
  config = with_run_data(config, run_config)
  opened = motion_data.MotionData(config)
  sets = opened.mixture.datasets
  windows, fit_windows = open_windows(config, opened)
  shapes = jax.eval_shape(model.init, rng.key(0, "init"))
  trained = trees.merge(shapes, trained, what=f"checkpoint {config.checkpoint}")
  untrained = start(model, trained, fit_windows, seed=config.seed)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  print(
    f"probe: {windows.size} held-out windows, {fit_windows.size} to fit on, "
    + ", ".join(f"{data_set.label} at {data_set.offset_seconds} s" for data_set in sets)
  )

  evaluator = motion_evaluator.MotionEvaluator(model)
  evaluations = {
    "trained": evaluator(trained, windows, pictures=True),
    "untrained": evaluator(untrained, windows),
  }
  fitted = evaluator.labels({"trained": trained, "untrained": untrained}, fit_windows)
  held_out, names = evaluations["trained"], label_names(sets)
  targets = [
    probe_targets.build(
      name, fitted.columns, held_out.columns, names=names, datasets=windows.datasets
    )
    for name in probe_targets.TARGETS
  ]
  table = probe_table.build(
    evaluations, fitted, targets, windows, state_names=STATE_NAMES, seed=config.seed
  )
  probed = Probed(
    config, run_config, sets, windows, held_out, targets, table, time.monotonic() - begin
  )

  write(workdir, probed)
  predict = functools.partial(evaluator.predict, trained)
  page = report.write(workdir, page_data(command, probed, predict))
  print(probe_page.table(table.rows, table.notes))
  print(f"report: {page}")
  return 0


def start(model: Any, trained: dict, windows: Any, *, seed: int) -> dict[str, Any]:
  """Initial parameters of a run of this model, with the encoder of the trained model.

  Args:
    model: the model. A linear path is initialized by components of the pairs of the windows.
    trained: parameters of the trained model.
    windows: windows of training episodes; used only if the model has a linear path.
    seed: seed of the parameters.
  """
  untrained = {**jax.jit(model.init)(rng.key(seed, "untrained")), "encoder": trained["encoder"]}
  if model.components is not None:
    with windows.batches() as batches:
      untrained["idm"] |= components_lib.start(
        model, untrained, batches, pairs=min(components_lib.PAIRS, 2 * windows.size)
      )["idm"]
  return untrained


def with_run_data(config: config_lib.ConfigDict, run_config: dict) -> config_lib.ConfigDict:
  """The config of the probe, with missing values (None) from the data section of the training run.

  If the config has a data set of its own, its offset is the one with which the model was trained
  (`assembly.offsets`), and a line with this offset is printed.

  Args:
    config: config of the probe.
    run_config: config of the training run.

  Raises:
    errors.UserError: the offset of the training cannot be determined.
  """
  config = config_lib.ConfigDict(config.to_dict())
  section = config_lib.data()
  with section.ignore_type():
    for key, value in run_config["data"].items():
      if key in section:
        section[key] = value
    section.image_size = run_config["model"]["image_size"]
    for key, value in config.data.items():
      if value is not None:
        section[key] = value
  if config.data.path:
    section.mixture = ()
    offset = offsets.choose(
      config.data.path,
      run_config["data"],
      given=config.data.offset_seconds,
      option="--config.data.offset_seconds",
      checkpoint=str(config.checkpoint),
    )
    section.offset_seconds = offset.seconds
    print(f"probe: {config.data.path}: {offset}")
  elif config.data.offset_seconds is not None:
    # This offset replaces those of all data sets of the training.
    section.mixture = tuple(
      {**entry, "offset_seconds": config.data.offset_seconds} for entry in section.mixture
    )
  config.data = section
  return config


def label_names(sets: Sequence[data.DataSet]) -> dict[str, list[Sequence[str] | None]]:
  """Names of the dimensions of "action" and "state" in each data set; None if it has no names."""
  manifests = [shards.read_manifest(data_set.path) for data_set in sets]
  return {key: [manifest[key]["names"] for manifest in manifests] for key in ("action", "state")}


def open_windows(
  config: config_lib.ConfigDict, opened: motion_data.MotionData
) -> tuple[evaluation.Evaluation, evaluation.Evaluation]:
  """Opens the held-out windows and those on which probes are fitted."""
  held_out, fit = (
    opened.windows(split, frames=3, batch_size=config.batch_size, max_windows=max_windows)
    for split, max_windows in (("validation", config.windows), ("train", config.fit_windows))
  )
  return held_out, fit


def write(workdir: pathlib.Path, probed: Probed) -> None:
  """Writes metrics.json and latents.npz."""
  summary = {
    "checkpoint": str(probed.config.checkpoint),
    "data": [data_set.label for data_set in probed.sets],
    "windows": probed.windows.size,
    "offset_seconds": [data_set.offset_seconds for data_set in probed.sets],
    "rows": probed.table.rows,
    "notes": probed.table.notes,
    "seconds": probed.seconds,
  }
  (workdir / METRICS).write_text(json.dumps(summary, indent=2))
  evaluated = probed.trained
  # `Any`, since numpy.savez also has a keyword that is no array.
  arrays: dict[str, Any] = {"z": evaluated.z, "past": evaluated.past, "future": evaluated.future}
  np.savez(workdir / LATENTS, **arrays, **dict[str, Any](evaluated.columns))


def page_data(
  command: config_lib.CommandLine, probed: Probed, predict: probe_page.Predict
) -> report.ReportData:
  """Collects the data of the report.

  Args:
    command: the command, for the page.
    probed: the results.
    predict: draws a motion with the trained model.
  """
  run_folder = pathlib.Path(probed.config.checkpoint)
  run_folder = run_folder.parent if run_folder.name == checkpoint.WEIGHTS else run_folder
  validation = log.read(run_folder, kind="validation")
  reconstruction, transfer = probe_page.drawings(
    probed.windows.pictures(probed.config.pictures), predict
  )
  details = probed.table.details
  matrix = details[probe_table.TRAINED].matrix
  points, explained = consistency.principal_components(probed.trained.z)
  manifests = [shards.read_manifest(data_set.path) for data_set in probed.sets]
  return report.ReportData(
    title=f"Motion model: {run_folder.name}",
    metrics=probed.table.rows,
    metric_notes=[
      probe_page.split_note(
        json.loads(config_lib.to_json(probed.config.data)), probed.run_config["data"]
      ),
      *probed.table.notes,
    ],
    curves=log.read(run_folder, kind="train")
    | {f"validation/{name}": curve for name, curve in validation.items()},
    reconstruction=reconstruction,
    transfer=transfer,
    s_pcfc={
      name: of_row.s_pcfc.values for name, of_row in details.items() if of_row.s_pcfc is not None
    },
    probes=probe_page.scatters(details[probe_table.TRAINED].probes),
    pca=probe_page.projection(points, explained, probed.targets),
    similarity=report.Similarity(matrix.values, matrix.labels) if matrix is not None else None,
    config=probed.run_config,
    versions=rundir.versions(),
    hardware=rundir.hardware(),
    time={"probe, seconds": round(probed.seconds, 1)} | training_times(run_folder),
    commands=["python -m como_jax.main " + shlex.join(command.words)],
    quarantine=[
      entry
      for manifest in manifests
      for key in ("quarantine", "skipped")
      for entry in manifest[key]
    ],
  )


def training_times(run_folder: pathlib.Path) -> dict[str, Any]:
  """The speeds and times of the training run; {} if it wrote none."""
  speed = run_folder / "speed.json"
  if not speed.is_file():
    return {}
  return {f"training, {key}": value for key, value in json.loads(speed.read_text()).items()}
