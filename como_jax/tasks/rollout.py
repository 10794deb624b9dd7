"""Closed-loop success of a policy in a simulator.

Episodes run in worker processes, with one batched inference for all of them.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from como_jax import config as config_lib
from como_jax import errors, sim
from como_jax.evaluate import outcomes, rollout_table
from como_jax.inference import fingerprints, rollouts
from como_jax.sim import base, planner, selection, vector
from como_jax.train import atomic, rundir

if TYPE_CHECKING:
  from como_jax.serve import policy as serving

RESULTS, EVAL_INFO, CHECKPOINT = "results.json", "eval_info.json", "checkpoint.json"
POLICIES = ("checkpoint", *vector.ACTORS[1:])
STEP_SECONDS = 0.05  # of the policies that have no checkpoint to say it


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
  """What plays, in what.

  Attributes:
    groups: task -> (group, number in the group), in order.
    build: builds a task of the simulator.
    simulator: its name and version.
    settings: of the workers.
    spec: of the first task.
    policy: the policy that acts; None = an actor inside the workers.
    planner: of the policy.
    loaded: the policy if it is that of config.checkpoint.
    identity: of config.checkpoint.
  """

  groups: Mapping[str, tuple[str, int]]
  build: Callable[..., base.Simulator]
  simulator: Mapping[str, Any]
  settings: vector.Settings
  spec: base.Spec
  policy: planner.Policy | None
  planner: planner.Planner | None
  loaded: "serving.Policy | None"
  identity: Mapping[str, Any] | None


def run(command: config_lib.CommandLine, *, policy: planner.Policy | None = None) -> int:
  """Plays the missing episodes and writes their results.

  Writes checkpoint.json, episodes.jsonl, results.json, eval_info.json and videos/.

  Args:
    command: of the command line.
    policy: used instead of the one of config.checkpoint.

  Returns:
    0, or 1 when episodes could not be played.

  Raises:
    errors.UserError: a setting, task, camera or checkpoint does not fit, or a run is resumed with
      other weights; nothing has been written.
  """
  config, workdir = command.config, command.workdir
  check(config)
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  setup = prepare(command, policy)
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  if setup.identity:
    atomic.write(workdir / CHECKPOINT, json.dumps(setup.identity, indent=2))
  if setup.loaded:
    setup.loaded.warm_up()  # every batch size is compiled before an episode waits for it
  episodes = play(config, setup, workdir)
  result = results(config, setup, episodes)
  info = outcomes.eval_info(episodes, setup.groups)
  atomic.write(workdir / RESULTS, json.dumps(result, indent=1))
  atomic.write(workdir / EVAL_INFO, json.dumps(info, indent=2))
  print(rollout_table.text(result, info))
  print(f"results: {workdir / RESULTS}")
  return 1 if result["errors"] else 0


def check(config: config_lib.ConfigDict) -> None:
  """Raises errors.UserError for what the config alone shows to be wrong."""
  name = str(config.policy)
  if name not in POLICIES:
    raise errors.UserError(
      f"config.policy={config.policy!r} is unknown: {errors.nearest(name, POLICIES)}"
    )
  if config.checkpoint and name != "checkpoint":
    raise errors.UserError(
      f"config.policy={config.policy!r} does not use config.checkpoint: leave one of them out"
    )


def prepare(command: config_lib.CommandLine, policy: planner.Policy | None) -> Setup:
  """Chooses tasks and cameras, loads the policy, and checks that it fits the simulator.

  Args:
    command: of the command line.
    policy: used instead of the one of config.checkpoint.

  Raises:
    errors.UserError: a task, camera, setting or checkpoint does not fit.
  """
  config, name = command.config, str(command.config.simulator)
  module = sim.load(name)
  tasks = selection.task_names(config.tasks, module.TASKS, simulator=name)
  build = selection.builder(module.build, dict(config.build), simulator=name)
  loaded = load(config) if config.policy == "checkpoint" and policy is None else None
  policy = loaded or policy
  identity = fingerprints.of_policy(config.checkpoint) if config.checkpoint else None
  if command.resume and identity:
    rollouts.check_same_policy(command.workdir / CHECKPOINT, identity)
  cameras = selection.camera_names(
    tuple(config.cameras),
    module.CAMERAS,
    slots=policy.cameras if policy else None,
    video=config.videos > 0,
    simulator=name,
  )
  spec = selection.spec(build, tasks[0], cameras=cameras, image_size=config.image_size)
  options = dict(execute=config.execute, ensemble=config.ensemble, seed=config.seed)
  return Setup(
    groups={task: outcomes.place(task, name, tuple(module.TASKS)) for task in tasks},
    build=build,
    simulator={"name": name, "version": module.VERSION},
    settings=vector.Settings(
      cameras=cameras,
      image_size=config.image_size,
      step_seconds=config.step_seconds or (policy.step_seconds if policy else STEP_SECONDS),
      history=policy.history if policy else 1,
      max_steps=config.max_steps,
      timeout=config.timeout,
    ),
    spec=spec,
    policy=policy,
    planner=planner.Planner(policy, cameras, spec, **options) if policy else None,
    loaded=loaded,
    identity=identity,
  )


def load(config: config_lib.ConfigDict) -> "serving.Policy":
  """Loads the policy of config.checkpoint."""
  if not config.checkpoint:
    raise errors.UserError(
      "config.checkpoint is empty: give the run directory or weights folder of a policy, or "
      f"another config.policy ({', '.join(POLICIES[1:])})"
    )
  # only where a checkpoint is used: this imports every model
  from como_jax.serve import policy as serving

  return serving.Policy.load(
    config.checkpoint,
    robot=config.robot,
    num_sampling_steps=config.num_sampling_steps,
    guidance_scale=config.guidance_scale,
    batch_size=config.workers,
  )


def play(
  config: config_lib.ConfigDict, setup: Setup, workdir: pathlib.Path
) -> list[outcomes.Episode]:
  """Plays the episodes that have no result yet; returns all episodes in order."""
  schedule = rollouts.Schedule(
    setup.groups,
    episodes=config.episodes,
    first_seed=config.seed,
    scene=config.scene,
    actor="policy" if setup.policy else config.policy,
    videos=config.videos,
  )
  log = rollouts.EpisodeLog(workdir / rollouts.EPISODES)
  jobs, stride = log.missing(schedule), setup.settings.stride(setup.spec.fps)
  print(
    f"rollout: {len(jobs)} of {len(schedule.jobs)} episodes to play, {config.workers} workers, "
    f"{stride} control steps ({stride / setup.spec.fps:.3g} s) a policy step"
  )
  with vector.Fleet(setup.build, setup.settings, workers=config.workers) as fleet:
    rollouts.keep(fleet.run(jobs, setup.planner), schedule, log, workdir)
  return outcomes.ordered(log.episodes, tuple(setup.groups))


def results(
  config: config_lib.ConfigDict, setup: Setup, episodes: Sequence[outcomes.Episode]
) -> dict[str, Any]:
  """The content of results.json."""
  return {
    "kind": "como_jax rollout",
    "version": 1,
    "policy": config.policy,
    **outcomes.summary(episodes, tuple(setup.groups)),
    "checkpoint": setup.identity,
    "policy_metadata": getattr(setup.policy, "metadata", None),
    "simulator": setup.simulator,
    "cameras": list(setup.settings.cameras),
    "fps": setup.spec.fps,
    "stride": setup.settings.stride(setup.spec.fps),
    "history": setup.settings.history,
    "seeds": [config.seed, config.seed + config.episodes - 1],
    "versions": rundir.versions(),
    "hardware": rundir.hardware(),
    "config": json.loads(config_lib.to_json(config)),
    "episodes": episodes,
  }
