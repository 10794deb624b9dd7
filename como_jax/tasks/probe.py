"""Is it motion? Every metric of a motion model on any data set, beside the untrained model, and the report page."""

import json
import pathlib
import shlex
import time
from typing import Any

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import data, errors, models, report, trees
from como_jax.data import shards
from como_jax.evaluate import appearance, consistency, linear_probe, mlp_probe, probes, similarity
from como_jax.tasks import latents, offsets, sources
from como_jax.train import checkpoint, log, rng, rundir

METRICS = "metrics.json"


def run(command: config_lib.CommandLine) -> int:
  """Writes metrics.json, latents.npz and report.html into the run directory and prints the numbers."""
  config, workdir = command.config, command.workdir
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  begin = time.monotonic()
  trained, run_config = load(config.checkpoint)
  model = models.build(run_config["model"])
  config = with_run_data(config, run_config)
  sets = sources.data_sets(config)
  windows = sources.windows(config, sets, split="validation", frames=3, batch_size=config.batch_size, most=config.windows)
  fit_windows = sources.windows(config, sets, split="train", frames=3, batch_size=config.batch_size, most=config.fit_windows)
  shapes = jax.eval_shape(model.init, rng.key(0, "init"))
  trained = trees.merge(shapes, trained, what=f"checkpoint {config.checkpoint}")
  untrained = {**jax.jit(model.init)(rng.key(config.seed, "untrained")), "encoder": trained["encoder"]}
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)

  print(f"probe: {windows.size} held-out windows, {fit_windows.size} to fit on, "
        + ", ".join(f"{one.label} at {one.offset_seconds} s" for one in sets))
  measure = latents.Measure(model)
  measured = {"trained": measure(trained, windows), "untrained": measure(untrained, windows)}
  fitted = {"trained": measure.labels(trained, fit_windows), "untrained": measure.labels(untrained, fit_windows)}
  labels = label_names(sets)
  rows, results = {}, {}
  for name, one in measured.items():
    rows[name], results[name] = score(one, fitted[name], windows, seed=config.seed, names=labels)
  for target, result in results["trained"]["probes"].items():
    rows["trained"]["lp_gain" if target == "action" else f"{target}_lp_gain"] = probes.gain(
        result, results["untrained"]["probes"][target], results["trained"]["groups"][target])
  if known := controls(fitted["trained"][1], measured["trained"].columns):
    rows |= known
    results["trained"]["notes"].append(f"{' and '.join(known)}: the action read from the robot's own numbers by the same linear layer, not from z")
  frames = measured["trained"].frames
  rows["copy-current-frame"] = {"reconstruction_mse": frames.copy_mse, "psnr": frames.copy_psnr, "ssim": frames.copy_ssim}
  seconds = time.monotonic() - begin
  notes = [str(text) for text in results["trained"]["notes"]]
  summary = {"checkpoint": str(config.checkpoint), "data": [data_set.label for data_set in sets], "windows": windows.size,
             "offset_seconds": [data_set.offset_seconds for data_set in sets], "rows": rows, "notes": notes, "seconds": seconds}
  (workdir / METRICS).write_text(json.dumps(summary, indent=2))
  np.savez(workdir / "latents.npz", z=measured["trained"].z, past=measured["trained"].past, future=measured["trained"].future,
           **measured["trained"].columns)
  page = report.write(workdir, page_data(command, config, run_config, measure, trained, measured, rows, results, windows, sets, seconds))
  show(rows, notes)
  print(f"report: {page}")
  return 0


def load(path: str) -> tuple[dict, dict]:
  """Parameters and config of a motion model.

  Raises:
    errors.UserError: no checkpoint given, or it holds another kind of model.
  """
  if not path:
    raise errors.UserError("config.checkpoint is empty: give the run directory or weights folder of a motion model")
  params, config = checkpoint.load(path)
  if config.get("model", {}).get("kind") != "motion":
    kind = config.get("model", {}).get("kind") or config.get("kind", "unknown")
    raise errors.UserError(f"checkpoint {path!r} holds a model of kind {kind!r}, a motion model is expected")
  return params, config


def with_run_data(config: config_lib.ConfigDict, run_config: dict) -> config_lib.ConfigDict:
  """The probe's config with what it leaves open (None) taken from the training run's data section. Data that is given is probed at the
  offset that the model was trained with (`tasks.offsets`), and a line says which that is.

  Raises:
    errors.UserError: which offset that is cannot be told.
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
    offset = offsets.choose(config.data.path, run_config["data"], given=config.data.offset_seconds, option="--config.data.offset_seconds",
                            checkpoint=str(config.checkpoint))
    section.offset_seconds = offset.seconds
    print(f"probe: {config.data.path}: {offset}")
  elif config.data.offset_seconds is not None:  # for all data sets of the training, whatever their own
    section.mixture = tuple({**entry, "offset_seconds": config.data.offset_seconds} for entry in section.mixture)
  config.data = section
  return config


def label_names(sets: list[data.DataSet]) -> dict[str, Any]:
  """Names of action and state dimensions, when all data sets that have any agree."""
  found = {}
  for key in ("action", "state"):
    every = {json.dumps(facts["names"]) for one in sets if (facts := shards.read_manifest(one.path)[key])["size"]}
    found[key] = json.loads(every.pop()) if len(every) == 1 else None
  return found


def score(one: latents.Measured, fit: tuple[np.ndarray, dict], windows, *, seed: int, names: dict[str, Any]) -> tuple[dict, dict]:
  """(row of numbers for the table, results to draw) of one model: held-out windows, and training windows to fit probes on."""
  ids = one.columns
  # Groups, not episodes: those that show the same motion in other scenes never stand on both sides.
  episodes, tasks, cameras = ids["group"], ids["task"], ids["camera"]
  pcfc, rank = consistency.s_pcfc(one.past, one.future), consistency.effective_rank(one.z)
  row = {"s_pcfc": pcfc.mean, "s_pcfc_centred": pcfc.mean_centred, "effective_rank": rank.entropy,
         "participation_ratio": rank.participation, "copy_ratio": one.frames.ratio, "copy_ratio_moving": one.frames.moving_ratio,
         "reconstruction_mse": one.frames.mse, "psnr": one.frames.psnr, "ssim": one.frames.ssim}
  results: dict[str, Any] = {"s_pcfc": pcfc, "notes": [one.frames.text, pcfc.text], "probes": {}, "groups": {}}
  z, both = np.concatenate([fit[0], one.z]), np.concatenate([fit[1]["group"], episodes])
  held_out = np.arange(len(z)) >= len(fit[0])
  for target in latents.TARGETS:
    values, before = latents.target(ids, target), latents.target(fit[1], target)
    if values is None or before is None:
      results["notes"].append(f"the data has no {target}: no probe of it")
      continue
    some = np.concatenate([latents.having(fit[1], target), latents.having(ids, target)])
    if len(np.unique(both[some & ~held_out])) < 2:
      results["notes"].append(f"{target}: fewer than 2 episodes to fit on have one: no probe of it")
      continue
    if not some.all():
      parts = ", ".join(windows.datasets[i] for i in np.unique(ids["dataset"][latents.having(ids, target)]))
      results["notes"].append(f"{target}: {len(values)} of {len(ids['group'])} held-out windows have one, those of {parts}: the probes are of these")
    prefix = "" if target == "action" else "state_"
    dimensions = latents.names(names[target], values.shape[1], target)
    settings = dict(episodes=both[some], names=dimensions, held_out=held_out[some], seed=seed)
    linear = linear_probe.probe(z[some], np.concatenate([before, values]), **settings)
    mlp = mlp_probe.probe(z[some], np.concatenate([before, values]), **settings)
    results["groups"][target] = both[some]
    row |= {prefix + "lp_mse": (linear.mse, linear.standard_error), prefix + "lp_mse_raw": linear.mse_raw, prefix + "lp_r2": linear.r2,
            prefix + "mlp_mse": (mlp.mse, mlp.standard_error)}
    row |= {f"{prefix}r2/{name}": float(value) for name, value in zip(dimensions, linear.r2_by_dimension)}
    results["probes"][target] = linear
    results["notes"] += [f"{target}: {linear.text}", f"{target}, MLP: {mlp.text}"]
  few = len(np.unique(episodes)) < 5
  several_views, several_tasks = len(np.unique(cameras)) > 1, len(np.unique(tasks)) > 1
  if several_views and not few:
    identity = appearance.identity(one.z, cameras, episodes=episodes, groups=tasks, seed=seed)
    row["camera_excess"] = identity.excess
    has = latents.having(ids, "action")
    if len(np.unique(cameras[has])) > 1 and len(np.unique(episodes[has])) >= 5:
      found = similarity.retrieval(one.z[has], latents.target(ids, "action"), views=cameras[has], episodes=episodes[has], seed=seed)
      row |= {"retrieval": found.cosine, "retrieval_chance": found.chance}
  contrast = similarity.contrast(one.z, episodes, ids["time"], views=cameras, scenes=ids["episode"], stride=ids["stride"])
  if np.isfinite(contrast.motion):
    row["motion_contrast"] = (contrast.motion, contrast.standard_error)
  if np.isfinite(contrast.appearance):
    row["appearance_contrast"] = contrast.appearance
  results["notes"].append(f"motion contrast: {contrast.text}")
  if several_tasks or several_views:
    groups = np.array([f"{windows.tasks[t] or 'clip'} | {windows.cameras[c]}" for t, c in zip(tasks, cameras)])
    results["similarity"] = similarity.matrix(one.z, groups, views=cameras) if len(np.unique(groups)) <= 40 else None
  return row, results


def controls(fit: dict[str, np.ndarray], held_out: dict[str, np.ndarray]) -> dict[str, dict]:
  """Rows of what the robot's own numbers tell of the action, by which the verdict knows actions that are positions; {} without any.

  Args:
    fit, held_out: columns of the windows that probes are fitted on, and scored on.
  """
  parts = []
  for columns in (fit, held_out):
    has = latents.having(columns, "action") & latents.having(columns, "state")
    parts.append({name: columns[name][has] for name in ("group", "action", "state", "state_delta") if name in columns})
  if any(len(part["group"]) == 0 for part in parts):
    return {}
  both = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  settings = dict(episodes=both["group"], held_out=np.arange(len(both["group"])) >= len(parts[0]["group"]))
  known = {report.TRUE_CHANGE: both["state_delta"][:, 1], report.TRUE_STATE: both["state"][:, 1]}
  found = {row: linear_probe.probe(values, both["action"][:, 1], **settings) for row, values in known.items()}
  return {row: {"lp_mse": (one.mse, one.standard_error)} for row, one in found.items()}


def page_data(command, config, run_config, measure, params, measured, rows, results, windows, sets, seconds) -> report.ReportData:
  """Everything the page shows."""
  run_folder = pathlib.Path(config.checkpoint)
  run_folder = run_folder.parent if run_folder.name == checkpoint.WEIGHTS else run_folder
  curves = {**log.read(run_folder, kind="train"),
            **{f"validation/{name}": curve for name, curve in log.read(run_folder, kind="validation").items()}}
  shown = windows.pictures(config.pictures)
  first, second = shown["frames"][:, 1], shown["frames"][:, 2]
  captions = [f"{task or episode}, {camera}" for task, episode, camera in zip(shown["task"], shown["episode"], shown["camera"])]
  onto = np.roll(np.arange(len(first)), 1)
  trained = measured["trained"]
  scatters = {}
  for target, result in results["trained"]["probes"].items():
    for d, name in enumerate(result.names):
      scatters[f"{target}: {name}"] = report.Scatter(result.true[:, d], result.predicted[:, d], float(result.r2_by_dimension[d]))
  points, explained = consistency.principal_components(trained.z)
  colored, colours = _colourings(trained, results)
  matrix = results["trained"].get("similarity")
  manifests = [shards.read_manifest(one.path) for one in sets]
  quarantine = [entry for manifest in manifests for key in ("quarantine", "skipped") for entry in manifest[key]]
  speed = run_folder / "speed.json"
  times = {"probe, seconds": round(seconds, 1)}
  if speed.is_file():
    times |= {f"training, {key}": value for key, value in json.loads(speed.read_text()).items()}
  splits_note = split_note(config, run_config)
  return report.ReportData(
      title=f"Motion model: {run_folder.name}", metrics=rows, metric_notes=[splits_note, *results["trained"]["notes"]], curves=curves,
      reconstruction=report.Reconstruction(first, second, measure.predict(params, first, second), captions),
      transfer=report.Transfer(first, second, first[onto], measure.predict(params, first, second, first[onto]),
                               [f"{captions[i]} → {captions[j]}" for i, j in enumerate(onto)]),
      s_pcfc={name: result["s_pcfc"].values for name, result in results.items()}, probes=scatters,
      pca=report.Projection(points[colored], colours, tuple(float(x) for x in explained)) if colours else None,
      similarity=report.Similarity(matrix.values, matrix.labels) if matrix is not None else None,
      config=run_config, versions=rundir.versions(), hardware=rundir.hardware(), time=times,
      commands=["python -m como_jax.main " + shlex.join(command.words)], quarantine=quarantine)


def split_note(config, run_config: dict) -> str:
  """Which episodes were measured, and whether the model was trained on them."""
  before, now = run_config["data"], json.loads(config_lib.to_json(config.data))
  if all(before[key] == now[key] for key in ("path", "mixture", "validation_fraction")):
    return ("Measured on the validation episodes of the training run; probes are fitted on its training episodes, whose actions the "
            "model has never seen. Episodes of the same motion stand on one side.")
  return ("Measured on the validation episodes of this data (not the split of the training run); probes are fitted on its other "
          "episodes. Episodes of the same motion stand on one side.")


def _colourings(one: latents.Measured, results: dict) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """(windows that have the first target that was probed, {name: its values there} of the first dimensions)."""
  for target, result in results["trained"]["probes"].items():
    values = latents.target(one.columns, target)
    return latents.having(one.columns, target), {f"{target}: {name}": values[:, d] for d, name in enumerate(result.names[:4])}
  return np.ones(len(one.z), bool), {}


def show(rows: dict[str, dict], notes: list[str]) -> None:
  """The table on the terminal."""
  keys = [key for key in dict.fromkeys(key for row in rows.values() for key in row)]
  width = max(len(key) for key in keys)
  print(f"{'':{width}}  " + "  ".join(f"{name:>18}" for name in rows))
  for key in keys:
    cells = []
    for row in rows.values():
      value = row.get(key)
      value, error = value if isinstance(value, tuple) else (value, None)
      cells.append(f"{'':>18}" if value is None else f"{value:.4f}" + (f" ± {error:.4f}" if error else "") )
    print(f"{key:{width}}  " + "  ".join(f"{cell:>18}" for cell in cells))
  for note in notes:
    print(f"  {note}")

