"""Collects a LeRobot data set from a simulator's scripted experts.

Each task has its own process. The output is written atomically, with a progress bar.
"""

import concurrent.futures
import json
import multiprocessing
import pathlib
import signal
import sys
from collections.abc import Iterator

import tqdm

from como_jax import config as config_lib
from como_jax import errors, sim
from como_jax.data import lerobot_info, lerobot_video, lerobot_writer
from como_jax.sim import base, collect


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
  spec = _spec(settings, tasks[0])
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
  writer: lerobot_writer.Writer, settings: collect.Settings, tasks: tuple[str, ...], *, workers: int
) -> list[collect.Tally]:
  """Writes the episodes of all tasks, with a progress bar; returns the counts of each task."""
  tallies = []
  total = len(tasks) * (
    settings.motions + (len(settings.scenes) - 1) * min(settings.repeated, settings.motions)
  )
  with tqdm.tqdm(
    total=total, unit="episode", desc="collect", mininterval=1.0 if sys.stderr.isatty() else 30.0
  ) as bar:
    for item in _items(settings, tasks, workers):
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


def _spec(settings: collect.Settings, task: str) -> base.Spec:
  simulator = collect.build(settings, task)
  simulator.close()
  return simulator.spec


def _items(
  settings: collect.Settings, tasks: tuple[str, ...], workers: int
) -> Iterator[collect.Episode | collect.Tally]:
  """Yields episodes and tallies in the order of `tasks`, with any number of processes.

  At most `workers + 1` finished tasks are kept in memory (a task of 20 episodes at 128 px takes
  about 100 MB).
  """
  if workers <= 1:
    for task in tasks:
      yield from collect.collect_task(settings, task)
    return
  context = multiprocessing.get_context("spawn")  # OpenGL contexts do not survive a fork
  # Ctrl-C kills the workers at once, because the end of this `with` block waits for them.
  with concurrent.futures.ProcessPoolExecutor(
    workers, mp_context=context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)
  ) as pool:
    futures = []
    for task in tasks:
      futures.append(pool.submit(_whole_task, settings, task))
      if len(futures) > workers:
        yield from futures.pop(0).result()
    for future in futures:
      yield from future.result()


def _whole_task(settings: collect.Settings, task: str) -> list[collect.Episode | collect.Tally]:
  return list(collect.collect_task(settings, task))
