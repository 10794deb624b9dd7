"""Labels for every frame of a data set: a trained motion model, frozen, over all its segments."""

import dataclasses
import functools
import glob
import json
import os
import threading

import jax

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import labeling_data
from como_jax.data import lerobot_labels
from como_jax.data.batching import ProcessSlice
from como_jax.inference import (
  label_options,
  label_run,
  label_shared,
  label_summary,
  motion_checkpoint,
)
from como_jax.parallel import distributed
from como_jax.train import atomic, reading, rundir
from como_jax.units import beam
from como_jax.units import folder as folder_lib

SPEED = "speed.json"  # the one file that differs between two runs


def run(command: config_lib.CommandLine) -> int:
  """Writes a label set into the workdir, and a LeRobot data set into config.lerobot if it is given.

  Several processes share the shards; the first one writes what they have in common. With
  config.shared they are independent, and the last one does.
  """
  if command.config.shared or command.config.runner:
    return run_shared(command)
  workdir, first = command.workdir, distributed.is_primary()
  flags = {"resume": command.resume, "overwrite": command.overwrite}
  distributed.assert_same_on_all(
    "\n".join([config_lib.to_json(command.config), str(workdir), str(flags)]),
    what="the command line",
  )
  reading.cores()  # here, where all processes come
  options, work, mesh = distributed.run_on_all_processes(lambda: prepare(command, first=first))
  distributed.run_on_all_processes(lambda: begin(command, work, first=first), first_alone=True)
  speed = label_run.label_shards(
    str(workdir),
    work,
    work.stream(batch_size=options.batch_size, pairs_batch=options.pairs_batch, mesh=mesh),
    batch_size=options.batch_size,
    process=ProcessSlice(jax.process_index(), jax.process_count()),
  )
  if not first:
    return 0
  if speed:
    atomic.write(workdir / SPEED, json.dumps(speed, indent=2))
  manifest = label_run.complete(str(workdir), work, timeout=options.timeout)
  print(label_summary.text(manifest, speed, folder=command.address or str(workdir)))
  if options.lerobot:
    print(
      lerobot_labels.export(
        str(workdir), options.lerobot, source=work.data.source, shards_path=work.data.folder
      )
    )
  return 0


def run_shared(command: config_lib.CommandLine) -> int:
  """Labels shards together with any other processes of the same workdir and config.

  Raises:
    errors.UserError: a setting, checkpoint, data set or folder does not fit.
  """
  if command.overwrite or jax.process_count() > 1:
    word = "--overwrite" if command.overwrite else "--distributed"
    raise errors.SharedUserError(
      f"config.shared and config.runner: independent processes share {command.workdir}, so {word} "
      "is not for them: leave it away"
    )
  workdir, options = command.workdir, label_options.from_config(command.config)
  labeler = _labeler(options)
  label_shared.open_workdir(workdir, command.config)

  def by_beam(shared: folder_lib.SharedFolder, missing: list[int]) -> None:
    beam.run(PlaceLabels(options, shared.output), missing, options.runner_flags)

  manifest = label_shared.label_shards(
    str(workdir),
    labeler,
    by_beam if options.runner else functools.partial(label_shared.by_leases, labeler),
    lease_seconds=options.lease_seconds,
  )
  print(label_summary.text(manifest, labeler.summary(), folder=str(workdir)))
  return 0


@dataclasses.dataclass(frozen=True)
class PlaceLabels:
  """The function that Apache Beam runs (`units.beam`): it labels a shard that is not labeled yet.

  Attributes:
    options: of labeling.
    output: the label set's folder.
  """

  options: label_options.Options
  output: str

  def __call__(self, shard: int) -> None:
    """Writes the labels of a shard and their sidecar."""
    if label_shared.is_done(self.output, shard):
      return
    with _BEAM_LOCK:  # a stream is at one place, and a runner may have several threads
      key = repr(self.options)
      if key not in _LABELERS:
        _LABELERS[key] = _labeler(self.options)
      with label_run.progress_bar(0, ProcessSlice(1, 2)) as progress:
        beam.place(self.output, lambda staging: _LABELERS[key].stage(staging, shard, progress))


# Labelers of this process: loading a model takes seconds.
_LABELERS: dict[str, label_shared.Labeler] = {}
_BEAM_LOCK = threading.Lock()


def _labeler(options: label_options.Options) -> label_shared.Labeler:
  work, mesh = open_work(options), label_options.make_mesh(options)
  stream = work.stream(batch_size=options.batch_size, pairs_batch=options.pairs_batch, mesh=mesh)
  return label_shared.Labeler(work, stream, options.batch_size)


def prepare(
  command: config_lib.CommandLine, *, first: bool
) -> tuple[label_options.Options, label_run.LabelingRun, jax.sharding.Mesh]:
  """Opens model and data, and checks all that can be wrong. Writes only shards of raw data.

  Args:
    command: of the command line.
    first: whether this process writes into the workdir.

  Raises:
    errors.UserError: a setting, checkpoint, data set or folder does not fit.
  """
  options = label_options.from_config(command.config)
  if first:
    rundir.check(
      command.workdir, command.config, resume=command.resume, overwrite=command.overwrite
    )
  work = open_work(options)
  mesh = label_options.make_mesh(options)
  if options.lerobot and first:
    lerobot_labels.check(
      options.lerobot, source=work.data.source, shards_path=work.data.folder, resume=command.resume
    )
  return options, work, mesh


def begin(command: config_lib.CommandLine, work: label_run.LabelingRun, *, first: bool) -> None:
  """Opens the workdir as a run directory; all but the first process wait for that.

  Raises:
    errors.UserError: labels in the workdir are of another model, offset or data.
  """
  workdir = command.workdir
  if not first:
    rundir.join(workdir, command.config)
    return
  if command.resume:
    # labels of another model are refused before anything is written
    label_run.finished_shards(str(workdir), work)
  rundir.open_run(workdir, command.config, resume=command.resume, overwrite=command.overwrite)
  for stale in glob.glob(os.path.join(glob.escape(str(workdir)), "*.tmp")):
    os.remove(stale)


def open_work(options: label_options.Options) -> label_run.LabelingRun:
  """Loads the model and opens the data; raw data are turned into shards first.

  Raises:
    errors.UserError: a checkpoint or data set that does not exist or does not fit.
  """
  trained = motion_checkpoint.load(options.checkpoint, dtype=options.dtype)
  data = labeling_data.LabelingData(options, trained)
  return label_run.LabelingRun(trained, data, data.plan())
