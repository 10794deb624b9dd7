"""Runs the exam on the latents of a model or of a file, next to cheats and baselines.

The answer to a pair of the exam is in neither of its pictures alone. No motion model was trained on
the set in this package.

Legend: V views of three pictures, P = 2V pairs, Z latent width.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import errors, models, report, trees
from como_jax.assembly import motion_data
from como_jax.exam import exam_set, motion_score
from como_jax.exam import run as scoring
from como_jax.models import pixels
from como_jax.sim import exam_design
from como_jax.tasks import exam_pictures, exam_rows, probe
from como_jax.train import atomic, rundir

METRICS, LATENTS, ROWS, UNTRAINED = "exam.json", "latents.npz", "rows.json", "untrained"
# Rows without training with which every model is compared, move by move.
COMPARED = {
  "components of the difference": "minus_components",
  "components of the optical flow": "minus_flow",
}


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
  model = probe.load(config.checkpoint) if config.checkpoint else None
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  if config.exam.pairs:
    write_pairs(folder, workdir / "pairs.npz")
  requested = {}
  notes = []
  if model is not None:
    requested["trained"] = exam_set.latents(of_model(*model, folder), exam, path=config.checkpoint)
    np.savez(
      workdir / LATENTS,
      **{name: values for name, values in vars(requested["trained"]).items() if values is not None},
    )
    try:
      fresh = untrained(config, *model)
    except errors.UserError as error:  # the data of the run may have been moved
      notes.append(f"{UNTRAINED}: left out, a run of this model starts from its data: {error}")
    else:
      requested[UNTRAINED] = exam_set.latents(of_model(fresh, model[1], folder, alone=True), exam)
      if encoder_is_trained(model[1], fresh):
        notes.append(
          f"{UNTRAINED}: with the encoder that this run has trained: what the encoder has "
          "learned is no part of the difference to it"
        )
  if foreign is not None:
    requested[f"{pathlib.Path(config.exam.latents).stem}.npz"] = foreign
  if not requested:
    return 0
  results = {
    name: scoring.evaluate(exam, latents, seed=config.seed) for name, latents in requested.items()
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
      notes=[*(f"{name}: {result.sentence}" for name, result in results.items()), *notes],
      config=json.loads(config_lib.to_json(config)),
      versions=rundir.versions(),
      hardware=rundir.hardware(),
    ),
  )
  show(rows)
  print(*notes, sep="\n", end="\n" if notes else "")
  for name, result in results.items():
    print(f"{name}: {result.sentence}")
    for baseline, key in (COMPARED | {f"{UNTRAINED} model": "minus_untrained"}).items():
      if gap := _interval(rows[name], key):
        print(
          f"{name}: error of the move {rows[name]['e_z']:.3f}, minus that of the {baseline}: "
          f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]"
        )
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


def write_pairs(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Writes pictures for other models: "frames" uint8 [V, 3, H, W, 3], "shifted" [V, 2, H, W, 3].

  Row 2v of their z is pictures 0 -> 1 of view v, row 2v + 1 is pictures 1 -> 2. Row v of their
  z_shifted is pictures 0 -> 1 of "shifted".

  Args:
    folder: folder of the tier.
    path: the file to write.
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


def of_model(
  parameters: Any, config: dict, folder: pathlib.Path, *, views: int = 16, alone: bool = False
) -> dict[str, np.ndarray]:
  """Latents of a motion model: z, z_ba [P, Z], z_ac, z_aa and z_shifted [V, Z].

  Each picture is encoded once, and its tokens are used for all its pairs. With inputs "rgb_diff",
  the difference of the pixels of each pair is encoded too.

  Args:
    parameters: parameters of the model.
    config: config of its run, with "model".
    folder: folder of the tier.
    views: number of views of a batch.
    alone: only z, without the other latents.
  """
  model = models.build(config["model"])
  pictures_of_views = exam_pictures.frames(folder, config["model"]["image_size"])
  # Pairs of indices into the three pictures of a view and its two shifted pictures.
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

  def encode_views(pictures: np.ndarray, view_indices: np.ndarray) -> jax.Array:
    return encode(
      parameters,
      pictures
      if alone
      else np.concatenate([pictures, exam_pictures.shifted(pictures, view_indices)], axis=1),
    )

  parameters = jax.device_put(parameters)
  z = exam_pictures.batched(encode_views, views)(
    pictures_of_views, np.arange(len(pictures_of_views))
  )
  return exam_rows.by_name(list(z.swapaxes(0, 1)))


def table(folder: pathlib.Path, results: dict[str, scoring.Result]) -> dict[str, dict[str, Any]]:
  """The rows of the results and those stored with the set.

  Args:
    folder: folder of the tier.
    results: name -> result.

  Returns:
    name -> numbers, "kind" and "verdict"; rows of results also have the paired differences of e_z
    from the rows in `COMPARED`.
  """
  stored = json.loads((folder / ROWS).read_text()) if (folder / ROWS).is_file() else {}
  with np.load(folder / exam_set.TABLE) as file:
    compared = {
      key: file[f"rows/{name}"] for name, key in COMPARED.items() if f"rows/{name}" in file.files
    }
  rows = {}
  for name, result in results.items():
    rows[name] = as_row(result, "baseline" if name == UNTRAINED else "model")
    baselines = (
      compared
      if name != "trained" or UNTRAINED not in results
      else compared | {"minus_untrained": results[UNTRAINED].errors}
    )
    for key, baseline_errors in baselines.items():
      gap = motion_score.difference(result.errors, baseline_errors, result.moves)
      rows[name] |= {key: gap.value, f"{key}_low": gap.low, f"{key}_high": gap.high}
  return rows | stored


def as_row(result: scoring.Result, kind: str) -> dict[str, Any]:
  """A result as it is stored in JSON: numbers, and None for what was withheld."""
  values = {key: value if np.isfinite(value) else None for key, value in result.row().items()}
  return {"kind": kind, "verdict": result.verdict, "flags": list(result.flagged), **values}


def as_report(rows: dict[str, dict[str, Any]]) -> report.Exam:
  """Converts rows for the report."""
  report_rows = []
  for name, row in rows.items():
    excess = {
      key.removeprefix("excess/"): row[key]
      for key in row
      if key.startswith("excess/") and row.get(f"{key}_low") is not None
    }
    strongest = max(excess, key=excess.get) if excess else ""
    report_rows.append(
      report.ExamRow(
        name,
        row["kind"],
        error=_interval(row, "e_z"),
        score=_interval(row, "s"),
        leak=_interval(row, f"excess/{strongest}") if strongest else None,
        read=tuple(row.get("flags", ())),
        gap=_interval(row, "minus_components"),
        future=_interval(row, "future/second"),
      )
    )
  return report.Exam(
    tuple(report_rows),
    tuple(rows.values())[0].get("e_single"),
    tuple(rows.values())[0].get("e_both"),
  )


def _interval(row: dict[str, Any], key: str) -> tuple[float, float, float] | None:
  values = tuple(row.get(name) for name in (key, f"{key}_low", f"{key}_high"))
  return None if any(value is None or not np.isfinite(value) for value in values) else values


def show(rows: dict[str, dict[str, Any]]) -> None:
  """Prints the table: S, error and leakage of each row.

  The last column of leakage, "future", is the share of the second picture that z predicts.
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
    score_text = f"{score[0]:.2f} [{score[1]:.2f}, {score[2]:.2f}]" if score else "withheld"
    leak_values = [row.get(key) for key in leaks.values()]
    cells = " ".join(f"{'-' if value is None else f'{value:.2f}':>7}" for value in leak_values)
    print(
      f"{name:{width}}  {score_text:>22}  {row['e_z']:6.3f}  {cells}  "
      f"{', '.join(row.get('flags', ())) or '-'}"
    )
