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
from como_jax.sim import exam_design, exam_draws
from como_jax.train import atomic, encoder_weights, rng, rundir

FACTS = "exam.json"


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
      write_tier(folder, design, tier, world, settings)
  world.close()
  for folder in folders:
    pictures = load(folder)
    if "pictures" not in pictures.table:
      pictures.table["pictures"] = exam_components.moving(pictures)
      save(folder, pictures.table)
    if not any(key.startswith("errors/") for key in pictures.table):
      pictures.table.update(
        exam_controls.errors(pictures, steps=config.control_steps, seed=config.seed)
      )
      save(folder, pictures.table)
    if not (folder / rows_lib.ROWS).exists():
      stored = rows(folder, pictures)
      kept = {
        name: values
        for name, values in pictures.table.items()
        if name != "inverse_model" and not name.startswith("state")
      }
      # Arrays that only controls and rows need are dropped. The errors of rows with which models
      # are compared stay.
      save(folder, kept)
      # No indentation, because the set has to be small.
      atomic.write(folder / rows_lib.ROWS, json.dumps(stored, indent=0, separators=(",", ":")))
  facts = {"config": json.loads(config_lib.to_json(config)), "simulator": exam_world.VERSION}
  (workdir / FACTS).write_text(json.dumps(facts, indent=2))
  return 0


def load(folder: pathlib.Path) -> pictures_lib.Pictures:
  """Reads the pictures of a tier, at the size of the bundled encoder and with its tokens."""
  model = models.build(model_presets.preset("motion", "debug"))
  parameters = {**model.init(rng.key(0, "exam")), **encoder_weights.load("bundled", model=model)}
  return exam_pictures.load(folder, model, parameters)


def rows(folder: pathlib.Path, pictures: pictures_lib.Pictures) -> dict[str, rows_lib.Row]:
  """Scores the cheats and the baselines: {row: scores}.

  The errors of rows in `exam.rows.COMPARED` are added to `pictures.table`.

  Args:
    folder: folder of the tier.
    pictures: the set.
  """
  exam, result_rows = exam_set.load(folder), {}
  kinds: dict[str, str] = {
    **dict.fromkeys(exam_baselines.CHEATS, "cheat"),
    **dict.fromkeys(exam_baselines.BASELINES, "baseline"),
    **dict.fromkeys(exam_baselines.LABELED, "control"),
  }
  for name, latents in exam_baselines.build(pictures, exam_pictures.moved_cells).items():
    result = scoring.evaluate(exam, exam_set.latents(latents, exam))
    row = rows_lib.as_row(result, kinds[name])
    # The controls are the same for all rows.
    fields = {
      key: value
      for key, value in row.items()
      if key != "seconds" and not key.startswith("e_control/")
    }
    result_rows[name] = {
      key: float(f"{value:.4g}") if isinstance(value, float) else value
      for key, value in fields.items()
    }
    print(f"{name}: {result.sentence}", flush=True)
    if name in rows_lib.COMPARED:
      pictures.table[f"rows/{name}"] = result.errors.astype(np.float32)
  return result_rows


def save(folder: pathlib.Path, table: dict[str, np.ndarray]) -> None:
  """Writes exam.npz: values in float32, errors and properties of views in float16."""

  def stored(name: str, values: np.ndarray) -> np.ndarray:
    if name.startswith(("errors", "rows", "numbers")):
      # Errors far above 1 are all equally bad, so they are limited to the range of float16.
      return np.minimum(values, np.finfo(np.float16).max).astype(np.float16)
    return values.astype(np.float32) if values.dtype == np.float64 else values

  partial = folder / f"{exam_set.TABLE}.partial.npz"
  # `Any`, since numpy.savez_compressed also has a keyword that is no array.
  arrays: dict[str, Any] = {name: stored(name, values) for name, values in table.items()}
  np.savez_compressed(partial, **arrays)
  partial.replace(folder / exam_set.TABLE)


def write_tier(
  folder: pathlib.Path,
  design: exam_design.Design,
  tier: int,
  world: Any,
  settings: exam_design.Settings,
) -> None:
  """Writes pictures.mp4 and exam.npz of a tier.

  The pictures are in the order 0, 1, 2 of view 0, then of view 1, and so on.

  Args:
    folder: folder of the tier.
    design: design of the exam.
    tier: index of the tier.
    world: an `exam_world.World`, which only an optional package can make.
    settings: settings of the exam.
  """
  folder.mkdir(parents=True, exist_ok=True)
  chosen, camera_targets, robot_targets = exam_design.targets(design, tier)
  views = {name: values[chosen] for name, values in design.views.items()}
  # The last key is the first to sort by.
  order = np.lexsort(
    [views[name] for name in ("chain", "palette", "objects", "camera", "scene", "part")]
  )
  pairs = np.stack([2 * order, 2 * order + 1], axis=1).reshape(-1)
  film, numbers = _film(folder.name, design, chosen[order], world, settings.quality[tier])
  (folder / pictures_lib.PICTURES).write_bytes(film)
  table = {name: values[order] for name, values in views.items()}
  table |= {
    "camera_speed": design.camera_speed[chosen][order],
    "target": camera_targets[pairs],
    "target_robot": robot_targets[pairs],
    "names": np.array(exam_design.NAMES[folder.name]),
    "names_robot": np.array(exam_design.ROBOT_NAMES[folder.name]),
  }
  for picture, name in enumerate(("first", "second")):
    table |= {
      f"state{frame}/{name}": exam_design.states(design, tier, picture, camera=not frame)[pairs]
      for frame in ("", "_robot")
    }
  table["limit"] = exam_draws.closed_form(tier)["conditional"]
  table["place"] = exam_design.places(design, tier)[order].astype(np.float16)
  save(folder, table | {f"numbers/{name}": values for name, values in numbers.items()})


def _film(
  name: str, design: exam_design.Design, views: np.ndarray, world: Any, quality: int
) -> tuple[bytes, dict[str, np.ndarray]]:
  """Films the three pictures of each view.

  Args:
    name: name of the tier, for the progress bar.
    design: design of the exam.
    views: indices of the views in the design.
    world: an `exam_world.World`.
    quality: of the H.264 video.

  Returns:
    (video, properties of the views as numbers [V, ...]: what the world draws, and "camera", its
    position from the center).
  """
  encoder, numbers = video.H264Encoder(quality, group=250), []
  interval = 1.0 if sys.stderr.isatty() else 30.0
  for view in tqdm.tqdm(views, unit="view", desc=name, mininterval=interval):
    labels = {key: int(values[view]) for key, values in design.views.items()}
    appearance = world.dress(labels["scene"], labels["objects"], labels["palette"])
    for picture in range(3):
      encoder.add(
        world.look(
          design.poses[labels["chain"], picture],
          design.pushed[labels["chain"], picture],
          exam_design.camera_at(design, int(view), picture),
        )
      )
    position, _, _ = exam_design.camera_at(design, int(view), 0)
    numbers.append({**appearance, "camera": position - exam_design.CENTER})
  return encoder.finish(), {key: np.array([row[key] for row in numbers]) for key in numbers[0]}
