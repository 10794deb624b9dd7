"""Labels by any number of independent processes, which take shards by leases (`units.folder`).

The processes share nothing but the label set's folder and use their own devices. A shard that was
begun by a process that is lost is continued behind its last whole part.
"""

import glob
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from como_jax import errors, weights
from como_jax.data import label_file, labels, locks
from como_jax.data.batching import ProcessSlice
from como_jax.inference import label_parts, label_run, labeling, latent_stream
from como_jax.train import config_changes, lock, rundir
from como_jax.units import folder as units

_MERGE = "manifest"  # name of the last unit: it puts the others together


def open_workdir(workdir: pathlib.Path, config: Any) -> None:
  """Makes the directory of a run, or joins the run that others have begun there.

  Raises:
    errors.UserError: it holds something else, or a run with another config.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / lock.LOCK
  with locks.locked(str(path), message=f"extract: another process holds {path}; waiting for it"):
    if (workdir / rundir.CONFIG).is_file():
      task = weights.read_config(workdir / rundir.CONFIG).get("task")
      if task != config.task:
        raise errors.UserError(
          f"--workdir {workdir} holds a run of task {task!r}, not {config.task!r}; it is left "
          "alone, choose another directory"
        )
      for line in config_changes.lines(workdir, config):
        print(line)
      return
    rundir.check(workdir, config, resume=False, overwrite=False)
    rundir.write_facts(workdir, config)


class Labeler:
  """Labels one shard after the other into a staging folder.

  Attributes:
    run: the data and the model.
    meter: of all shards.
  """

  def __init__(
    self, run: label_run.LabelingRun, stream: latent_stream.LatentStream, batch_size: int
  ):
    self.run, self.meter = run, labeling.Meter()
    self._stream, self._batch_size = stream, batch_size

  def summary(self) -> dict[str, Any]:
    """The measured speed; {} when there was nothing to do."""
    return self.meter.summary(self._stream, processes=1) if self.meter.total else {}

  def stage(self, staging: str, shard: int, progress: Any) -> list[str]:
    """Writes the files of a shard; returns their names, in the order in which they must appear.

    The parts of the shard are kept in the folder that holds the staging folder.

    Args:
      staging: the folder.
      shard: number of the shard.
      progress: a progress bar (tqdm), told of each clip.
    """
    folder = os.path.dirname(staging)
    parts = label_parts.parts(
      folder, self.run.plan, shard, batch_size=self._batch_size, facts=self.run.facts
    )
    kept = {part: labeled for part in parts if (labeled := label_parts.load(part))}
    progress.update(sum(part.frames for part in kept))
    backlog = label_run.Backlog({shard: parts}, kept, 1, sum(part.frames for part in parts))
    for _ in label_run.work_off(staging, self.run, self._stream, backlog, self.meter, progress):
      label_parts.remove_parts(folder, shard)
    return label_file.files(shard)


def label_shards(
  folder: str,
  labeler: Labeler,
  label_missing: Callable[[units.SharedFolder, list[int]], None],
  *,
  lease_seconds: float,
) -> dict[str, Any]:
  """Has all shards labeled, by this process or by others; returns the content of labels.json.

  Args:
    folder: of the label set.
    labeler: of the run.
    label_missing: labels the shards of these numbers: `by_leases`, or under Apache Beam.
    lease_seconds: how long the lease of a unit lasts when its holder is stopped or lost.

  Raises:
    errors.UserError: labels in the folder are of another model, offset or data.
  """
  run = labeler.run
  done = label_run.finished_shards(folder, run)
  missing = [shard for shard in run.shards if shard not in done]
  manifest = os.path.join(folder, labels.MANIFEST)
  for shard in missing:  # torn, or without its file
    _remove(labels.sidecar_path(folder, shard))
  if missing:
    _remove(manifest)
    print(
      f"extract: {len(missing)} of {len(run.shards)} shards to label together with other "
      f"processes, {run.data.offset}, cameras {', '.join(run.plan.cameras)}; "
      f"{run.data.read_options}"
    )
  with units.SharedFolder(folder, seconds=lease_seconds) as shared:
    if missing:
      label_missing(shared, missing)
    if not missing and os.path.isfile(manifest):
      return labels.read_manifest(folder)
    return _merge(shared, run)


def by_leases(labeler: Labeler, shared: units.SharedFolder, missing: list[int]) -> None:
  """Labels the missing shards that no other process labels, until all are labeled."""
  by_name = {f"labels-{shard:05d}": shard for shard in missing}
  plan = labeler.run.plan
  frames = sum(sequence.length for shard in missing for sequence in plan.sequences(shard))
  with label_run.progress_bar(frames, ProcessSlice()) as progress:
    for claimed in shared.claims(by_name, lambda name: is_done(shared.output, by_name[name])):
      if claimed is None:
        time.sleep(shared.poll)
        continue
      lease, shard = claimed
      try:
        shared.publish(lease, labeler.stage(shared.staging, shard, progress))
      except FileNotFoundError:
        # Where others have finished all labels while this process was stopped, the folder is gone.
        if os.path.isdir(shared.staging):
          raise


def is_done(folder: str, shard: int) -> bool:
  """Whether the labels of a shard are in their places."""
  file = os.path.join(folder, labels.file_name(shard))
  return os.path.isfile(labels.sidecar_path(folder, shard)) and os.path.isfile(file)


def _merge(shared: units.SharedFolder, run: label_run.LabelingRun) -> dict[str, Any]:
  """Writes labels.json when all shards are there, or waits for the process that writes it."""
  folder = shared.output
  path = os.path.join(folder, labels.MANIFEST)
  while True:
    lease = shared.claim(_MERGE, lambda: os.path.isfile(path))
    if lease:
      try:
        manifest = label_run.write_manifest(
          folder, run, label_run.finished_shards(folder, run), into=shared.staging
        )
      except FileNotFoundError:
        if os.path.isdir(shared.staging):
          raise
      else:
        if shared.publish(lease, label_file.FILES):
          shared.clear()
          for stale in glob.glob(os.path.join(glob.escape(folder), "*.tmp")):
            os.remove(stale)
          return manifest
    if os.path.isfile(path):
      return labels.read_manifest(folder)
    time.sleep(shared.poll)


def _remove(path: str) -> None:
  if os.path.isfile(path):
    os.remove(path)
