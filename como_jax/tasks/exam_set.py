"""Makes the sets of the exam: pictures, targets and errors of the controls, in a folder per tier.

With --resume, a stage whose product exists is skipped, so that an interrupted run can go on.
"""

import json
import pathlib
import sys

import numpy as np
import tqdm

from como_jax import config as config_lib
from como_jax.data import video
from como_jax.exam import exam_set
from como_jax.exam import run as scoring
from como_jax.sim import exam_design
from como_jax.tasks import exam, exam_controls, exam_pictures, exam_rows
from como_jax.train import atomic, rundir

FACTS = "exam.json"
COMPONENTS = 8  # number of components of what moves in a picture
_VIEWS = 1_000  # maximum number of views of the fit part from which the components are computed


def run(command: config_lib.CommandLine) -> int:
  """Writes WORKDIR/TIER for each tier of `exam_design.TIERS`; called by `como_jax.main`."""
  from como_jax.sim import exam_world

  config, workdir = command.config, pathlib.Path(command.workdir)
  settings = exam_design.Settings(**config.exam.to_dict())
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  design, world = exam_design.draw(settings), exam_world.World(settings.image_size)
  folders = [workdir / name for name in exam_design.TIERS]
  for tier, folder in enumerate(folders):
    if not (folder / exam_set.TABLE).exists():
      write_tier(folder, design, tier, world, settings)
  world.close()
  for folder in folders:
    pictures = exam_pictures.load(folder)
    if "pictures" not in pictures.table:
      pictures.table["pictures"] = picture_components(pictures)
      save(folder, pictures.table)
    if not any(key.startswith("errors/") for key in pictures.table):
      pictures.table.update(
        exam_controls.errors(pictures, steps=config.control_steps, seed=config.seed)
      )
      save(folder, pictures.table)
    if not (folder / exam.ROWS).exists():
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
      atomic.write(folder / exam.ROWS, json.dumps(stored, indent=0, separators=(",", ":")))
  facts = {"config": json.loads(config_lib.to_json(config)), "simulator": exam_world.VERSION}
  (workdir / FACTS).write_text(json.dumps(facts, indent=2))
  return 0


def picture_components(pictures: exam_pictures.Pictures) -> np.ndarray:
  """What moves in the pictures of the test, as components of tokens of the bundled encoder.

  The components are the principal components, not standardized, of the differences of the three
  pictures of a view from their mean, on the fit part. They are applied to the tokens of the test
  minus their mean over the pictures of the same camera and scene.

  Components of the tokens themselves would not work: nine tenths of their variance is camera and
  scene, which are equal in both pictures of a pair. A copy of the second picture would predict the
  second picture hardly better than the first.

  Returns:
    float16 [views of part TEST, 3, 8].
  """
  part, camera, scene = (pictures.table[name] for name in ("part", "camera", "scene"))
  fit = np.flatnonzero(part == exam_set.FIT)
  fit = fit[:: -(-len(fit) // _VIEWS)]
  tokens = pictures.tokens[fit].reshape(len(fit), 3, -1).astype(np.float32)
  moving = tokens - tokens.mean(axis=1, keepdims=True)
  project = exam_rows.components(moving.reshape(-1, moving.shape[-1]), COMPONENTS)
  test = np.flatnonzero(part == exam_set.TEST)
  projected = np.stack(
    [project(pictures.tokens[view].reshape(3, -1).astype(np.float32)) for view in test]
  )
  _, cell = np.unique(np.stack([camera[test], scene[test]]), axis=1, return_inverse=True)
  for index in np.unique(cell):
    projected[cell == index] -= projected[cell == index].mean(axis=(0, 1))
  return projected.astype(np.float16)


def rows(folder: pathlib.Path, pictures: exam_pictures.Pictures) -> dict[str, dict]:
  """Scores the cheats and the baselines: {row: scores}.

  The errors of rows in `exam.COMPARED` are added to `pictures.table`.

  Args:
    folder: folder of the tier.
    pictures: the set.
  """
  exam_data, result_rows = exam_set.load(folder), {}
  kinds = (
    dict.fromkeys(exam_rows.CHEATS, "cheat")
    | dict.fromkeys(exam_rows.BASELINES, "baseline")
    | dict.fromkeys(exam_rows.LABELED, "control")
  )
  for name, latents in exam_rows.build(pictures).items():
    result = scoring.evaluate(exam_data, exam_set.latents(latents, exam_data))
    row = exam.as_row(result, kinds[name])
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
    if name in exam.COMPARED:
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
  np.savez_compressed(partial, **{name: stored(name, values) for name, values in table.items()})
  partial.replace(folder / exam_set.TABLE)


def write_tier(
  folder: pathlib.Path, design: exam_design.Design, tier: int, world, settings: exam_design.Settings
) -> None:
  """Writes pictures.mp4 and exam.npz of a tier.

  The pictures are in the order 0, 1, 2 of view 0, then of view 1, and so on.

  Args:
    folder: folder of the tier.
    design: design of the exam.
    tier: index of the tier.
    world: an `exam_world.World`.
    settings: settings of the exam.
  """
  folder.mkdir(parents=True, exist_ok=True)
  chosen, camera_targets, robot_targets = exam_design.targets(design, tier)
  views = {name: values[chosen] for name, values in design.views.items()}
  order = np.lexsort(
    (
      views["chain"],
      views["palette"],
      views["objects"],
      views["camera"],
      views["scene"],
      views["part"],
    )
  )
  pairs = np.stack([2 * order, 2 * order + 1], axis=1).reshape(-1)
  encoder, view_numbers = video.H264Encoder(settings.quality[tier], group=250), []
  for view in tqdm.tqdm(
    chosen[order], unit="view", desc=folder.name, mininterval=1.0 if sys.stderr.isatty() else 30.0
  ):
    view_labels = {name: int(values[view]) for name, values in design.views.items()}
    appearance = world.dress(view_labels["scene"], view_labels["objects"], view_labels["palette"])
    for picture in range(3):
      encoder.add(
        world.look(
          design.poses[view_labels["chain"], picture],
          design.pushed[view_labels["chain"], picture],
          exam_design.camera_at(design, int(view), picture),
        )
      )
    position, _, _ = exam_design.camera_at(design, int(view), 0)
    view_numbers.append({**appearance, "camera": position - exam_design.CENTER})
  (folder / exam_pictures.PICTURES).write_bytes(encoder.finish())
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
  table["limit"] = exam_design.closed_form(tier)["conditional"]
  table["place"] = exam_design.places(design, tier)[order].astype(np.float16)
  table |= {
    f"numbers/{name}": np.array([row[name] for row in view_numbers]) for name in view_numbers[0]
  }
  save(folder, table)
