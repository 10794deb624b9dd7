"""Runs the exam on the latents of a model or of a file, next to cheats and baselines.

The answer to a pair of the exam is in neither of its pictures alone. No motion model was trained on
the set in this package.
"""

import json
import pathlib
from typing import Any

from como_jax import config as config_lib
from como_jax import errors, models, report
from como_jax.assembly import motion_data, motion_start, run_data
from como_jax.exam import exam_set, rows
from como_jax.exam import run as scoring
from como_jax.inference import exam_pictures, motion_checkpoint
from como_jax.report import exam_rows
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
  folder = exam_set.find(config.exam.set, config.exam.tier)
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
    exam_set.save_latents(workdir / LATENTS, latents[rows.TRAINED])
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

  def windows():
    opened = motion_data.MotionData(run_data.with_run_data(config, run_config))
    return opened.windows(
      "train", frames=3, batch_size=config.batch_size, max_windows=config.fit_windows
    )

  try:
    model = models.build(run_config["model"])
    start = motion_start.untrained(model, trained, windows, seed=config.seed)
  except errors.UserError as error:  # the data of the run may have been moved
    return latents, [
      f"{rows.UNTRAINED}: left out, a run of this model starts from its data: {error}"
    ]
  z = exam_pictures.latents(start, run_config, folder, alone=True)
  latents[rows.UNTRAINED] = exam_set.latents(z, exam)
  if not motion_start.encoder_is_trained(run_config, start):
    return latents, []
  return latents, [
    f"{rows.UNTRAINED}: with the encoder that this run has trained: what the encoder has "
    "learned is no part of the difference to it"
  ]
