"""Tests whether z holds motion.

It computes all metrics of a motion model on a data set, next to those of the untrained model, and
writes the report.
"""

import json
import pathlib
import shlex
import time
from typing import Any

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import data, errors, models, report, trees
from como_jax.assembly import motion_data
from como_jax.data import shards
from como_jax.evaluate import consistency, probes
from como_jax.inference import motion_evaluator
from como_jax.tasks import components as components_lib
from como_jax.tasks import offsets, probe_controls, probe_rows, probe_targets
from como_jax.train import checkpoint, log, rng, rundir

METRICS = "metrics.json"


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
  trained, run_config = load(config.checkpoint)
  model = models.build(run_config["model"])
  config = with_run_data(config, run_config)
  data = motion_data.MotionData(config)
  sets = data.mixture.datasets
  windows, fit_windows = (
    data.windows(split, frames=3, batch_size=config.batch_size, max_windows=count)
    for split, count in (("validation", config.windows), ("train", config.fit_windows))
  )
  shapes = jax.eval_shape(model.init, rng.key(0, "init"))
  trained = trees.merge(shapes, trained, what=f"checkpoint {config.checkpoint}")
  untrained = start(model, trained, fit_windows, seed=config.seed)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)

  print(
    f"probe: {windows.size} held-out windows, {fit_windows.size} to fit on, "
    + ", ".join(
      f"{data_set.label} at {data_set.offset_seconds} s" for data_set in data.mixture.datasets
    )
  )
  evaluator = motion_evaluator.MotionEvaluator(model)
  measured = {
    "trained": evaluator(trained, windows, pictures=True),
    "untrained": evaluator(untrained, windows),
  }
  fitted = evaluator.labels({"trained": trained, "untrained": untrained}, fit_windows)
  held_out = measured["trained"].columns
  targets = [
    probe_targets.build(
      name, fitted.columns, held_out, names=label_names(sets), datasets=windows.datasets
    )
    for name in motion_evaluator.TARGETS
  ]
  rows, results = {}, {}
  for name, evaluated in measured.items():
    rows[name], results[name] = probe_rows.score(
      evaluated, fitted.z[name], windows, targets, seed=config.seed
    )
  components, rows["difference"], results["difference"] = probe_controls.difference(
    fitted, measured["trained"], targets, seed=config.seed
  )
  for name, (row, result) in probe_controls.one_picture(
    fitted, measured["trained"], targets, seed=config.seed
  ).items():
    rows[name], results[name] = row, result
  latent = {
    name: np.concatenate([fitted.z[name], evaluated.z]) for name, evaluated in measured.items()
  } | {"difference": components}

  def both(name):
    return np.concatenate([fitted.columns[name], held_out[name]])

  pictures = np.concatenate([fitted.pictures, measured["trained"].pictures])
  strong, strong_notes = probe_controls.strong(
    latent, pictures, targets, both("camera"), seed=config.seed
  )
  for name, row in strong.items():
    rows[name] = rows.get(name, {}) | row
  for target in targets:
    for baseline, gain in probe_controls.GAINS.items():
      if target.robots:
        pair = (results[name]["probes"][target.name] for name in ("trained", baseline))
        rows["trained"][probe_rows.PREFIXES[target.name] + gain] = probes.gain(*pair, target.groups)
  results["trained"]["notes"] += results["difference"]["notes"] + strong_notes
  if state_rows := probe_rows.state_rows(targets[0], fitted.columns, held_out, seed=config.seed):
    rows |= state_rows
    results["trained"]["notes"].append(
      f"{' and '.join(state_rows)}: the action read from the robot's own numbers by the same "
      "linear layer, not from z"
    )
  frames = measured["trained"].frames
  rows["copy-current-frame"] = {
    "reconstruction_mse": frames.copy_mse,
    "psnr": frames.copy_psnr,
    "ssim": frames.copy_ssim,
  }
  seconds = time.monotonic() - begin
  notes = [str(text) for text in results["trained"]["notes"]]
  summary = {
    "checkpoint": str(config.checkpoint),
    "data": [data_set.label for data_set in sets],
    "windows": windows.size,
    "offset_seconds": [data_set.offset_seconds for data_set in sets],
    "rows": rows,
    "notes": notes,
    "seconds": seconds,
  }
  (workdir / METRICS).write_text(json.dumps(summary, indent=2))
  np.savez(
    workdir / "latents.npz",
    z=measured["trained"].z,
    past=measured["trained"].past,
    future=measured["trained"].future,
    **measured["trained"].columns,
  )
  page = report.write(
    workdir,
    page_data(
      command,
      config,
      run_config,
      evaluator,
      trained,
      measured,
      rows,
      results,
      windows,
      sets,
      seconds,
    ),
  )
  show(rows, notes)
  print(f"report: {page}")
  return 0


def load(path: str) -> tuple[dict, dict]:
  """Reads the parameters and the config of a motion model.

  Raises:
    errors.UserError: there is no checkpoint, or it holds another kind of model.
  """
  if not path:
    raise errors.UserError(
      "config.checkpoint is empty: give the run directory or weights folder of a motion model"
    )
  params, config = checkpoint.load(path)
  if config.get("model", {}).get("kind") != "motion":
    kind = config.get("model", {}).get("kind") or config.get("kind", "unknown")
    raise errors.UserError(
      f"checkpoint {path!r} holds a model of kind {kind!r}, a motion model is expected"
    )
  return params, config


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
  (`tasks.offsets`), and a line with this offset is printed.

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


def label_names(sets: list[data.DataSet]) -> dict[str, list[Any]]:
  """Names of the dimensions of "action" and "state" in each data set; None if it has no names."""
  manifests = [shards.read_manifest(data_set.path) for data_set in sets]
  return {key: [manifest[key]["names"] for manifest in manifests] for key in ("action", "state")}


def page_data(
  command, config, run_config, evaluator, params, measured, rows, results, windows, sets, seconds
) -> report.ReportData:
  """Collects the data of the report."""
  run_folder = pathlib.Path(config.checkpoint)
  run_folder = run_folder.parent if run_folder.name == checkpoint.WEIGHTS else run_folder
  curves = {
    **log.read(run_folder, kind="train"),
    **{
      f"validation/{name}": curve for name, curve in log.read(run_folder, kind="validation").items()
    },
  }
  pictures = windows.pictures(config.pictures)
  first, second = pictures["frames"][:, 1], pictures["frames"][:, 2]
  captions = [
    f"{task or episode}, {camera}"
    for task, episode, camera in zip(
      pictures["task"], pictures["episode"], pictures["camera"], strict=False
    )
  ]
  onto = np.roll(np.arange(len(first)), 1)
  trained = measured["trained"]
  scatters = {}
  for target, result in results["trained"]["probes"].items():
    for d, name in enumerate(result.names):
      # With several robots, these are the windows of the robot that has this dimension.
      own = np.isfinite(result.true[:, d])
      scatters[f"{target}: {name}"] = report.Scatter(
        result.true[own, d], result.predicted[own, d], float(result.r2_by_dimension[d])
      )
  points, explained = consistency.principal_components(trained.z)
  colored, colors = _colorings(results["trained"]["targets"], len(trained.z))
  matrix = results["trained"].get("similarity")
  manifests = [shards.read_manifest(data_set.path) for data_set in sets]
  quarantine = [
    entry for manifest in manifests for key in ("quarantine", "skipped") for entry in manifest[key]
  ]
  speed = run_folder / "speed.json"
  times = {"probe, seconds": round(seconds, 1)}
  if speed.is_file():
    times |= {f"training, {key}": value for key, value in json.loads(speed.read_text()).items()}
  splits_note = split_note(config, run_config)
  return report.ReportData(
    title=f"Motion model: {run_folder.name}",
    metrics=rows,
    metric_notes=[splits_note, *results["trained"]["notes"]],
    curves=curves,
    reconstruction=report.Reconstruction(
      first, second, evaluator.predict(params, first, second), captions
    ),
    transfer=report.Transfer(
      first,
      second,
      first[onto],
      evaluator.predict(params, first, second, first[onto]),
      [f"{captions[i]} → {captions[j]}" for i, j in enumerate(onto)],
    ),
    s_pcfc={
      name: result["s_pcfc"].values for name, result in results.items() if "s_pcfc" in result
    },
    probes=scatters,
    pca=report.Projection(points[colored], colors, tuple(float(x) for x in explained))
    if colors
    else None,
    similarity=report.Similarity(matrix.values, matrix.labels) if matrix is not None else None,
    config=run_config,
    versions=rundir.versions(),
    hardware=rundir.hardware(),
    time=times,
    commands=["python -m como_jax.main " + shlex.join(command.words)],
    quarantine=quarantine,
  )


def split_note(config, run_config: dict) -> str:
  """A note about the episodes of the probe and whether the model was trained on them."""
  run_data, probe_data = run_config["data"], json.loads(config_lib.to_json(config.data))
  if all(run_data[key] == probe_data[key] for key in ("path", "mixture", "validation_fraction")):
    return (
      "Measured on the validation episodes of the training run; probes are fitted on its training "
      "episodes, whose actions the model has never seen. Episodes of the same motion stand on one "
      "side."
    )
  return (
    "Measured on the validation episodes of this data (not the split of the training run); probes "
    "are fitted on its other episodes. Episodes of the same motion stand on one side."
  )


def _colorings(
  targets: list[probe_targets.Target], windows: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """The quantities that color z in the plot, of the first robot of the first probed target.

  Args:
    targets: targets of the probes.
    windows: number of held-out windows.

  Returns:
    (indices of its held-out windows, {name: values there} of its first four dimensions).
  """
  for target in targets:
    for robot in target.robots[:1]:
      values = robot.values[robot.held_out]
      return robot.scored, {
        f"{target.name}: {name}": values[:, d] for d, name in enumerate(robot.names[:4])
      }
  return np.arange(windows), {}


def show(rows: dict[str, dict], notes: list[str]) -> None:
  """Prints the table of metrics and the notes."""
  keys = list(dict.fromkeys(key for row in rows.values() for key in row))
  width = max(len(key) for key in keys)
  print(f"{'':{width}}  " + "  ".join(f"{name:>18}" for name in rows))
  for key in keys:
    cells = []
    for row in rows.values():
      value = row.get(key)
      value, error = value if isinstance(value, tuple) else (value, None)
      cells.append(
        f"{'':>18}" if value is None else f"{value:.4f}" + (f" ± {error:.4f}" if error else "")
      )
    print(f"{key:{width}}  " + "  ".join(f"{cell:>18}" for cell in cells))
  for note in notes:
    print(f"  {note}")
