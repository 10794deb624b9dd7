"""Collects a LeRobot data set from a simulator's scripted experts.

The output is written atomically, with a progress bar.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

import tqdm

from como_jax import config as config_lib
from como_jax import errors, sim
from como_jax.data import lerobot_info, lerobot_video, lerobot_writer
from como_jax.sim import collect


def run(command: config_lib.CommandLine) -> int:
  """Entry of `como_jax.main`: collects into `config.output` (default: WORKDIR/dataset)."""
  collect_dataset(command.config, str(command.workdir))
  return 0


def collect_dataset(config: config_lib.ConfigDict, workdir: str) -> pathlib.Path:
  """Writes the data set and meta/collection.json (settings, versions, success rates).

  Args:
    config: of the task.
    workdir: contains the data set when `config.output` is empty.

  Returns:
    Path of the data set.

  Raises:
    UserError: unknown task or camera, existing output, missing packages or OpenGL, or no success at
      all.
  """
  settings = collect.Settings(**config.collect.to_dict())  # plain values, because it is pickled
  module = sim.load(settings.simulator)
  tasks = tuple(config.tasks) or tuple(module.TASKS)
  for task in tasks:
    if task not in module.TASKS:
      raise errors.UserError(
        f"config.tasks: {settings.simulator} task {task!r} is unknown: "
        f"{errors.nearest(task, module.TASKS)}"
      )
  spec = collect.spec(settings, tasks[0])
  output = pathlib.Path(config.output or pathlib.Path(workdir) / "dataset")
  size = (settings.image_size, settings.image_size)
  with lerobot_writer.Writer(
    output,
    spec.fps / settings.stride,
    lerobot_info.Features(
      dict.fromkeys(settings.views, size),
      spec.state_names if settings.actions else (),
      spec.action_names if settings.actions else (),
      outcome=settings.actions,
    ),
    robot_type=spec.robot,
    video=lerobot_video.VideoOptions(**config.video),
  ) as writer:
    tallies = _write_episodes(writer, settings, tasks, workers=config.workers)
    writer.finalize(
      notes={
        "config": json.loads(config_lib.to_json(config)) | {"output": ""},
        "simulator": module.VERSION,
        "labeled_as": module.EXPERT
        if settings.actions
        else f"video without actions; recorded from a {module.EXPERT}",
        "success": {tally.task: f"{tally.successes}/{tally.attempts}" for tally in tallies},
      }
    )
  successes = sum(tally.successes for tally in tallies)
  attempts = sum(tally.attempts for tally in tallies)
  print(
    f"wrote {output}: {total_size(output) / 2**20:.2f} MiB, {successes} of {attempts} attempts "
    "succeeded"
  )
  return output


def _write_episodes(
  writer: lerobot_writer.Writer, settings: collect.Settings, tasks: Sequence[str], *, workers: int
) -> list[collect.Tally]:
  """Writes the episodes of all tasks, with a progress bar; returns the counts of each task."""
  tallies = []
  with tqdm.tqdm(
    total=len(tasks) * settings.episodes,
    unit="episode",
    desc="collect",
    mininterval=1.0 if sys.stderr.isatty() else 30.0,
  ) as bar:
    for item in collect.collect_tasks(settings, tasks, workers=workers):
      if isinstance(item, collect.Tally):
        tallies.append(item)
        if item.successes < settings.motions:
          bar.write(
            f"{item.task}: only {item.successes} of {settings.motions} motions in "
            f"{item.attempts} attempts"
          )
        continue
      writer.add_episode(
        item.instruction,
        item.frames,
        state=item.state if settings.actions else None,
        action=item.action if settings.actions else None,
        success=item.success if settings.actions else None,
        metadata=item.metadata,
      )
      bar.update()
  return tallies


def total_size(path: pathlib.Path) -> int:
  """Bytes of all files below a folder."""
  return sum(file.stat().st_size for file in pathlib.Path(path).rglob("*") if file.is_file())
