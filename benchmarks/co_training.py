r"""Does video help a policy?

Trains policies on few demonstrations with and without labeled video, and rolls them out.

python benchmarks/co_training.py --workdir DIR --data SHARDS --como MOTION_RUN --vq MOTION_RUN \
    [--seeds 3] [--episodes 50] ...
SHARDS: Meta-World episodes of one camera (configs/collect.py, configs/ingest.py), at least 50
training episodes per task.
The rows: robot actions of 10 demonstrations per task; the same with 40 additional videos per task,
labeled by the CoMo model, by the VQ model, or with the hand's true displacement (perfect labels);
and robot actions of all 50 demonstrations (the ceiling). Every row has the same number of robot
examples per step. Rows with video have a larger batch, not fewer robot examples.
Finished parts are kept, so the program can be stopped and run again. It writes
DIR/co_training.{md,json}.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import common
import numpy as np
import over_runs

from como_jax import sim
from como_jax.data import index, label_file, reader, sequences, shards
from como_jax.data import labels as labels_lib

ROOT = pathlib.Path(__file__).parent.parent

# row -> folder of its labels
LABELS = {"+ CoMo labels": "como", "+ VQ labels": "vq", "+ true motion": "true"}
ROWS = ("robot only", "+ CoMo labels", "+ VQ labels", "+ true motion", "robot x5")
# tokens can be cached because there are few frames
COMMON = ("--config.policy.cache_tokens=True", "--config.data.augment.shift.on=False")
# GPT acts without decoding motion, so it is trained in the same way. Otherwise rows with labels
# would train acting half as often as rows without.
ARGUMENTS = {
  "dit": (),
  "gpt": (
    "--config.model.gpt.motion_dropout=1.0",
    "--config.model.gpt.tokens=motion",
    "--config.model.latent.motion_horizon=1",
  ),
}


def main() -> None:
  """Trains and rolls out all policies; writes the tables after each one."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument("--data", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument("--como", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument("--vq", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument(
    "--tasks", nargs="+", default=["button-press-topdown", "drawer-open", "window-open"]
  )
  parser.add_argument("--camera", default="corner4")
  parser.add_argument("--policies", nargs="+", choices=sorted(ARGUMENTS), default=sorted(ARGUMENTS))
  parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
  parser.add_argument(
    "--latent-weight", type=float, default=0.25, help="of the loss of labels, against 1 for actions"
  )
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--labeled", type=int, default=10)
  parser.add_argument("--demonstrations", type=int, default=50)
  parser.add_argument("--steps", type=int, default=600)
  parser.add_argument("--episodes", type=int, default=50)
  parser.add_argument("--execute", type=int, default=8)
  parser.add_argument(
    "--max-steps", type=int, default=300, help="control steps after which an episode has failed"
  )
  parser.add_argument(
    "--robot-batch", type=int, default=32, help="robot examples of a step, in every row"
  )
  parser.add_argument(
    "--video-batch", type=int, default=16, help="video examples of a step, beside them"
  )
  parser.add_argument(
    "--margin", type=float, default=5.0, help="points within which two rows are called equal"
  )
  parser.add_argument("--workers", type=int, default=2)
  options, options.extra = parser.parse_known_args()  # --config.key=value of the policies
  if wrong := [word for word in options.extra if not word.startswith("--config.")]:
    parser.error(f"unrecognized argument: {wrong[0]}")
  check(options)
  begin, results = time.monotonic(), {}
  for seed in range(options.seeds):
    for kind in options.policies:
      for row in options.rows:
        results.setdefault(f"{kind}, {row}", []).append(_run(options, kind, row, seed))
        _table(options, results)
  print(f"{time.monotonic() - begin:.0f} s\n\n{(options.workdir / 'co_training.md').read_text()}")


def check(options: argparse.Namespace) -> None:
  """Refuses to continue in a folder with other settings, because the results would be mixed."""
  free = ("workdir", "policies", "rows", "seeds", "workers", "margin")
  settings = {name: str(value) for name, value in vars(options).items() if name not in free}
  file = options.workdir / "options.json"
  stored = json.loads(file.read_text()) if file.exists() else settings
  for name, value in settings.items():
    if stored.get(name) != value:
      sys.exit(
        f"error: {options.workdir} was started with --{name.replace('_', '-')} "
        f"{stored.get(name)}, now it is {value}: give another --workdir"
      )
  options.workdir.mkdir(parents=True, exist_ok=True)
  file.write_text(json.dumps(settings, indent=1))


def _run(options: argparse.Namespace, kind: str, row: str, seed: int) -> dict:
  """Trains and rolls out one policy, unless its files exist; returns its results.

  Returns:
    {"tasks": {task: [successes, episodes]}, "outcomes", "action_mse", "latent_mse"}.
  """
  folder = options.workdir / f"{kind}-{''.join(c if c.isalnum() else '-' for c in row)}-{seed}"
  if not (folder / "policy" / "weights").exists():
    resume = ["--resume"] if (folder / "policy" / "config.json").exists() else []
    mixture = _mixture(options, row)
    batch = options.robot_batch + options.video_batch * (len(mixture) - 1)
    _main(
      f"configs/policy.py:small,policy={kind}",
      folder / "policy",
      f"--config.data.mixture={mixture!r}",
      f"--config.train.batch_size={batch}",
      f"--config.train.steps={options.steps}",
      f"--config.seed={seed}",
      f"--config.encoder_weights={options.como}",
      f"--config.policy.objectives.latent.weight={options.latent_weight}",
      *COMMON,
      *ARGUMENTS[kind],
      *options.extra,
      *resume,
    )
  results = folder / "rollout" / "results.json"
  if not results.exists() or json.loads(results.read_text())["errors"]:
    resume = ["--resume"] if (folder / "rollout" / "config.json").exists() else []
    _main(
      "configs/rollout.py",
      folder / "rollout",
      f"--config.checkpoint={folder / 'policy'}",
      f"--config.tasks={tuple(options.tasks)!r}",
      f"--config.episodes={options.episodes}",
      f"--config.execute={options.execute}",
      f"--config.cameras={(options.camera,)!r}",
      f"--config.max_steps={options.max_steps}",
      f"--config.workers={options.workers}",
      f"--config.seed={1_000 * seed}",
      "--config.timeout=3600",
      *resume,
    )
  rollout = json.loads(results.read_text())
  lines = [
    json.loads(line) for line in (folder / "policy" / "metrics.jsonl").read_text().splitlines()
  ]
  last = [line for line in lines if line["kind"] == "validation"][-1:]
  return {
    "tasks": {
      task: [entry["successes"], entry["count"]] for task, entry in rollout["tasks"].items()
    },
    "outcomes": [
      episode["success"]
      for episode in sorted(rollout["episodes"], key=lambda one: (one["task"], one["episode"]))
    ],
    "action_mse": last[0].get("action_mse") if last else None,
    "latent_mse": last[0].get("latent_mse") if last else None,
  }


def _mixture(options: argparse.Namespace, row: str) -> tuple[dict, ...]:
  """The data of a row; robot examples also have labels in rows with labels."""
  kind = LABELS.get(row)
  count = options.demonstrations if row == "robot x5" else options.labeled
  common = {
    "path": str(options.data),
    "cameras": (options.camera,),
    "tasks": tuple(sim.load("metaworld").TASKS[task] for task in options.tasks),
  }
  robot = common | {"robot": "sawyer", "episodes": (0, count), "name": "robot"}
  if kind is None:
    return (robot,)
  folder = options.workdir / f"labels-{kind}"
  if not (folder / "labels.json").exists():
    if kind == "true":
      _true_motion(options, folder)
    else:
      resume = ["--resume"] if (folder / "config.json").exists() else []
      _main(
        "configs/extract.py",
        folder,
        f"--config.checkpoint={getattr(options, kind)}",
        f"--config.data.path={options.data}",
        *resume,
      )
  video = common | {
    "labels": str(folder),
    "episodes": (options.labeled, options.demonstrations),
    "name": "video",
    "weight": options.video_batch,
  }
  return robot | {"labels": str(folder), "weight": options.robot_batch}, video


def _true_motion(options: argparse.Namespace, folder: pathlib.Path) -> None:
  """Writes a label set whose z is the change of the robot's state over the offset.

  A video does not contain this change; it is the best possible label.
  """
  data = str(options.data)
  manifest, segments = shards.read_manifest(data), shards.segments(shards.read_table(data))
  read, table = reader.SegmentReader(data, segments), segments.table
  offset = float(json.loads((options.como / "config.json").read_text())["data"]["offset_seconds"])
  clips: dict[tuple[int, int], tuple] = {}
  for s in range(len(segments)):
    pairs, state = (
      sequences.Pairs.from_times(read.times(s), offset),
      read.read_array(s, "state", 0, segments.length(s)).astype(np.float32),
    )
    z = np.where(pairs.valid[:, None], state[pairs.second] - state, 0).astype(np.float32)
    for row in segments.rows(s):
      part = slice(
        segments.first_frame(s, row), segments.first_frame(s, row) + int(table.length[row])
      )
      motion = labels_lib.Motion(z[part], pairs.valid[part], pairs.difference[part])
      clips[segments.clip_location(row)] = (int(table.start[row]), {options.camera: motion})
  folder.mkdir(parents=True, exist_ok=True)
  sidecars = [
    label_file.write_shard(
      str(folder),
      shard,
      [clips[location] for location in sorted(clips) if location[0] == shard],
      facts={},
    )
    for shard in sorted({location[0] for location in clips})
  ]
  size = manifest["state"]["size"]
  label_file.write_manifest(
    str(folder),
    sidecars,
    data_shards=data,
    size=size,
    queries=1,
    dims=size,
    offset_seconds=offset,
    cameras=[options.camera],
    model={"path": "true", "fingerprint": "true"},
    data={"path": data, "fingerprint": manifest["source"]["fingerprint"]},
  )


def _label_error(options: argparse.Namespace, row: str) -> str:
  """Error of a linear layer from a row's labels to the true motion, on held-out episodes.

  It is in units of the true motion's variance, and the mean over dimensions.
  """
  folders = [options.workdir / f"labels-{kind}" for kind in (LABELS.get(row, ""), "true")]
  if row not in LABELS or not all((folder / "labels.json").exists() for folder in folders):
    return ""
  table = shards.read_table(str(options.data))
  both = [labels_lib.Labels(str(folder)) for folder in folders]
  held_out, parts = index.select(table, "validation", 0.1), {True: [], False: []}
  for row_number in range(len(table)):
    (z, valid, _), (true, known, _) = (
      labels.clip(table.shard[row_number], table.clip[row_number])[options.camera]
      for labels in both
    )
    parts[bool(held_out[row_number])].append((z[valid & known], true[valid & known]))
  (z, true), (test_z, target) = (
    [np.concatenate(column) for column in zip(*parts[which], strict=False)]
    for which in (False, True)
  )
  layer = np.linalg.lstsq(np.c_[z, np.ones(len(z))], true, rcond=None)[0]
  error = np.square(np.c_[test_z, np.ones(len(test_z))] @ layer - target).mean(0) / target.var(0)
  return f"{float(error.mean()):.3f}"


def _table(options: argparse.Namespace, results: dict[str, list[dict]]) -> None:
  """Writes the results so far."""
  options.workdir.mkdir(parents=True, exist_ok=True)
  (options.workdir / "co_training.md").write_text(
    page(options, results, lambda row: _label_error(options, row))
  )
  (options.workdir / "co_training.json").write_text(json.dumps(results, indent=1))


def page(
  options: argparse.Namespace, results: dict[str, list[dict]], label_error: Callable[[str], str]
) -> str:
  """Formats the page: success by task, offline errors, and comparisons over runs (over_runs.py).

  Args:
    options: of the program.
    results: row -> results of its runs.
    label_error: row -> text.
  """
  columns = ["policy, data", *options.tasks, "all tasks", "by seed"]
  columns += ["action error", "latent error", "label error"]
  rows = []
  for name, runs in results.items():
    won, played = (
      [sum(run["tasks"][task][i] for run in runs) for task in options.tasks] for i in (0, 1)
    )
    tasks = [f"{100 * a / n:.0f}" for a, n in zip(won, played, strict=False)]
    rates = " ".join(f"{100 * statistics.fmean(run['outcomes']):.0f}" for run in runs)
    errors = [_mean([run[key] for run in runs]) for key in ("action_mse", "latent_mse")]
    overall = f"{100 * sum(won) / sum(played):.1f}"
    rows.append([name, *tasks, overall, rates, *errors, label_error(name.split(", ")[1])])
  note = (
    f"Success in percent, {options.episodes} episodes a task and seed, {options.labeled} "
    f"labeled demonstrations a task, {options.steps} steps of {options.robot_batch} robot and, "
    f"in rows with labels, {options.video_batch} video examples beside them: these rows see more "
    "examples a step, and have one more loss on the robot examples too. Each seed has its own "
    "initial states, the same for all rows. Action and latent error: of held-out examples, in "
    "normalized units. Label error: of a linear layer from the labels to the hand's true "
    "displacement on held-out episodes, in units of its variance. No interval is over episodes: "
    "those of one policy share its weights."
  )
  comparisons = over_runs.text(over_runs.read(results), margin=options.margin)
  return "\n\n".join([common.table(columns, rows), note, comparisons])


def _mean(values: list[float | None]) -> str:
  return "" if None in values or not values else f"{statistics.mean(values):.3f}"


def _main(config: str, workdir: pathlib.Path, *args: str) -> None:
  """Runs como_jax.main."""
  print(f"== {config} {' '.join(args)}", flush=True)
  subprocess.run(
    [sys.executable, "-m", "como_jax.main", f"--config={config}", f"--workdir={workdir}", *args],
    check=True,
    cwd=ROOT,
  )


if __name__ == "__main__":
  main()
