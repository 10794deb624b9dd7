r"""Does a gripper open and close?

Policies for grasping tasks of Meta-World, trained with this code and, optionally, with another
checkout of it.

python benchmarks/gripper.py --workdir DIR [--before CHECKOUT] [--tasks pick-place \
    bin-picking] [--steps 1000] [--episodes 25] ...
The program collects scripted demonstrations of each task and trains a small DiT and a small GPT on
them with both normalizations. It counts how often a policy predicts the correct one of the
gripper's two values on held-out demonstrations. Policies of the normalizations in --rollouts are
rolled out: success, whether both fingers ever held the object, and how often the gripper closed
near the object and away from it. Finished parts are kept, so the program can be stopped and run
again. It writes DIR/gripper.{md,json}, and with --out a page in benchmarks/results.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
MODES = ("standard", "quantile")
GRIPPER = 3  # of Meta-World's four actions
# one shows the goal, one the fingers; sorted, because older versions expect this order
CAMERAS = ("corner", "gripperPOV")
COMMON = (
  "--config.policy.cache_tokens=True",
  "--config.data.augment.shift.on=False",
  f"--config.policy.cameras={CAMERAS!r}",
  "--config.model.num_cameras=2",
  "--config.model.pool=4",
  "--config.model.action_horizon=16",
  "--config.train.batch_size=32",
  "--config.train.tensorboard=False",
  "--config.train.evaluate_every=0",
  "--config.evaluation.examples=256",
)


WIDTH = 64  # of trunk and body: half of the small preset's, for a CPU


def main() -> None:
  """Trains and measures all policies, and prints the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=lambda text: pathlib.Path(text).absolute(), required=True)
  parser.add_argument(
    "--before",
    type=lambda text: pathlib.Path(text).absolute(),
    help="a checkout of an older version",
  )
  parser.add_argument("--tasks", nargs="+", default=["pick-place", "bin-picking"])
  parser.add_argument("--policies", nargs="+", default=["gpt", "dit"], choices=("gpt", "dit"))
  parser.add_argument(
    "--rollouts",
    nargs="*",
    default=["standard"],
    choices=MODES,
    help="normalizations whose policies are rolled out",
  )
  parser.add_argument("--demonstrations", type=int, default=100, help="to collect of each task")
  parser.add_argument(
    "--used", type=int, default=0, help="of them, to train on; 0 = all but those held out"
  )
  parser.add_argument("--steps", type=int, default=1000)
  parser.add_argument("--episodes", type=int, default=25)
  parser.add_argument(
    "--max-steps", type=int, default=250, help="control steps after which an episode has failed"
  )
  parser.add_argument("--execute", type=int, default=8)
  parser.add_argument(
    "--prefix", default="", help="words before every command, for example 'nice -n 10'"
  )
  parser.add_argument("--out", action="store_true", help="write the page in benchmarks/results")
  parser.add_argument(
    "--score",
    nargs=3,
    metavar=("RUN", "KIND", "CODE"),
    help="of one trained policy, which the program asks itself for",
  )
  parser.add_argument(
    "--roll", nargs=3, metavar=("RUN", "TASK", "CODE"), help="the same, for its episodes"
  )
  options = parser.parse_args()
  if options.score:
    print(json.dumps(score(*options.score, options)))
    return
  if options.roll:
    roll(*options.roll, options)
    return
  sys.path.insert(0, str(ROOT))
  import common  # not with --score and --roll, which import the modules of another checkout
  import gripper_table

  rows: dict[str, dict] = {}
  versions = [(name, code) for name, code in (("before", options.before), ("after", ROOT)) if code]
  for task in options.tasks:
    _demonstrations(options, task)
  parts = [
    (mode, task, kind, version)
    for mode in (*options.rollouts, *(mode for mode in MODES if mode not in options.rollouts))
    for task in options.tasks
    for kind in options.policies
    for version in versions
  ]
  for rolls in (False, True):  # rollouts take long, so they come last
    for mode, task, kind, (version, code) in parts:
      rows[f"{task}, {kind}, {mode}, {version}"] = _row(
        options, task, kind, mode, version, code, rolls=rolls and mode in options.rollouts
      )
      text = gripper_table.text(options, rows, width=WIDTH)
      (options.workdir / "gripper.md").write_text(text)
      (options.workdir / "gripper.json").write_text(json.dumps(rows, indent=1))
  common.finish(
    "gripper",
    "Does a gripper open and close?",
    [(options.workdir / "gripper.md").read_text()],
    options,
  )


def _demonstrations(options: argparse.Namespace, task: str) -> None:
  folder = options.workdir / f"collect-{task}"
  if not (folder / "dataset" / "meta" / "collection.json").exists():
    # No wandering, because it opens the gripper with another command than some experts.
    _main(
      options,
      ROOT,
      "configs/collect.py:mini",
      folder,
      f"--config.tasks={(task,)!r}",
      "--config.workers=1",
      f"--config.collect.cameras={CAMERAS!r}",
      "--config.collect.image_size=64",
      "--config.collect.repeated=0",
      f"--config.collect.motions={options.demonstrations}",
      "--config.collect.scenes=(0,)",
      "--config.collect.wander=(0,0)",
      "--config.collect.seed=11",
    )


def _training_args(
  options: argparse.Namespace, kind: str, mode: str, data: pathlib.Path, *, named: bool
) -> list[str]:
  """Arguments of the training; `named` adds the gripper's action, which older versions need."""
  entry = {
    "path": str(data),
    "robot": "robot",
    "cameras": CAMERAS,
    **({"episodes": (0, options.used)} if options.used else {}),
  }
  sizes = dict(width=WIDTH, num_heads=4, mlp_dim=4 * WIDTH)
  args = [
    f"--config.model.{part}.{name}={value}"
    for part in ("trunk", kind)
    for name, value in sizes.items()
  ]
  args += [
    f"--config.data.mixture={(entry,)!r}",
    f"--config.policy.normalization={mode}",
    f"--config.train.steps={options.steps}",
    *COMMON,
  ]
  gripper = {"robot": (GRIPPER,)}
  return args + [f"--config.model.gpt.gripper={gripper!r}"] * (named and kind == "gpt")


def _row(
  options: argparse.Namespace,
  task: str,
  kind: str,
  mode: str,
  version: str,
  code: pathlib.Path,
  *,
  rolls: bool,
) -> dict:
  """Trains and measures one policy, unless its files exist; returns its results."""
  folder = options.workdir / f"{task}-{kind}-{mode}-{version}"
  data = options.workdir / f"collect-{task}" / "dataset"
  if not (folder / "policy" / "weights").exists():
    resume = ["--resume"] if (folder / "policy" / "config.json").exists() else []
    _main(
      options,
      code,
      f"configs/policy.py:small,policy={kind}",
      folder / "policy",
      *_training_args(options, kind, mode, data, named=version == "before"),
      *resume,
    )
  scores = folder / "score.json"
  if not scores.exists():
    command = [
      sys.executable,
      __file__,
      "--workdir",
      str(options.workdir),
      "--steps",
      str(options.steps),
      "--used",
      str(options.used),
      "--score",
      str(folder),
      kind,
      str(code),
    ]
    scores.write_text(
      subprocess.run(
        _prefixed(options, command), cwd=code, check=True, stdout=subprocess.PIPE, text=True
      ).stdout.splitlines()[-1]
    )
  row = json.loads(scores.read_text())
  if rolls and len(_episodes(folder)) < options.episodes:
    command = [
      sys.executable,
      __file__,
      "--workdir",
      str(options.workdir),
      "--episodes",
      str(options.episodes),
      "--max-steps",
      str(options.max_steps),
      "--execute",
      str(options.execute),
      "--roll",
      str(folder),
      task,
      str(code),
    ]
    subprocess.run(_prefixed(options, command), cwd=code, check=True)
  return row | {"episodes": _episodes(folder)}


def _episodes(folder: pathlib.Path) -> list[dict]:
  """Reads the played episodes of a run."""
  file = folder / "episodes.jsonl"
  return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def roll(run: str, task: str, code: str, options: argparse.Namespace) -> None:
  """Plays the missing episodes; writes one line of RUN/episodes.jsonl for each.

  "near" is within 7 cm of the object, where the expert of pick-place begins to close the gripper.
  """
  sys.path.insert(0, code)
  import numpy as np

  from como_jax.serve import policy as serving
  from como_jax.sim import metaworld

  folder = pathlib.Path(run)
  acting = serving.Policy.load(str(folder / "policy"))
  score_of = json.loads((folder / "score.json").read_text())
  center = (score_of["low"] + score_of["high"]) / 2
  simulator = metaworld.build(task, cameras=CAMERAS, image_size=64, stride=2)
  for episode in range(len(_episodes(folder)), options.episodes):
    observation, steps, held = simulator.reset(5000 + episode), 0, False
    commands = {"near": [0, 0], "far": [0, 0]}  # distance -> [commands to close, all commands]
    while steps < options.max_steps and not simulator.success:
      chunk = acting.infer([[observation]], seed=1000 * episode + steps)[0]
      for action in chunk[: options.execute]:
        distance = np.linalg.norm(simulator._observed[:3] - simulator._observed[4:7])
        counts = commands["near" if distance < 0.07 else "far"]
        counts[0] += int(action[GRIPPER] > center)
        counts[1] += 1
        observation, steps = simulator.step(action), steps + 2
        held = held or _holds(simulator._env)
        if simulator.success:
          break
    with (folder / "episodes.jsonl").open("a") as file:
      file.write(
        json.dumps({"success": bool(simulator.success), "held": held, "steps": steps, **commands})
        + "\n"
      )
  simulator.close()


def _holds(env) -> bool:
  """Whether both fingers press on the object, whose shapes have no common name in all tasks."""
  shapes = [
    i
    for i, body in enumerate(env.model.geom_bodyid)
    if env.model.body_rootid[body] == env.model.body("obj").id
  ]
  return any(env.touching_object(shape) for shape in shapes)


def score(run: str, kind: str, code: str, options: argparse.Namespace) -> dict:
  """Measures how often a policy predicts the correct gripper value on held-out demonstrations.

  A prediction is correct if it is on the same side of the center between the two values. It works
  with any version of the code that has `tasks.policy_setup`.
  """
  sys.path.insert(0, code)
  import numpy as np

  from como_jax import config as config_lib
  from como_jax.assembly import policy_setup, policy_start
  from como_jax.data import value_transforms
  from como_jax.data.batching import Batching
  from como_jax.inference import policy_evaluator
  from como_jax.serve import policy as serving
  from como_jax.train import rng

  folder = pathlib.Path(run)
  stored = json.loads((folder / "policy" / "config.json").read_text())
  args = _training_args(
    options,
    kind,
    stored["policy"]["normalization"],
    pathlib.Path(stored["data"]["mixture"][0]["path"]),
    named=False,
  )
  config = config_lib.parse(
    ["main", f"--config={code}/configs/policy.py:small,policy={kind}", *args]
  ).config
  acting = serving.Policy.load(str(folder / "policy"), batch_size=64)
  ready = policy_setup.setup(config, policy_start.load(str(folder / "policy")))
  transforms = ready.spec.robots[acting.robot].transforms["action"]
  walk = ready.data.mixture.evaluation_examples(ready.layout, Batching(64), max_examples=512)
  predicted, true = [], []
  with walk.batches() as batches:
    for step in range(walk.num_batches):
      batch = next(batches)
      inputs = {
        name: batch[name]
        for name in acting._model.inputs_spec(1)
        if name in batch and name not in policy_evaluator.TARGETS
      }
      chunks = np.asarray(acting.sample(inputs, rng.key(0, "score", step)))
      known = batch["actions_mask"][..., GRIPPER] & batch["valid"][:, None]
      predicted.append(value_transforms.invert(transforms, chunks)[..., GRIPPER][known])
      true.append(value_transforms.invert(transforms, batch["actions"])[..., GRIPPER][known])
  predicted, true = np.concatenate(predicted), np.concatenate(true)
  low, high = float(true.min()), float(true.max())
  closed = true > (low + high) / 2
  right = (predicted > (low + high) / 2) == closed
  near = np.minimum(np.abs(predicted - low), np.abs(predicted - high)) < 1e-6
  metrics = [
    json.loads(line) for line in (folder / "policy" / "metrics.jsonl").read_text().splitlines()
  ]
  validation = [line for line in metrics if line["kind"] == "validation"][-1]
  losses = [line["gripper"] for line in metrics if "gripper" in line]
  return {
    "low": low,
    "high": high,
    "accuracy": float(right.mean()),
    "closed": float(closed.mean()),
    "when_closed": float(right[closed].mean()),
    "when_open": float(right[~closed].mean()),
    "exact": float(near.mean()),
    "action_mse": validation.get("action_mse"),
    "own_accuracy": validation.get("gripper_accuracy"),
    "gripper_loss": [losses[0], losses[-1]] if losses else None,
  }


def _prefixed(options: argparse.Namespace, command: list[str]) -> list[str]:
  return [*shlex.split(options.prefix), *command]


def _main(
  options: argparse.Namespace, code: pathlib.Path, config: str, workdir: pathlib.Path, *args: str
) -> None:
  command = [
    sys.executable,
    "-m",
    "como_jax.main",
    f"--config={config}",
    f"--workdir={workdir}",
    *args,
  ]
  print(" ".join(command), flush=True)
  subprocess.run(_prefixed(options, command), cwd=code, check=True)


if __name__ == "__main__":
  main()
