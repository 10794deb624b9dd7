"""Makes the sets of the exam: pictures, targets and errors of the controls, in a folder per tier.

With --resume, a stage whose product exists is skipped, so that an interrupted run can go on.
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np
import tqdm

from como_jax import config as config_lib
from como_jax import model_presets, models
from como_jax.data import video
from como_jax.evaluate import exam_baselines, exam_components, exam_controls
from como_jax.exam import exam_set
from como_jax.exam import pictures as pictures_lib
from como_jax.exam import rows as rows_lib
from como_jax.exam import run as scoring
from como_jax.inference import exam_pictures
from como_jax.sim import exam_design, exam_draws, exam_table
from como_jax.train import atomic, encoder_weights, rng, rundir

FACTS = "exam.json"
DROPPED = ("inverse_model", "state")  # starts of arrays that only controls and rows need


def run(command: config_lib.CommandLine) -> int:
  """Writes WORKDIR/TIER for each tier of `exam_design.TIERS`; called by `como_jax.main`."""
  from como_jax.sim import exam_world

  config, workdir = command.config, pathlib.Path(command.workdir)
  settings = exam_design.Settings(**config.exam.to_dict())
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  design, world = exam_draws.draw(settings), exam_world.World(settings.image_size)
  folders = [workdir / name for name in exam_design.TIERS]
  for tier, folder in enumerate(folders):
    if not (folder / exam_set.TABLE).exists():
      write_tier(folder, design, tier, world, quality=settings.quality[tier])
  world.close()
  for folder in folders:
    pictures = load(folder)
    if "pictures" not in pictures.table:
      pictures.table["pictures"] = exam_components.moving(pictures)
      exam_set.save(folder, pictures.table)
    if not any(key.startswith("errors/") for key in pictures.table):
      pictures.table.update(
        exam_controls.errors(pictures, steps=config.control_steps, seed=config.seed)
      )
      exam_set.save(folder, pictures.table)
    if not (folder / rows_lib.ROWS).exists():
      write_rows(folder, pictures)
  facts = {"config": json.loads(config_lib.to_json(config)), "simulator": exam_world.VERSION}
  (workdir / FACTS).write_text(json.dumps(facts, indent=2))
  return 0


def load(folder: pathlib.Path) -> pictures_lib.Pictures:
  """Reads the pictures of a tier, at the size of the bundled encoder and with its tokens."""
  model = models.build(model_presets.preset("motion", "debug"))
  parameters = {**model.init(rng.key(0, "exam")), **encoder_weights.load("bundled", model=model)}
  return exam_pictures.load(folder, model, parameters)


def write_tier(
  folder: pathlib.Path, design: exam_design.Design, tier: int, world: Any, *, quality: int
) -> None:
  """Writes pictures.mp4 and exam.npz of a tier.

  The pictures are in the order 0, 1, 2 of view 0, then of view 1, and so on.

  Args:
    folder: folder of the tier.
    design: design of the exam.
    tier: index of the tier.
    world: an `exam_world.World`, which only an optional package can make.
    quality: of the H.264 video.
  """
  folder.mkdir(parents=True, exist_ok=True)
  views, table = exam_table.table(design, tier)
  encoder, numbers = video.H264Encoder(quality, group=250), []
  interval = 1.0 if sys.stderr.isatty() else 30.0
  for view in tqdm.tqdm(views, unit="view", desc=folder.name, mininterval=interval):
    pictures, properties = world.film(design, int(view))
    for picture in pictures:
      encoder.add(picture)
    numbers.append(properties)
  (folder / pictures_lib.PICTURES).write_bytes(encoder.finish())
  table |= {f"numbers/{name}": np.array([row[name] for row in numbers]) for name in numbers[0]}
  exam_set.save(folder, table)


def write_rows(folder: pathlib.Path, pictures: pictures_lib.Pictures) -> None:
  """Scores the cheats and the baselines, and writes rows.json.

  The errors of rows with which models are compared are added to exam.npz.

  Args:
    folder: folder of the tier.
    pictures: the set.
  """
  exam, rows = exam_set.load(folder), {}
  table = {name: values for name, values in pictures.table.items() if not name.startswith(DROPPED)}
  for name, latents in exam_baselines.build(pictures, exam_pictures.moved_cells).items():
    result = scoring.evaluate(exam, exam_set.latents(latents, exam))
    rows[name] = rows_lib.stored_row(result, exam_baselines.KINDS[name])
    print(f"{name}: {result.sentence}", flush=True)
    if name in rows_lib.COMPARED:
      table[f"rows/{name}"] = result.errors.astype(np.float32)
  exam_set.save(folder, table)
  # No indentation, because the set has to be small.
  atomic.write(folder / rows_lib.ROWS, json.dumps(rows, indent=0, separators=(",", ":")))
