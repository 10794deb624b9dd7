"""Does video help a policy? Trains policies on few demonstrations with and without labelled video, and rolls them out.

python benchmarks/co_training.py --workdir DIR --data SHARDS --como MOTION_RUN --vq MOTION_RUN [--seeds 3] [--episodes 50] ...
SHARDS: Meta-World episodes of one camera (configs/collect.py, configs/ingest.py), at least 50 training episodes a task.
The rows: robot actions of 10 demonstrations a task; these and 40 videos a task, labelled by the CoMo or by the VQ model; and robot
actions of all 50 (the ceiling). Finished parts are kept, so it can be stopped and run again. Writes DIR/co_training.{md,json}.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from como_jax import sim  # noqa: E402
from como_jax.evaluate import success  # noqa: E402

ROWS = ("robot only", "+ CoMo labels", "+ VQ labels", "robot x5")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument("--data", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument("--como", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument("--vq", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument("--tasks", nargs="+", default=["button-press-topdown", "drawer-open", "window-open"])
  parser.add_argument("--camera", default="corner4")
  parser.add_argument("--policies", nargs="+", default=["dit", "gpt"])
  parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--labelled", type=int, default=10)
  parser.add_argument("--demonstrations", type=int, default=50)
  parser.add_argument("--steps", type=int, default=1_000)
  parser.add_argument("--episodes", type=int, default=50)
  parser.add_argument("--execute", type=int, default=8)
  parser.add_argument("--max-steps", type=int, default=300, help="control steps after which an episode has failed")
  parser.add_argument("--robot-weight", type=float, default=2.0, help="robot examples for each video example in a batch")
  parser.add_argument("--workers", type=int, default=2)
  options, options.extra = parser.parse_known_args()  # --config.key=value of the policies
  if wrong := [word for word in options.extra if not word.startswith("--config.")]:
    parser.error(f"unrecognized argument: {wrong[0]}")
  begin, results = time.monotonic(), {}
  for seed in range(options.seeds):
    for kind in options.policies:
      for row in options.rows:
        results.setdefault(f"{kind}, {row}", []).append(_run(options, kind, row, seed))
        _table(options, results)
  print(f"{time.monotonic() - begin:.0f} s\n\n{(options.workdir / 'co_training.md').read_text()}")


def _run(options: argparse.Namespace, kind: str, row: str, seed: int) -> dict:
  """{"tasks": {task: [successes, episodes]}, "action_mse"} of one policy, from its files where it has been run."""
  folder = options.workdir / f"{kind}-{''.join(c if c.isalnum() else '-' for c in row)}-{seed}"
  if not (folder / "policy" / "weights").exists():
    again = ["--resume"] if (folder / "policy" / "config.json").exists() else []
    _main(f"configs/policy.py:small,policy={kind}", folder / "policy", f"--config.data.mixture={_mixture(options, row)!r}",
          f"--config.train.steps={options.steps}", f"--config.seed={seed}", f"--config.encoder_weights={options.como}", *options.extra, *again)
  if not (folder / "rollout" / "results.json").exists():
    again = ["--resume"] if (folder / "rollout" / "config.json").exists() else []
    _main("configs/rollout.py", folder / "rollout", f"--config.checkpoint={folder / 'policy'}", f"--config.tasks={tuple(options.tasks)!r}",
          f"--config.episodes={options.episodes}", f"--config.execute={options.execute}", f"--config.cameras={(options.camera,)!r}",
          f"--config.max_steps={options.max_steps}", f"--config.workers={options.workers}", *again)
  rolled = json.loads((folder / "rollout" / "results.json").read_text())
  lines = [json.loads(line) for line in (folder / "policy" / "metrics.jsonl").read_text().splitlines()]
  last = [line for line in lines if line["kind"] == "validation"][-1:]
  return {"tasks": {task: [one["successes"], one["count"]] for task, one in rolled["tasks"].items()},
          "action_mse": last[0].get("action_mse") if last else None, "latent_mse": last[0].get("latent_mse") if last else None}


def _mixture(options: argparse.Namespace, row: str) -> tuple[dict, ...]:
  """The data of a row. Robot examples carry labels too where there are any: they cost nothing."""
  labels = {"+ CoMo labels": options.como, "+ VQ labels": options.vq}.get(row)
  count = options.demonstrations if row == "robot x5" else options.labelled
  common = {"path": str(options.data), "cameras": (options.camera,), "tasks": tuple(sim.load("metaworld").TASKS[task] for task in options.tasks)}
  robot = common | {"robot": "sawyer", "episodes": (0, count), "name": "robot"}
  if labels is None:
    return (robot,)
  folder = options.workdir / f"labels-{labels.name}"
  if not (folder / "labels.json").exists():
    again = ["--resume"] if (folder / "config.json").exists() else []
    _main("configs/extract.py", folder, f"--config.checkpoint={labels}", f"--config.data.path={options.data}", *again)
  video = common | {"labels": str(folder), "episodes": (options.labelled, options.demonstrations), "name": "video"}
  return robot | {"labels": str(folder), "weight": options.robot_weight}, video


def _table(options: argparse.Namespace, results: dict[str, list[dict]]) -> None:
  """Writes what there is so far."""
  lines = ["| policy, data | " + " | ".join(options.tasks) + " | all tasks, 95 % interval | seeds | action error | latent error |",
           "| --- |" + " --- |" * (len(options.tasks) + 5)]
  for name, runs in results.items():
    cells = [f"{100 * sum(run['tasks'][task][0] for run in runs) / sum(run['tasks'][task][1] for run in runs):.0f}" for task in options.tasks]
    won, tried = (sum(run["tasks"][task][i] for run in runs for task in options.tasks) for i in (0, 1))
    found = success.rate(won, tried)
    rates = [100 * sum(v[0] for v in run["tasks"].values()) / sum(v[1] for v in run["tasks"].values()) for run in runs]
    errors = [_mean([run[key] for run in runs]) for key in ("action_mse", "latent_mse")]
    lines.append(f"| {name} | " + " | ".join(cells) + f" | {100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}] | "
                 + " ".join(f"{rate:.0f}" for rate in rates) + " | " + " | ".join(errors) + " |")
  note = (f"\nSuccess in percent, {options.episodes} episodes a task and seed, {options.labelled} labelled demonstrations a task, {options.steps} steps. "
          "The interval (Wilson) counts episodes of all seeds; the column beside it shows the seeds. Errors are of held-out examples, in normalised units.\n")
  options.workdir.mkdir(parents=True, exist_ok=True)
  (options.workdir / "co_training.md").write_text("\n".join(lines) + "\n" + note)
  (options.workdir / "co_training.json").write_text(json.dumps(results, indent=1))


def _mean(values: list[float | None]) -> str:
  return "" if None in values or not values else f"{statistics.mean(values):.3f}"


def _main(config: str, workdir: pathlib.Path, *words: str) -> None:
  print(f"== {config} {' '.join(words)}", flush=True)
  subprocess.run([sys.executable, "-m", "como_jax.main", f"--config={config}", f"--workdir={workdir}", *words], check=True, cwd=ROOT)


if __name__ == "__main__":
  main()
