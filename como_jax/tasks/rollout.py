"""Closed-loop success of a policy in a simulator: episodes in worker processes, one batched
inference for all of them.

Every finished episode is a line of episodes.jsonl at once, so a killed run goes on with --resume.
The initial state of episode e is that of seed `config.seed + e`, whatever the policy, the number of
workers and what ran before: two policies can be compared in pairs (evaluate/success.py).
"""

import contextlib
import functools
import inspect
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import tqdm
import xxhash

from como_jax import chunks, errors, sim, weights
from como_jax import config as config_lib
from como_jax.data import policy_spec, shards, video
from como_jax.evaluate import outcomes, runs, success
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.sim import base, vector
from como_jax.train import atomic, checkpoint, rundir

EPISODES, RESULTS, EVAL_INFO, VIDEOS, CHECKPOINT = (
  "episodes.jsonl",
  "results.json",
  "eval_info.json",
  "videos",
  "checkpoint.json",
)
POLICIES = ("checkpoint", *vector.ACTORS[1:])
STEP_SECONDS = 0.05  # of the policies that have no checkpoint to say it
QUALITY = 23  # x264 crf of videos


def run(command: config_lib.CommandLine, *, policy: Any = None) -> int:
  """Plays the episodes that are missing; writes checkpoint.json, episodes.jsonl, results.json,
  eval_info.json and videos/.

  Args:
    command: of the command line.
    policy: stands in for the one of config.checkpoint: anything with the attributes and `infer` of
      serve.policy.Policy.

  Returns:
    0, or 1 when episodes could not be played.

  Raises:
    errors.UserError: a setting, task, camera or checkpoint that does not fit, or a resume with
      other weights; nothing has been written.
  """
  config, workdir = command.config, command.workdir
  check(config)
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  module = sim.load(config.simulator)
  tasks, build = task_names(config, module), builder(config, module)
  places = {task: outcomes.place(task, config.simulator, tuple(module.TASKS)) for task in tasks}
  from_checkpoint = config.policy == "checkpoint" and policy is None
  if from_checkpoint:
    policy = load(config)
  identified = identity(config.checkpoint) if config.checkpoint else None
  if command.resume and identified:
    same(workdir / CHECKPOINT, identified)
  cameras = camera_names(config, module, policy)
  spec = _spec(build, tasks[0], cameras, config.image_size)
  planner = (
    Planner(
      policy, cameras, spec, execute=config.execute, ensemble=config.ensemble, seed=config.seed
    )
    if policy
    else None
  )
  settings = vector.Settings(
    cameras=cameras,
    image_size=config.image_size,
    step_seconds=config.step_seconds or (policy.step_seconds if policy else STEP_SECONDS),
    history=policy.history if policy else 1,
    max_steps=config.max_steps,
    timeout=config.timeout,
  )
  rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  if identified:
    atomic.write(workdir / CHECKPOINT, json.dumps(identified, indent=2))
  if from_checkpoint:
    policy.warm_up()  # every batch size is compiled before an episode waits for it

  log = Log(workdir / EPISODES)
  done = {(one["task"], one["episode"]) for one in log.episodes if not one["error"]}
  wanted = [(task, episode) for task in tasks for episode in range(config.episodes)]
  jobs = [
    vector.Job(
      number,
      task,
      config.seed + episode,
      config.scene,
      "policy" if policy else config.policy,
      episode < config.videos,
    )
    for number, (task, episode) in enumerate(wanted)
    if (task, episode) not in done
  ]
  print(
    f"rollout: {len(jobs)} of {len(wanted)} episodes to play, {config.workers} workers, "
    f"{settings.stride(spec.fps)} control steps ({settings.stride(spec.fps) / spec.fps:.3g} s) a "
    "policy step"
  )
  with (
    vector.Fleet(build, settings, workers=config.workers) as fleet,
    _bar(len(wanted), log) as bar,
  ):
    before = time.monotonic()
    for outcome in fleet.run(jobs, planner):
      task, episode = wanted[outcome.job.number]
      path = ""
      if outcome.frames is not None and not outcome.error:
        group, number = places[task]
        path = f"{VIDEOS}/{group}_{number if '/' in task else task}/eval_episode_{episode}.mp4"
        write_video(workdir / path, outcome.frames, outcome.rate)
      now = time.monotonic()
      log.add(record(outcome, task, episode, path, now - before))
      before = now
      if outcome.error:
        bar.write(
          f"{task} episode {episode} (seed {outcome.job.seed}) could not be played: {outcome.error}"
        )
      bar.update()
      bar.set_postfix_str(_running(log), refresh=False)

  episodes = outcomes.ordered(log.episodes, tasks)
  result = {
    "kind": "como_jax rollout",
    "version": 1,
    "policy": config.policy,
    **outcomes.summary(episodes, tasks),
    "checkpoint": identified,
    "policy_metadata": getattr(policy, "metadata", None),
    "simulator": {"name": config.simulator, "version": module.VERSION},
    "cameras": list(cameras),
    "fps": spec.fps,
    "stride": settings.stride(spec.fps),
    "history": settings.history,
    "seeds": [config.seed, config.seed + config.episodes - 1],
    "versions": rundir.versions(),
    "hardware": rundir.hardware(),
    "config": json.loads(config_lib.to_json(config)),
    "episodes": episodes,
  }
  info = outcomes.eval_info(episodes, places)
  atomic.write(workdir / RESULTS, json.dumps(result, indent=1))
  atomic.write(workdir / EVAL_INFO, json.dumps(info, indent=2))
  show(result, info)
  print(f"results: {workdir / RESULTS}")
  return 1 if result["errors"] else 0


def record(
  outcome: vector.Outcome, task: str, episode: int, path: str, wall: float
) -> dict[str, Any]:
  """A line of episodes.jsonl (evaluate/outcomes.py)."""
  return {
    "task": task,
    "episode": episode,
    "seed": outcome.job.seed,
    "scene": outcome.job.scene,
    "initial_state": outcome.initial_state,
    "success": outcome.success,
    "steps": outcome.steps,
    "max_steps": outcome.max_steps,
    "plans": outcome.plans,
    "seconds": round(outcome.seconds, 4),
    "wall": round(wall, 4),
    "video": path,
    "error": outcome.error,
  }


def check(config) -> None:
  """Raises errors.UserError for what the config alone shows to be wrong."""
  if config.policy not in POLICIES:
    raise errors.UserError(
      f"config.policy={config.policy!r} is unknown: {errors.nearest(config.policy, POLICIES)}"
    )
  if config.checkpoint and config.policy != "checkpoint":
    raise errors.UserError(
      f"config.policy={config.policy!r} does not use config.checkpoint: leave one of them out"
    )


def load(config):
  """The checkpoint's policy."""
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


def task_names(config, module) -> tuple[str, ...]:
  """config.tasks with suites ("libero_10") spelled out; all tasks when it is empty.

  Raises:
    errors.UserError: naming the nearest task or suite.
  """
  found = []
  for task in tuple(config.tasks) or tuple(module.TASKS):
    suite = [one for one in module.TASKS if one.startswith(f"{task}/")]
    if task not in module.TASKS and not suite:
      valid = {*module.TASKS, *(one.rpartition("/")[0] for one in module.TASKS if "/" in one)}
      raise errors.UserError(
        f"config.tasks: {config.simulator} task {task!r} is unknown: {errors.nearest(task, valid)}"
      )
    found += suite or [task]
  return tuple(dict.fromkeys(found))


def builder(config, module):
  """The simulator's `build` with the further arguments of config.build, importable in the workers.

  Raises:
    errors.UserError: an argument that it does not have.
  """
  known = set(inspect.signature(module.build).parameters) - {
    "task",
    "cameras",
    "image_size",
    "stride",
    "scene",
  }
  for name in config.build:
    if name not in known:
      raise errors.UserError(
        f"config.build: {config.simulator} has no {name!r}: {errors.nearest(name, known)}"
      )
  return functools.partial(module.build, **config.build)


def camera_names(config, module, policy) -> tuple[str, ...]:
  """Simulator cameras to draw, in the order of the policy's slots.

  Raises:
    errors.UserError: one that the simulator does not have, or another number than the policy has
      slots.
  """
  chosen = tuple(config.cameras)
  if policy and chosen and len(chosen) != len(policy.cameras):
    raise errors.UserError(
      f"config.cameras names {len(chosen)} cameras, the policy has {len(policy.cameras)} slots: "
      + ", ".join(policy.cameras)
    )
  if not chosen:
    # Experts are blind; a video needs something to see.
    chosen = tuple(policy.cameras) if policy else tuple(module.CAMERAS[:1]) if config.videos else ()
  for camera in chosen:
    if camera not in module.CAMERAS:
      raise errors.UserError(
        f"{config.simulator} has no camera {camera!r}: {errors.nearest(camera, module.CAMERAS)}; "
        "config.cameras names one for each of the policy's slots"
      )
  return chosen


def _spec(build, task: str, cameras: tuple[str, ...], image_size: int) -> base.Spec:
  simulator = build(task, cameras=cameras, image_size=image_size)
  simulator.close()
  return simulator.spec


class Planner:
  """Asks the policy for all waiting episodes at once."""

  def __init__(
    self,
    policy,
    cameras: tuple[str, ...],
    spec: base.Spec,
    *,
    execute: int,
    ensemble: float,
    seed: int,
  ):
    """Args:
    policy: see `run`.
    cameras: of the simulator, one a slot of the policy.
    spec: of the simulator.
    execute: elements of a chunk that are executed before the next request; 0 = all.
    ensemble: decay of the average over overlapping chunks; 0 = the newest chunk alone.
    seed: of the policy's noise.

    Raises:
      errors.UserError: the policy's actions are not the simulator's, or fewer elements than
        `execute`.
    """
    if policy.action_dim != len(spec.action_names):
      raise errors.UserError(
        f"the policy gives {policy.action_dim} action numbers for robot {policy.robot!r}, "
        f"{spec.name} takes {len(spec.action_names)}: {', '.join(spec.action_names)}"
      )
    if execute > policy.chunk:
      raise errors.UserError(
        f"config.execute = {execute}: the policy's chunks have {policy.chunk} elements"
      )
    if ensemble and not 0 < execute < policy.chunk:
      raise errors.UserError(
        "config.ensemble needs overlapping chunks: set config.execute to "
        f"1..{policy.chunk - 1}, for example 1"
      )
    self._policy, self._seed, self._ensemble = policy, seed, ensemble
    self._execute = execute or policy.chunk
    self._names = [
      (IMAGE + slot, IMAGE + camera) for slot, camera in zip(policy.cameras, cameras, strict=True)
    ]
    self._averages: dict[int, chunks.TemporalEnsemble] = {}

  def __call__(self, waiting: Sequence[vector.Waiting]) -> list[np.ndarray]:
    """Actions [n, A] for each."""
    histories = [[self._slots(seen) for seen in one.history] for one in waiting]
    # The noise belongs to these requests: it does not depend on what was played before, only on
    # what shares the batch.
    key = np.random.SeedSequence(
      [self._seed, *(number for one in waiting for number in (one.job.number, one.plan))]
    )
    found = self._policy.infer(histories, seed=int(key.generate_state(1)[0] >> 1))
    return [
      self._executed(one, np.asarray(chunk)) for one, chunk in zip(waiting, found, strict=True)
    ]

  def _slots(self, seen: base.Observation) -> dict[str, Any]:
    return {
      STATE: seen[STATE],
      TASK: seen[TASK],
      **{slot: seen[camera] for slot, camera in self._names},
    }

  def _executed(self, one: vector.Waiting, chunk: np.ndarray) -> np.ndarray:
    if not self._ensemble:
      return chunk[: self._execute]
    if one.plan == 0:  # a new episode, or one that is played again
      self._averages[one.job.number] = chunks.TemporalEnsemble(
        self._ensemble, execute=self._execute
      )
    return self._averages[one.job.number](chunk)


class Log:
  """episodes.jsonl: a line an episode, on disk before the next one is counted."""

  def __init__(self, path: pathlib.Path):
    self._path, self.episodes = path, []
    if path.exists():
      for line in path.read_text().splitlines():
        # The line that a kill cut off: that episode is played again.
        with contextlib.suppress(json.JSONDecodeError):
          self.episodes.append(json.loads(line))
      atomic.write(path, "".join(json.dumps(one) + "\n" for one in self.episodes))

  def add(self, episode: dict[str, Any]) -> None:
    self.episodes.append(episode)
    with self._path.open("a") as file:
      file.write(json.dumps(episode) + "\n")
      file.flush()
      os.fsync(file.fileno())


def write_video(path: pathlib.Path, frames: np.ndarray, rate: float) -> None:
  """H.264 mp4 of uint8 [F, H, W, 3] in real time; a kill leaves no half file under this name."""
  encoder = video.H264Encoder(QUALITY, rate=Fraction(rate).limit_denominator(1000))
  for frame in frames:
    encoder.add(frame)
  path.parent.mkdir(parents=True, exist_ok=True)
  fresh = path.with_name(f".{path.name}.new")
  fresh.write_bytes(encoder.finish())
  os.replace(fresh, path)


def identity(path: str) -> dict[str, Any]:
  """What was evaluated: path, training step, and checksums of what decides the actions.

  "xxh64" is of params.safetensors (of all files of the newest checkpoint, where that is what is
  used), "normalization_xxh64" of policy.json, or of the normalization where an older version left
  none.
  """
  found = checkpoint.find(path)
  if found.weights:
    params = shards.file_hash(str(found.weights / "params.safetensors"))
  else:
    parts = [
      (str(one.relative_to(found.state.parent)), shards.file_hash(str(one)))
      for one in sorted(found.state.rglob("*"))
      if one.is_file()
    ]
    params = xxhash.xxh64_hexdigest(json.dumps(parts).encode())
  record = found.config.parent / policy_spec.FILE
  if record.is_file():
    text = record.read_text()
  else:
    config = weights.read_config(found.config) if found.config.is_file() else {}
    text = json.dumps(config.get("normalization"), sort_keys=True)
  return {
    "path": str(path),
    "step": found.step,
    "xxh64": params,
    "normalization_xxh64": xxhash.xxh64_hexdigest(text.encode()),
  }


def same(file: pathlib.Path, now: dict[str, Any]) -> None:
  """Raises errors.UserError where the episodes so far were played by other weights than those that
  the checkpoint's path now holds.
  """
  was = json.loads(file.read_text()) if file.is_file() else now
  if "normalisation_xxh64" in was:  # as older versions spelled it
    was["normalization_xxh64"] = was.pop("normalisation_xxh64")
  changed = [
    f"{key}: {was.get(key)!r} before, {now[key]!r} now"
    for key in now
    if key not in ("path", "step") and was.get(key) != now[key]
  ]
  if changed:
    raise errors.UserError(
      f"--resume: {now['path']} is not the policy that {file} names ({'; '.join(changed)}): the "
      "results would mix two policies; give --overwrite or another --workdir"
    )


def show(result: dict[str, Any], info: dict[str, Any]) -> None:
  """The table on the terminal."""
  width = max(len(task) for task in [*result["tasks"], "mean over tasks"])

  def line(name, row, more=""):
    found = success.Interval(row["value"], row["low"], row["high"], row["count"])
    print(f"{name:{width}}  {found!s:>24}  {row['count']:>5} episodes{more}")

  for task, row in result["tasks"].items():
    line(
      task,
      row,
      f", {row['steps_to_success']:.0f} control steps to success"
      if row["steps_to_success"]
      else "",
    )
  if result["overall"]:
    mean = result["overall"]["mean_over_tasks"]
    line("mean over tasks", mean)
    points = 100 * runs.detectable_episodes(mean["count"])
    print(
      f"against another trained policy on as many episodes, {points:.0f} points are detected "
      "(80 % power, 5 % two-sided); training recipes need several seeds each"
    )
  print(f"{info['overall']['eval_s']:.0f} s, {info['overall']['eval_ep_s']:.2f} s an episode")
  if result["errors"]:
    print(
      f"{len(result['errors'])} episodes could not be played and are not counted: --resume "
      "tries them again"
    )


def _bar(total: int, log: Log) -> tqdm.tqdm:
  done = sum(not one["error"] for one in log.episodes)
  return tqdm.tqdm(
    total=total,
    initial=done,
    unit="episode",
    desc="rollout",
    mininterval=1.0 if sys.stderr.isatty() else 30.0,
  )


def _running(log: Log) -> str:
  valid = [one["success"] for one in log.episodes if not one["error"]]
  return f"success {100 * sum(valid) / len(valid):.1f} %" if valid else ""
