"""Takes the exam: latents of a model, or anybody's, scored on pairs whose answer is in neither
picture, beside cheats and baselines.

The set that ships was never shown to a motion model. Legend: V views of three pictures, P = 2V
pairs, Z numbers of a latent.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import errors, models, report, trees
from como_jax.exam import exam_set, motion_score
from como_jax.exam import run as scoring
from como_jax.models import pixels
from como_jax.sim import exam_design
from como_jax.tasks import exam_pictures, exam_rows, motion_data, probe
from como_jax.train import atomic, rundir

METRICS, LATENTS, ROWS, UNTRAINED = "exam.json", "latents.npz", "rows.json", "untrained"
# Rows that every model is compared with, move by move: what no training tells.
COMPARED = {
  "components of the difference": "minus_components",
  "components of the optical flow": "minus_flow",
}


def run(command: config_lib.CommandLine) -> int:
  """Writes pairs.npz where it is asked for; else exam.json, latents.npz and report.html, and prints
  the table.
  """
  config, workdir = command.config, command.workdir
  if not (config.checkpoint or config.exam.latents or config.exam.pairs):
    raise errors.UserError(
      "config.checkpoint and config.exam.latents are empty: give a motion model, or an .npz of "
      "latents"
    )
  folder = find(config.exam.set, config.exam.tier)
  given = exam_set.load(folder)
  foreign = exam_set.load_latents(config.exam.latents, given) if config.exam.latents else None
  model = probe.load(config.checkpoint) if config.checkpoint else None
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  if config.exam.pairs:
    write_pairs(folder, workdir / "pairs.npz")
  asked = {}
  notes = []
  if model is not None:
    asked["trained"] = exam_set.latents(of_model(*model, folder), given, path=config.checkpoint)
    np.savez(
      workdir / LATENTS,
      **{name: values for name, values in vars(asked["trained"]).items() if values is not None},
    )
    try:
      fresh = untrained(config, *model)
    except errors.UserError as error:  # of the run's data, which may be elsewhere by now
      notes.append(f"{UNTRAINED}: left out, a run of this model starts from its data: {error}")
    else:
      asked[UNTRAINED] = exam_set.latents(of_model(fresh, model[1], folder, alone=True), given)
      if encoder_is_trained(model[1], fresh):
        notes.append(
          f"{UNTRAINED}: with the encoder that this run has trained: what the encoder has "
          "learned is no part of the difference to it"
        )
  if foreign is not None:
    asked[f"{pathlib.Path(config.exam.latents).stem}.npz"] = foreign
  if not asked:
    return 0
  results = {
    name: scoring.evaluate(given, latents, seed=config.seed) for name, latents in asked.items()
  }
  rows = table(folder, results)
  atomic.write(
    workdir / METRICS,
    json.dumps({"set": str(config.exam.set), "tier": config.exam.tier, "rows": rows}, indent=2),
  )
  page = report.write(
    workdir,
    report.ReportData(
      title="Motion or appearance?",
      exam=as_report(rows),
      notes=[*(f"{name}: {one.sentence}" for name, one in results.items()), *notes],
      config=json.loads(config_lib.to_json(config)),
      versions=rundir.versions(),
      hardware=rundir.hardware(),
    ),
  )
  show(rows)
  print(*notes, sep="\n", end="\n" if notes else "")
  for name, one in results.items():
    print(f"{name}: {one.sentence}")
    for other, key in (COMPARED | {f"{UNTRAINED} model": "minus_untrained"}).items():
      if gap := _interval(rows[name], key):
        print(
          f"{name}: error of the move {rows[name]['e_z']:.3f}, minus that of the {other}: "
          f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]"
        )
  print(f"report: {page}")
  return 0


def find(given: str, tier: str) -> pathlib.Path:
  """The folder of a tier: of the set that ships ("bundled"), or of one made by configs/exam_set.py.

  Raises:
    errors.UserError: an unknown tier, or no such folder.
  """
  if tier not in exam_design.TIERS:
    raise errors.UserError(
      f"config.exam.tier={tier!r} is unknown: {errors.nearest(tier, exam_design.TIERS)}"
    )
  folder = (exam_set.BUNDLED if given == "bundled" else pathlib.Path(given)) / tier
  if not (folder / exam_set.TABLE).is_file():
    raise errors.UserError(
      f"config.exam.set={given!r}: {folder / exam_set.TABLE} is missing; make a set with "
      "configs/exam_set.py, or give 'bundled'"
    )
  return folder


def write_pairs(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Pictures for a foreign model: "frames" uint8 [V, 3, H, W, 3] and "shifted" [V, 2, H, W, 3].

  Row 2v of its z is pictures 0 -> 1 of view v, row 2v + 1 is 1 -> 2; row v of its z_shifted is
  pictures 0 -> 1 of `shifted`.
  """
  frames = exam_pictures.frames(folder, 0)
  np.savez(path, frames=frames, shifted=exam_pictures.shifted(frames))
  print(
    f"wrote {path}: frames {list(frames.shape)} uint8; row 2v of z is the motion of frames[v, 0] "
    "-> frames[v, 1], row 2v + 1 of frames[v, 1] -> frames[v, 2]. Score an .npz with z "
    f"[{2 * len(frames)}, Z]: python -m como_jax.exam score LATENTS.npz"
  )
  print(
    f"shifted {[len(frames), 2, *frames.shape[2:]]} uint8: frames 0 and 1 of each view, both "
    f"moved by 1/{1 / exam_pictures.SHIFT:.0f} of their side, in which the motion is the same. "
    f"Row v of z_shifted [{len(frames)}, Z], which that .npz may hold too, is the motion of "
    "shifted[v, 0] -> shifted[v, 1]."
  )


def untrained(config: config_lib.ConfigDict, trained: Any, run_config: dict) -> Any:
  """A start of the kind that the run had, drawn anew, with the run's own encoder.

  Raises:
    errors.UserError: it starts from data that cannot be read.
  """
  model = models.build(run_config["model"])
  if model.components is None:
    return probe.start(model, trained, None, seed=config.seed)
  config = probe.with_run_data(config, run_config)
  windows = motion_data.windows(
    config,
    motion_data.data_sets(config),
    split="train",
    frames=3,
    batch_size=config.batch_size,
    most=config.fit_windows,
  )
  return probe.start(model, trained, windows, seed=config.seed)


def encoder_is_trained(run_config: dict, parameters: Any) -> bool:
  """Whether the run changed its encoder."""
  frozen = run_config.get("train", {}).get("frozen")
  frozen = models.build(run_config["model"]).frozen if frozen is None else frozen
  return bool(trees.split({"encoder": parameters["encoder"]}, tuple(frozen))[0])


def of_model(
  parameters: Any, config: dict, folder: pathlib.Path, *, views: int = 16, alone: bool = False
) -> dict[str, np.ndarray]:
  """z, z_ba [P, Z], z_ac, z_aa and z_shifted [V, Z] of a motion model.

  Each picture is encoded once, and its tokens serve all its pairs; with inputs "rgb_diff" each
  pair's difference of pixels is encoded beside them.

  Args:
    parameters: of the model.
    config: of its run, with "model".
    folder: of the set.
    views: at a time.
    alone: z alone, without the other latents.
  """
  model = models.build(config["model"])
  shown = exam_pictures.frames(folder, config["model"]["image_size"])
  # of a view's three pictures and the two shifted ones
  sides = np.array(exam_rows.PAIRS[:2] if alone else [*exam_rows.PAIRS, (3, 4)]).T

  @jax.jit
  def encode(parameters: Any, pictures: jax.Array) -> jax.Array:
    pictures = pixels.normalize(pictures)
    tokens = model.features(parameters, pictures)
    images, features = (
      tuple(values[:, side].reshape(-1, *values.shape[2:]) for side in sides)
      for values in (pictures, tokens)
    )
    z = model.encode(parameters, *images, features=features).z
    return z.reshape(len(pictures), len(sides[0]), -1)

  def every(pictures: np.ndarray, numbers: np.ndarray) -> jax.Array:
    return encode(
      parameters,
      pictures
      if alone
      else np.concatenate([pictures, exam_pictures.shifted(pictures, numbers)], axis=1),
    )

  parameters = jax.device_put(parameters)
  z = exam_pictures.batched(every, views)(shown, np.arange(len(shown)))
  return exam_rows.by_name(list(z.swapaxes(0, 1)))


def table(folder: pathlib.Path, results: dict[str, scoring.Result]) -> dict[str, dict[str, Any]]:
  """Rows asked for and those stored with the set: name -> numbers, "kind", "verdict", and e_z minus
  that of the components, move by move.
  """
  stored = json.loads((folder / ROWS).read_text()) if (folder / ROWS).is_file() else {}
  with np.load(folder / exam_set.TABLE) as file:
    compared = {
      key: file[f"rows/{name}"] for name, key in COMPARED.items() if f"rows/{name}" in file.files
    }
  rows = {}
  for name, one in results.items():
    rows[name] = as_row(one, "baseline" if name == UNTRAINED else "model")
    others = (
      compared
      if name != "trained" or UNTRAINED not in results
      else compared | {"minus_untrained": results[UNTRAINED].errors}
    )
    for key, errors_there in others.items():
      gap = motion_score.difference(one.errors, errors_there, one.moves)
      rows[name] |= {key: gap.value, f"{key}_low": gap.low, f"{key}_high": gap.high}
  return rows | stored


def as_row(result: scoring.Result, kind: str) -> dict[str, Any]:
  """A result as JSON holds it: numbers, None for what was withheld."""
  numbers = {key: value if np.isfinite(value) else None for key, value in result.row().items()}
  return {"kind": kind, "verdict": result.verdict, "flags": list(result.flagged), **numbers}


def as_report(rows: dict[str, dict[str, Any]]) -> report.Exam:
  """The rows as the report shows them."""
  shown = []
  for name, row in rows.items():
    excess = {
      key.removeprefix("excess/"): row[key]
      for key in row
      if key.startswith("excess/") and row.get(f"{key}_low") is not None
    }
    worst = max(excess, key=excess.get) if excess else ""
    shown.append(
      report.ExamRow(
        name,
        row["kind"],
        error=_interval(row, "e_z"),
        score=_interval(row, "s"),
        leak=_interval(row, f"excess/{worst}") if worst else None,
        read=tuple(row.get("flags", ())),
        gap=_interval(row, "minus_components"),
        future=_interval(row, "future/second"),
      )
    )
  return report.Exam(
    tuple(shown), tuple(rows.values())[0].get("e_single"), tuple(rows.values())[0].get("e_both")
  )


def _interval(row: dict[str, Any], key: str) -> tuple[float, float, float] | None:
  values = tuple(row.get(name) for name in (key, f"{key}_low", f"{key}_high"))
  return None if any(value is None or not np.isfinite(value) for value in values) else values


def show(rows: dict[str, dict[str, Any]]) -> None:
  """The table on the terminal: S, error and leakage of every row.

  The last of leakage, "future", is the share of the second picture that z tells.
  """
  width = max(len(name) for name in rows)
  leaks = {
    "scene": "excess/scene",
    "camera": "excess/camera",
    "objects": "excess/objects",
    "colors": "excess/palette",
    "future": "future/second",
  }
  heads = " ".join(f"{name:>7}" for name in leaks)
  print(f"{'':{width}}  {'S [95 %]':>22}  {'e_z':>6}  {heads}  flagged")
  for name, row in rows.items():
    score = _interval(row, "s")
    told = f"{score[0]:.2f} [{score[1]:.2f}, {score[2]:.2f}]" if score else "withheld"
    reads = [row.get(key) for key in leaks.values()]
    cells = " ".join(f"{'-' if value is None else f'{value:.2f}':>7}" for value in reads)
    print(
      f"{name:{width}}  {told:>22}  {row['e_z']:6.3f}  {cells}  "
      f"{', '.join(row.get('flags', ())) or '-'}"
    )
