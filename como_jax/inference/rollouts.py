"""Episodes of a rollout: which ones to play, and what is kept of each as soon as it ends.

Every finished episode is a line of episodes.jsonl at once, so a killed run goes on with --resume.
The initial state of episode e is that of seed `first_seed + e`, whatever the policy, the number of
workers and what ran before: two policies can be compared in pairs (evaluate/success.py).
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import tqdm

from como_jax import errors
from como_jax.data import video
from como_jax.sim import vector
from como_jax.train import atomic

EPISODES, VIDEOS = "episodes.jsonl", "videos"
QUALITY = 23  # x264 crf of videos


@dataclasses.dataclass(frozen=True)
class Schedule:
  """All episodes of a rollout.

  Attributes:
    tasks: task -> (group, number in the group), in order.
    episodes: number of episodes of a task.
    first_seed: seed of the first episode of a task.
    scene: appearance.
    actor: one of `sim.vector.ACTORS`.
    videos: number of episodes of a task that are recorded.
  """

  tasks: Mapping[str, tuple[str, int]]
  episodes: int
  first_seed: int
  scene: int
  actor: str
  videos: int

  @property
  def jobs(self) -> list[vector.Job]:
    """All episodes, task by task; their numbers stay the same in a resumed run."""
    pairs = [(task, episode) for task in self.tasks for episode in range(self.episodes)]
    return [
      vector.Job(
        number, task, self.first_seed + episode, self.scene, self.actor, episode < self.videos
      )
      for number, (task, episode) in enumerate(pairs)
    ]

  def episode(self, job: vector.Job) -> int:
    """Number of an episode within its task."""
    return job.seed - self.first_seed

  def video(self, job: vector.Job) -> str:
    """Path of the video of an episode, within the run directory."""
    group, number = self.tasks[job.task]
    folder = f"{group}_{number if '/' in job.task else job.task}"
    return f"{VIDEOS}/{folder}/eval_episode_{self.episode(job)}.mp4"


class EpisodeLog:
  """The file episodes.jsonl: one line per episode, on disk before the next one is counted.

  Attributes:
    episodes: the lines, see `evaluate.outcomes`.
  """

  def __init__(self, path: pathlib.Path):
    """Reads the file of an earlier run, if there is one."""
    self._path = path
    self.episodes: list[dict[str, Any]] = []
    if path.exists():
      for line in path.read_text().splitlines():
        # The line that a kill cut off: that episode is played again.
        with contextlib.suppress(json.JSONDecodeError):
          self.episodes.append(json.loads(line))
      atomic.write(path, "".join(json.dumps(episode) + "\n" for episode in self.episodes))

  @property
  def valid(self) -> list[dict[str, Any]]:
    """Episodes with a result."""
    return [episode for episode in self.episodes if not episode["error"]]

  def add(self, episode: dict[str, Any]) -> None:
    """Appends an episode."""
    self.episodes.append(episode)
    with self._path.open("a") as file:
      file.write(json.dumps(episode) + "\n")
      file.flush()
      os.fsync(file.fileno())

  def missing(self, schedule: Schedule) -> list[vector.Job]:
    """The episodes of a schedule that have no result yet."""
    done = {(episode["task"], episode["episode"]) for episode in self.valid}
    return [job for job in schedule.jobs if (job.task, schedule.episode(job)) not in done]

  def success(self) -> str:
    """Success rate so far, as text; "" before the first result."""
    valid = [episode["success"] for episode in self.valid]
    return f"success {100 * sum(valid) / len(valid):.1f} %" if valid else ""


def keep(
  outcomes: Iterable[vector.Outcome], schedule: Schedule, log: EpisodeLog, folder: pathlib.Path
) -> None:
  """Writes each episode as it ends: its video and its line. Shows the progress.

  Args:
    outcomes: of `sim.vector.Fleet.run`.
    schedule: of the rollout.
    log: of the rollout.
    folder: the run directory.
  """
  with _progress_bar(len(schedule.jobs), done=len(log.valid)) as bar:
    before = time.monotonic()
    for outcome in outcomes:
      job, path = outcome.job, ""
      if outcome.frames is not None and not outcome.error:
        path = schedule.video(job)
        write_video(folder / path, outcome.frames, outcome.rate)
      now = time.monotonic()
      log.add(
        record(outcome, episode=schedule.episode(job), video_path=path, wall_seconds=now - before)
      )
      before = now
      if outcome.error:
        bar.write(
          f"{job.task} episode {schedule.episode(job)} (seed {job.seed}) could not be played: "
          f"{outcome.error}"
        )
      bar.update()
      bar.set_postfix_str(log.success(), refresh=False)


def record(
  outcome: vector.Outcome, *, episode: int, video_path: str, wall_seconds: float
) -> dict[str, Any]:
  """A line of episodes.jsonl, see `evaluate.outcomes`.

  Args:
    outcome: of the episode.
    episode: its number within the task.
    video_path: of its video; "" = none.
    wall_seconds: time since the end of the previous episode.
  """
  return {
    "task": outcome.job.task,
    "episode": episode,
    "seed": outcome.job.seed,
    "scene": outcome.job.scene,
    "initial_state": outcome.initial_state,
    "success": outcome.success,
    "steps": outcome.steps,
    "max_steps": outcome.max_steps,
    "plans": outcome.plans,
    "seconds": round(outcome.seconds, 4),
    "wall": round(wall_seconds, 4),
    "video": video_path,
    "error": outcome.error,
  }


def _progress_bar(total: int, *, done: int) -> tqdm.tqdm:
  return tqdm.tqdm(
    total=total,
    initial=done,
    unit="episode",
    desc="rollout",
    mininterval=1.0 if sys.stderr.isatty() else 30.0,
  )


def write_video(path: pathlib.Path, frames: np.ndarray, rate: float) -> None:
  """Writes an H.264 mp4 in real time; a kill leaves no half file under this name.

  Args:
    path: of the file.
    frames: uint8 [F, H, W, 3].
    rate: frames per second.
  """
  encoder = video.H264Encoder(QUALITY, rate=Fraction(rate).limit_denominator(1000))
  for frame in frames:
    encoder.add(frame)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.new")
  temporary.write_bytes(encoder.finish())
  os.replace(temporary, path)


def check_same_policy(file: pathlib.Path, identity: Mapping[str, Any]) -> None:
  """Checks that the episodes so far were played with the weights that the checkpoint has now.

  Args:
    file: the identity of the policy that played them (checkpoint.json); there may be none.
    identity: of the checkpoint (`fingerprints.of_policy`).

  Raises:
    errors.UserError: they were played with other weights.
  """
  before = json.loads(file.read_text()) if file.is_file() else dict(identity)
  if "normalisation_xxh64" in before:  # as older versions spelled it
    before["normalization_xxh64"] = before.pop("normalisation_xxh64")
  changed = [
    f"{key}: {before.get(key)!r} before, {identity[key]!r} now"
    for key in identity
    if key not in ("path", "step") and before.get(key) != identity[key]
  ]
  if changed:
    raise errors.UserError(
      f"--resume: {identity['path']} is not the policy that {file} names ({'; '.join(changed)}): "
      "the results would mix two policies; give --overwrite or another --workdir"
    )
