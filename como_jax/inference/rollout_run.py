"""A rollout of a policy in a simulator: what plays in what, its episodes, and its results.

Episodes run in worker processes, with one batched inference for all of them.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from como_jax import errors, sim
from como_jax.evaluate import outcomes
from como_jax.inference import fingerprints, rollouts
from como_jax.inference.rollout_options import POLICIES, Options
from como_jax.sim import base, planner, selection, vector
from como_jax.train import rundir

if TYPE_CHECKING:
  from como_jax.serve import policy as serving

STEP_SECONDS = 0.05  # of the policies that have no checkpoint to say it


@dataclasses.dataclass(frozen=True, eq=False)
class Rollout:
  """What plays, in what.

  Attributes:
    options: of the config.
    groups: task -> (group, number in the group), in order.
    build: builds a task of the simulator.
    simulator: its name and version.
    settings: of the workers.
    spec: of the first task.
    policy: the policy that acts; None = an actor inside the workers.
    planner: of the policy.
    loaded: the policy if it is that of options.checkpoint.
    identity: of options.checkpoint.
  """

  options: Options
  groups: Mapping[str, tuple[str, int]]
  build: Callable[..., base.Simulator]
  simulator: Mapping[str, Any]
  settings: vector.Settings
  spec: base.Spec
  policy: planner.Policy | None
  planner: planner.Planner | None
  loaded: "serving.Policy | None"
  identity: Mapping[str, Any] | None

  @property
  def stride(self) -> int:
    """Control steps of a policy step."""
    return self.settings.stride(self.spec.fps)


def prepare(
  options: Options, *, policy: planner.Policy | None = None, record: pathlib.Path | None = None
) -> Rollout:
  """Chooses tasks and cameras, loads the policy, and checks that it fits the simulator.

  Args:
    options: of the config.
    policy: used instead of the one of options.checkpoint.
    record: identity of the policy that played the episodes of a resumed run; None = a new run.

  Raises:
    errors.UserError: a task, camera, setting or checkpoint does not fit, or the episodes were
      played with other weights.
  """
  name = options.simulator
  module = sim.load(name)
  tasks = selection.task_names(options.tasks, module.TASKS, simulator=name)
  build = selection.builder(module.build, options.build, simulator=name)
  loaded = load_policy(options) if options.policy == "checkpoint" and policy is None else None
  policy = loaded or policy
  identity = fingerprints.of_policy(options.checkpoint) if options.checkpoint else None
  if record and identity:
    rollouts.check_same_policy(record, identity)
  cameras = selection.camera_names(
    options.cameras,
    module.CAMERAS,
    slots=policy.cameras if policy else None,
    video=options.videos > 0,
    simulator=name,
  )
  spec = selection.spec(build, tasks[0], cameras=cameras, image_size=options.image_size)
  return Rollout(
    options=options,
    groups={task: outcomes.place(task, name, tuple(module.TASKS)) for task in tasks},
    build=build,
    simulator={"name": name, "version": module.VERSION},
    settings=vector.Settings(
      cameras=cameras,
      image_size=options.image_size,
      step_seconds=options.step_seconds or (policy.step_seconds if policy else STEP_SECONDS),
      history=policy.history if policy else 1,
      max_steps=options.max_steps,
      timeout=options.timeout,
    ),
    spec=spec,
    policy=policy,
    planner=planner.Planner(
      policy, cameras, spec, execute=options.execute, ensemble=options.ensemble, seed=options.seed
    )
    if policy
    else None,
    loaded=loaded,
    identity=identity,
  )


def load_policy(options: Options) -> "serving.Policy":
  """Loads the policy of options.checkpoint.

  Raises:
    errors.UserError: there is none, or it cannot be loaded.
  """
  if not options.checkpoint:
    raise errors.UserError(
      "config.checkpoint is empty: give the run directory or weights folder of a policy, or "
      f"another config.policy ({', '.join(POLICIES[1:])})"
    )
  # only where a checkpoint is used: this imports every model
  from como_jax.serve import policy as serving

  return serving.Policy.load(
    options.checkpoint,
    robot=options.robot,
    num_sampling_steps=options.num_sampling_steps,
    guidance_scale=options.guidance_scale,
    batch_size=options.workers,
  )


def play(rollout: Rollout, folder: pathlib.Path) -> list[outcomes.Episode]:
  """Plays the episodes that have no result yet; returns all episodes in order.

  Args:
    rollout: what plays, in what.
    folder: the run directory; gets episodes.jsonl and videos/.
  """
  options = rollout.options
  schedule = rollouts.Schedule(
    rollout.groups,
    episodes=options.episodes,
    first_seed=options.seed,
    scene=options.scene,
    actor="policy" if rollout.policy else options.policy,
    videos=options.videos,
  )
  log = rollouts.EpisodeLog(folder / rollouts.EPISODES)
  jobs = log.missing(schedule)
  print(
    f"rollout: {len(jobs)} of {len(schedule.jobs)} episodes to play, {options.workers} workers, "
    f"{rollout.stride} control steps ({rollout.stride / rollout.spec.fps:.3g} s) a policy step"
  )
  with vector.Fleet(rollout.build, rollout.settings, workers=options.workers) as fleet:
    rollouts.keep(fleet.run(jobs, rollout.planner), schedule, log, folder)
  return outcomes.ordered(log.episodes, tuple(rollout.groups))


def results(
  rollout: Rollout, episodes: Sequence[outcomes.Episode], *, config: Mapping[str, Any]
) -> dict[str, Any]:
  """The content of results.json.

  Args:
    rollout: what played, in what.
    episodes: all episodes, in order.
    config: of the rollout, as JSON has it.
  """
  options = rollout.options
  return {
    "kind": "como_jax rollout",
    "version": 1,
    "policy": options.policy,
    **outcomes.summary(episodes, tuple(rollout.groups)),
    "checkpoint": rollout.identity,
    "policy_metadata": getattr(rollout.policy, "metadata", None),
    "simulator": rollout.simulator,
    "cameras": list(rollout.settings.cameras),
    "fps": rollout.spec.fps,
    "stride": rollout.stride,
    "history": rollout.settings.history,
    "seeds": [options.seed, options.seed + options.episodes - 1],
    "versions": rundir.versions(),
    "hardware": rundir.hardware(),
    "config": config,
    "episodes": episodes,
  }
