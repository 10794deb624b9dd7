"""Labels for every frame of a data set: a trained motion model, frozen, over all its segments."""

import glob
import json
import os

import jax

from como_jax import config as config_lib
from como_jax.assembly import labeling_data
from como_jax.data import lerobot_labels
from como_jax.data.batching import ProcessSlice
from como_jax.inference import label_options, label_run, label_summary, motion_checkpoint
from como_jax.parallel import distributed
from como_jax.train import atomic, reading, rundir

SPEED = "speed.json"  # the one file that differs between two runs


def run(command: config_lib.CommandLine) -> int:
  """Writes a label set into the workdir, and a LeRobot data set into config.lerobot if it is given.

  Several processes share the shards; the first one writes what they have in common.
  """
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
  print(label_summary.text(manifest, speed, folder=str(workdir)))
  if options.lerobot:
    print(
      lerobot_labels.export(
        str(workdir), options.lerobot, source=work.data.source, shards_path=work.data.folder
      )
    )
  return 0


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
