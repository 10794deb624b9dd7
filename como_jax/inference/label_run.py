"""Labels for all shards of a data set, by one process or by several that share them.

A unit of work is a part of a shard (`label_parts.Part`): a killed run goes on behind the last whole
part, and ends with the same bytes as one that was never interrupted. Batches never mix parts, and
shard s belongs to process s % process_count, so the labels do not depend on what was done before or
by which process.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
import tqdm

from como_jax import errors
from como_jax.data import label_file, labels, sequences, video
from como_jax.data.batching import ProcessSlice
from como_jax.data.read_options import ReadOptions
from como_jax.inference import label_parts, labeling, latent_stream, motion_checkpoint


class DataToLabel(Protocol):
  """The opened data (`assembly.labeling_data`).

  Attributes:
    source: their path as given, or that of the model's training.
    folder: of their shards.
    manifest: description of the shards.
    offset: between the frames of a pair, as text.
    read_options: how frames are read.
  """

  source: str
  folder: str
  manifest: dict[str, Any]
  offset: Any
  read_options: ReadOptions


@dataclasses.dataclass(frozen=True, eq=False)
class LabelingRun:
  """The data to label, and the model that labels them.

  Attributes:
    trained: the motion model.
    data: the data.
    plan: their segments, the cameras to label, the offset.
  """

  trained: motion_checkpoint.MotionCheckpoint
  data: DataToLabel
  plan: sequences.Plan

  @property
  def shards(self) -> list[int]:
    """Numbers of the shards, rising."""
    return [int(shard) for shard in np.unique(self.plan.segments.table.shard)]

  @functools.cached_property
  def facts(self) -> dict[str, Any]:
    """What labels depend on; every finished shard keeps a copy."""
    return {
      "version": labels.VERSION,
      "model": self.trained.fingerprint,
      "data": self.data.manifest["source"]["fingerprint"],
      "layout": labels.layout(self.plan.segments.table),
      "offset_seconds": self.plan.offset_seconds,
      "cameras": list(self.plan.cameras),
      "dtype": self.trained.model.config["dtype"],
      "decoding": video.DECODING,
    }

  def stream(
    self, *, batch_size: int, pairs_batch: int, mesh: jax.sharding.Mesh
  ) -> latent_stream.LatentStream:
    """The compiled part, for all segments of the data.

    Args:
      batch_size: frames of a batch.
      pairs_batch: pairs of a batch; 0 = as many as frames.
      mesh: the devices of this process.
    """
    return latent_stream.LatentStream(
      self.trained.model,
      self.trained.params,
      batch_size=batch_size,
      pairs_batch=pairs_batch or batch_size,
      reach=self.plan.reach,
      mesh=mesh,
    )


def finished_shards(folder: str, run: LabelingRun) -> dict[int, dict]:
  """Sidecars of the shards that are done.

  Raises:
    errors.UserError: they are of another model, offset or data.
  """
  sidecars = {shard: label_file.finished(folder, shard, facts=run.facts) for shard in run.shards}
  return {shard: sidecar for shard, sidecar in sidecars.items() if sidecar}


@dataclasses.dataclass(frozen=True)
class Backlog:
  """What one process has to do.

  Attributes:
    todo: the shards that are not done -> their parts.
    kept: parts that a killed run has labeled -> their labels.
    shards: number of shards of the process.
    frames: frames of these shards.
  """

  todo: dict[int, list[label_parts.Part]]
  kept: dict[label_parts.Part, label_parts.Labeled]
  shards: int
  frames: int

  @property
  def missing(self) -> list[label_parts.Part]:
    """Parts to label, in order."""
    return [part for parts in self.todo.values() for part in parts if part not in self.kept]


def find_backlog(
  folder: str, run: LabelingRun, *, batch_size: int, process: ProcessSlice
) -> Backlog:
  """Finds what is left to do, and deletes the parts of shards that are done.

  Args:
    folder: of the label set.
    run: the data and the model.
    batch_size: frames of a batch.
    process: this process, among those that share the shards.

  Raises:
    errors.UserError: labels in the folder are of another model, offset or data.
  """
  done = finished_shards(folder, run)
  parts = {
    shard: label_parts.parts(folder, run.plan, shard, batch_size=batch_size, facts=run.facts)
    for shard in run.shards
    if shard % process.count == process.index
  }
  for shard in done.keys() & parts.keys():
    label_parts.remove_parts(folder, shard)
  todo = {shard: parts[shard] for shard in parts if shard not in done}
  kept = {
    part: labeled
    for shard_parts in todo.values()
    for part in shard_parts
    if (labeled := label_parts.load(part))
  }
  frames = sum(part.frames for shard_parts in parts.values() for part in shard_parts)
  return Backlog(todo, kept, len(parts), frames)


def label_shards(
  folder: str,
  run: LabelingRun,
  stream: latent_stream.LatentStream,
  *,
  batch_size: int,
  process: ProcessSlice,
) -> dict[str, Any]:
  """Labels the shards of one process that are not done yet.

  Args:
    folder: of the label set.
    run: the data and the model.
    stream: of the run.
    batch_size: frames of a batch.
    process: this process, among those that share the shards.

  Returns:
    The measured speed; {} when there was nothing to do.
  """
  backlog = find_backlog(folder, run, batch_size=batch_size, process=process)
  if not backlog.todo:
    return {}
  missing = backlog.missing
  left = sum(part.frames for part in missing)
  print(
    f"extract: {left} of {backlog.frames} frames in {len(backlog.todo)} of {backlog.shards} shards "
    f"to label, {run.data.offset}, cameras {', '.join(run.plan.cameras)}; {run.data.read_options}"
  )
  meter = labeling.Meter()
  with progress_bar(backlog.frames, process) as progress:
    progress.update(backlog.frames - left)
    for shard in work_off(folder, run, stream, backlog, meter, progress):
      label_parts.remove_parts(folder, shard)
  return meter.summary(stream, processes=process.count)


def work_off(
  folder: str,
  run: LabelingRun,
  stream: latent_stream.LatentStream,
  backlog: Backlog,
  meter: labeling.Meter,
  progress: Any,
) -> Iterator[int]:
  """Labels the shards of a backlog and writes their files; yields their numbers.

  Args:
    folder: of the files.
    run: the data and the model.
    stream: of the run, at its start.
    backlog: what to do.
    meter: told of each clip.
    progress: a progress bar (tqdm), told of each clip.
  """
  with sequences.iterate_clips(
    run.data.folder,
    run.plan,
    [sequence for part in backlog.missing for sequence in part.sequences],
    image_size=stream.image_size,
    workers=run.data.read_options.workers,
    threads=run.data.read_options.threads,
    prefetch=run.data.read_options.prefetch,
  ) as clips:

    def labeled(part: label_parts.Part) -> label_parts.Labeled:
      done = backlog.kept.pop(part, None)
      if done is None:
        done = labeling.label(part, run.plan, clips, stream, meter, progress)
        label_parts.save(part, done)
      return done

    for shard, parts in backlog.todo.items():
      labeling.write(
        folder, shard, run.plan, [(part, labeled(part)) for part in parts], facts=run.facts
      )
      yield shard


def progress_bar(total: int, process: ProcessSlice) -> tqdm.tqdm:
  """Frames on the terminal, of process 0 only."""
  interval = 0.5 if sys.stderr.isatty() else 10.0  # a log file wants few lines
  return tqdm.tqdm(
    total=total, unit=" frames", desc="extract", disable=process.index != 0, mininterval=interval
  )


def complete(folder: str, run: LabelingRun, *, timeout: float) -> dict[str, Any]:
  """Waits for the shards of other processes and writes labels.json.

  Args:
    folder: of the label set.
    run: the data and the model.
    timeout: seconds without any new shard after which the others are given up.

  Returns:
    The content of labels.json.

  Raises:
    errors.TransientError: naming the shards that did not come.
  """
  return write_manifest(folder, run, _wait_for_shards(folder, run, timeout=timeout))


def write_manifest(
  folder: str, run: LabelingRun, sidecars: dict[int, dict], *, into: str | None = None
) -> dict[str, Any]:
  """Writes records.parquet and labels.json; returns the content of labels.json.

  Args:
    folder: of the label set.
    run: the data and the model.
    sidecars: of all shards, by number.
    into: folder of the two files; None = the label set.
  """
  latent = run.trained.model.latent
  return label_file.write_manifest(
    folder,
    [sidecars[shard] for shard in run.shards],
    into=into,
    data_shards=run.data.folder,
    size=latent.size,
    queries=latent.num_queries,
    dims=latent.latent_dim,
    offset_seconds=run.plan.offset_seconds,
    cameras=list(run.plan.cameras),
    model={
      "path": run.trained.path,
      "fingerprint": run.trained.fingerprint,
      "dtype": run.facts["dtype"],
      "config": run.trained.section,
    },
    data={
      "path": run.data.source,
      "fingerprint": run.facts["data"],
      "image_size": run.data.manifest["image_size"],
    },
  )


def _wait_for_shards(folder: str, run: LabelingRun, *, timeout: float) -> dict[int, dict]:
  """Sidecars of all shards, once all are there.

  Raises:
    errors.TransientError: no new shard came for `timeout` seconds.
  """
  done: dict[int, dict] = {}
  since = time.monotonic()
  while missing := [shard for shard in run.shards if shard not in done]:
    new = {
      shard: sidecar
      for shard in missing
      if (sidecar := label_file.finished(folder, shard, facts=run.facts))
    }
    done |= new
    if new:
      since = time.monotonic()
      continue
    if time.monotonic() - since > timeout:
      raise errors.TransientError(
        f"{folder}: {len(missing)} of {len(run.shards)} shards of other processes did not come "
        f"within {timeout:g} s (the first is {labels.file_name(missing[0])}): start again with "
        "--resume"
      )
    time.sleep(0.5)
  return done
