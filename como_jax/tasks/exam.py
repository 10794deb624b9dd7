"""Runs the exam on the latents of a model or of a file, next to cheats and baselines.

The answer to a pair of the exam is in neither of its pictures alone. No motion model was trained on
the set in this package.
"""

import json
import pathlib
from typing import Any

import numpy as np

from como_jax import config as config_lib
from como_jax import errors, models, report, trees
from como_jax.assembly import motion_data
from como_jax.exam import exam_set, rows
from como_jax.exam import run as scoring
from como_jax.inference import exam_pictures, motion_checkpoint
from como_jax.report import exam_rows
from como_jax.sim import exam_design
from como_jax.tasks import probe
from como_jax.train import atomic, rundir

METRICS, LATENTS = "exam.json", "latents.npz"


def run(command: config_lib.CommandLine) -> int:
  """Writes pairs.npz if requested, then exam.json, latents.npz and report.html; prints the table.

  Without a model and latents, it writes only pairs.npz.

  Raises:
    errors.UserError: neither a model, nor latents, nor pairs are requested.
  """
  config, workdir = command.config, command.workdir
  if not (config.checkpoint or config.exam.latents or config.exam.pairs):
    raise errors.UserError(
      "config.checkpoint and config.exam.latents are empty: give a motion model, or an .npz of "
      "latents"
    )
  folder = find(config.exam.set, config.exam.tier)
  exam = exam_set.load(folder)
  foreign = exam_set.load_latents(config.exam.latents, exam) if config.exam.latents else None
  model = motion_checkpoint.read(config.checkpoint) if config.checkpoint else None
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)

  if config.exam.pairs:
    exam_pictures.write_pairs(folder, workdir / "pairs.npz")
  latents, notes = {}, []
  if model is not None:
    latents, notes = latents_of_run(config, folder, exam, *model)
    write_latents(workdir / LATENTS, latents[rows.TRAINED])
  if foreign is not None:
    latents[f"{pathlib.Path(config.exam.latents).stem}.npz"] = foreign
  if not latents:
    return 0
  results = {name: scoring.evaluate(exam, z, seed=config.seed) for name, z in latents.items()}
  table = rows.table(folder, results)

  atomic.write(
    workdir / METRICS,
    json.dumps({"set": str(config.exam.set), "tier": config.exam.tier, "rows": table}, indent=2),
  )
  sentences = [f"{name}: {result.sentence}" for name, result in results.items()]
  page = report.write(
    workdir,
    report.ReportData(
      title="Motion or appearance?",
      exam=exam_rows.exam(table),
      notes=[*sentences, *notes],
      config=json.loads(config_lib.to_json(config)),
      versions=rundir.versions(),
      hardware=rundir.hardware(),
    ),
  )
  baselines = rows.COMPARED | {f"{rows.UNTRAINED} model": rows.MINUS_UNTRAINED}
  print(exam_rows.table(table), *notes, sep="\n")
  for name, sentence in zip(results, sentences, strict=True):
    print(sentence, *exam_rows.gaps(name, table[name], baselines), sep="\n")
  print(f"report: {page}")
  return 0


def find(location: str, tier: str) -> pathlib.Path:
  """The folder of a tier.

  Args:
    location: "bundled" for the set in this package, or the folder of a set of configs/exam_set.py.
    tier: name of the tier.

  Raises:
    errors.UserError: an unknown tier, or no such folder.
  """
  if tier not in exam_design.TIERS:
    raise errors.UserError(
      f"config.exam.tier={tier!r} is unknown: {errors.nearest(tier, exam_design.TIERS)}"
    )
  folder = (exam_set.BUNDLED if location == "bundled" else pathlib.Path(location)) / tier
  if not (folder / exam_set.TABLE).is_file():
    raise errors.UserError(
      f"config.exam.set={location!r}: {folder / exam_set.TABLE} is missing; make a set with "
      "configs/exam_set.py, or give 'bundled'"
    )
  return folder


def latents_of_run(
  config: config_lib.ConfigDict,
  folder: pathlib.Path,
  exam: exam_set.ExamSet,
  trained: Any,
  run_config: dict[str, Any],
) -> tuple[dict[str, exam_set.Latents], list[str]]:
  """Latents of a motion model, and of the model at the start of its run.

  Args:
    config: config of the probe.
    folder: folder of the tier.
    exam: the set.
    trained: parameters of the run.
    run_config: config of the run.

  Returns:
    (name -> latents, notes); the start is left out if it needs data that cannot be read.
  """
  z = exam_pictures.latents(trained, run_config, folder)
  latents = {rows.TRAINED: exam_set.latents(z, exam, path=config.checkpoint)}
  try:
    start = untrained(config, trained, run_config)
  except errors.UserError as error:  # the data of the run may have been moved
    return latents, [
      f"{rows.UNTRAINED}: left out, a run of this model starts from its data: {error}"
    ]
  z = exam_pictures.latents(start, run_config, folder, alone=True)
  latents[rows.UNTRAINED] = exam_set.latents(z, exam)
  if not encoder_is_trained(run_config, start):
    return latents, []
  return latents, [
    f"{rows.UNTRAINED}: with the encoder that this run has trained: what the encoder has "
    "learned is no part of the difference to it"
  ]


def write_latents(path: pathlib.Path, latents: exam_set.Latents) -> None:
  """Writes latents as `exam_set.load_latents` reads them."""
  arrays = {name: values for name, values in vars(latents).items() if values is not None}
  np.savez(path, **arrays)


def untrained(config: config_lib.ConfigDict, trained: Any, run_config: dict) -> Any:
  """Initial parameters as at the start of the run, with a new seed and the encoder of the run.

  Args:
    config: config of the probe.
    trained: parameters of the run.
    run_config: config of the run.

  Raises:
    errors.UserError: the model starts from data that cannot be read.
  """
  model = models.build(run_config["model"])
  if model.components is None:
    return probe.start(model, trained, None, seed=config.seed)
  config = probe.with_run_data(config, run_config)
  windows = motion_data.MotionData(config).windows(
    "train", frames=3, batch_size=config.batch_size, max_windows=config.fit_windows
  )
  return probe.start(model, trained, windows, seed=config.seed)


def encoder_is_trained(run_config: dict, parameters: Any) -> bool:
  """Whether the run trained its encoder."""
  frozen = run_config.get("train", {}).get("frozen")
  frozen = models.build(run_config["model"]).frozen if frozen is None else frozen
  return bool(trees.split({"encoder": parameters["encoder"]}, tuple(frozen))[0])
