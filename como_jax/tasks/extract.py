"""Labels for every frame of a data set: a trained motion model, frozen, over all its segments.

A unit of work is a part of a shard (`tasks.labeling`): a killed run goes on with --resume behind
the last whole part and ends with the same bytes as one that was never interrupted. Batches never
mix parts, and shard s belongs to process s % process_count, so nothing depends on what was done
before or by whom.
"""

import dataclasses
import glob
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import jax
import numpy as np
import tqdm

from como_jax import config as config_lib
from como_jax import errors, models, trees, weights
from como_jax.assembly import data_folders
from como_jax.data import labels, lerobot_labels, read_options, sequences, shards, video
from como_jax.inference import labeling, latent_stream
from como_jax.parallel import distributed
from como_jax.parallel import mesh as mesh_lib
from como_jax.tasks import offsets, probe
from como_jax.train import atomic, checkpoint, reading, rng, rundir

SPEED = "speed.json"  # the one file that differs between two runs


@dataclasses.dataclass
class LabelingRun:
  """What is to be labeled, with what.

  Attributes:
    path: folder of shards; `manifest`: its description.
    plan: its segments, the cameras to label, the offset.
    offset: seconds between the frames of a pair, and why.
    facts: what labels depend on; every finished shard keeps a copy.
    source: the data path as given.
    checkpoint: the model's path as given; `section` its model section.
    loading: how frames are read.
  """

  path: str
  manifest: dict[str, Any]
  plan: sequences.Plan
  offset: offsets.Offset
  facts: dict[str, Any]
  source: str
  checkpoint: str
  section: dict[str, Any]
  loading: read_options.ReadOptions

  @property
  def shards(self) -> list[int]:
    return [int(shard) for shard in np.unique(self.plan.segments.table.shard)]


def run(command: config_lib.CommandLine) -> int:
  """Writes a label set into the workdir, and a LeRobot data set with the labels into config.lerobot
  if that is given.
  """
  config, workdir = command.config, command.workdir
  first, flags = (
    distributed.is_primary(),
    {"resume": command.resume, "overwrite": command.overwrite},
  )
  distributed.assert_same_on_all(
    "\n".join([config_lib.to_json(config), str(workdir), str(flags)]), what="the command line"
  )
  reading.cores()  # here, where all processes come

  def prepare():
    check(config)
    if first:
      rundir.check(workdir, config, **flags)
    work, model, params = open_work(config)
    mesh = make_mesh(config)
    if config.lerobot and first:
      lerobot_labels.check(
        config.lerobot, source=work.source, shards_path=work.path, resume=command.resume
      )
    return work, model, params, mesh

  def begin():
    if not first:
      rundir.join(workdir, config)
      return
    if command.resume:
      # labels of another model are refused before anything is written
      finished_shards(str(workdir), work)
    rundir.open_run(workdir, config, **flags)
    for stale in glob.glob(os.path.join(glob.escape(str(workdir)), "*.tmp")):
      os.remove(stale)

  work, model, params, mesh = distributed.run_on_all_processes(prepare)
  distributed.run_on_all_processes(begin, first_alone=True)
  stream = make_stream(work, model, params, config=config, mesh=mesh)
  speed = extract(
    str(workdir),
    work,
    stream,
    config=config,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  if not first:
    return 0
  if speed:
    atomic.write(workdir / SPEED, json.dumps(speed, indent=2))
  manifest = complete(str(workdir), work, model, timeout=config.timeout)
  report(workdir, manifest, speed)
  if config.lerobot:
    done = lerobot_labels.export(
      str(workdir), config.lerobot, source=work.source, shards_path=work.path
    )
    print(done)
  return 0


def check(config) -> None:
  """Raises `errors.UserError` for an unknown dtype."""
  if config.dtype and config.dtype not in models.DTYPES:
    raise errors.UserError(
      f'config.dtype={config.dtype!r}: {errors.nearest(config.dtype, models.DTYPES)}, or "" for '
      "the model's own"
    )


def make_mesh(config) -> jax.sharding.Mesh:
  """The mesh of this process's devices: processes do not wait for each other.

  Raises `errors.UserError`.
  """
  try:
    mesh = mesh_lib.make(**config.mesh, devices=jax.local_devices())
  except errors.UserError as error:
    raise errors.UserError(str(error).replace("config.train.mesh", "config.mesh")) from error
  ways = mesh.shape["data"] * mesh.shape["fsdp"]
  for key in ("batch_size", "pairs_batch"):
    if config[key] % ways:
      raise errors.UserError(
        f"config.{key}={config[key]} is not divisible by the {ways} devices of config.mesh"
      )
  return mesh


def open_work(config) -> tuple[LabelingRun, Any, Any]:
  """(what to do, model, parameters). Raw data is turned into shards first.

  Raises:
    errors.UserError: a checkpoint or data set that does not exist or does not fit.
  """
  params, run_config = probe.load(config.checkpoint)
  section, trained_on = run_config["model"], run_config.get("data", {})
  model = models.build({**section, "dtype": config.dtype or section["dtype"]})
  params = trees.merge(
    jax.eval_shape(model.init, rng.key(0, "init")), params, what=f"checkpoint {config.checkpoint}"
  )
  given, offset = data_path(config, trained_on)
  source = data_folders.resolve(given)
  # raw data are read as in training
  reading = {**trained_on, "resize": config.data.resize or trained_on.get("resize", "squash")}
  path = data_folders.to_shards(
    source, reading, image_size=model.image_size, cache_dir=data_folders.cache_dir(config.data)
  )
  table, manifest = shards.read_table(path), shards.read_manifest(path)
  plan = sequences.plan(
    table, offset_seconds=offset.seconds, cameras=tuple(config.data.cameras), name=source
  )
  facts = {
    "version": labels.VERSION,
    "model": model_fingerprint(config.checkpoint, params),
    "data": manifest["source"]["fingerprint"],
    "layout": labels.layout(table),
    "offset_seconds": offset.seconds,
    "cameras": list(plan.cameras),
    "dtype": model.config["dtype"],
    "decoding": video.DECODING,
  }
  clip = (int(table.length.max()), model.image_size, model.image_size, 3)
  return (
    LabelingRun(
      path,
      manifest,
      plan,
      offset,
      facts,
      source,
      str(config.checkpoint),
      section,
      reading.choose(config.data, [path], {"frames": jax.ShapeDtypeStruct(clip, np.uint8)}),
    ),
    model,
    params,
  )


def data_path(config, trained_on: dict) -> tuple[str, offsets.Offset]:
  """(data path, offset): the config's, else those of the run that trained the model.

  Raises:
    errors.UserError: neither says it.
  """
  path = config.data.path
  if path is None:
    known = list(dict.fromkeys(entry["path"] for entry in trained_on.get("mixture") or ())) or [
      trained_on.get("path") or ""
    ]
    if len(known) != 1 or not known[0]:
      raise errors.UserError(
        "config.data.path is missing: the model was trained on "
        + (", ".join(known) if known[0] else "unknown data")
      )
    path = known[0]
  return path, offsets.choose(
    path,
    trained_on,
    given=config.offset_seconds,
    option="--config.offset_seconds",
    checkpoint=str(config.checkpoint),
  )


def model_fingerprint(path: str, params) -> str:
  """xxh64 of params.safetensors; where a checkpoint is what is used, of the file that its weights
  would make.
  """
  found = checkpoint.find(path)
  if found.weights:
    return shards.file_hash(str(found.weights / weights.PARAMS))
  with tempfile.TemporaryDirectory() as temporary:
    file = pathlib.Path(temporary) / weights.PARAMS
    weights.write_safetensors(
      file, {name: np.asarray(leaf) for name, leaf in trees.flatten(params).items()}
    )
    return shards.file_hash(str(file))


def finished_shards(folder: str, work: LabelingRun) -> dict[int, dict]:
  """Sidecars of the shards that are done.

  Raises `errors.UserError` when they are of another model, offset or data.
  """
  found = {shard: labels.finished(folder, shard, facts=work.facts) for shard in work.shards}
  return {shard: sidecar for shard, sidecar in found.items() if sidecar}


def make_stream(
  work: LabelingRun, model: Any, params: Any, *, config, mesh
) -> latent_stream.LatentStream:
  """The compiled part, for all segments of the data."""
  return latent_stream.LatentStream(
    model,
    params,
    batch_size=config.batch_size,
    pairs_batch=config.pairs_batch or config.batch_size,
    reach=work.plan.reach,
    mesh=mesh,
  )


def extract(
  folder: str,
  work: LabelingRun,
  stream: latent_stream.LatentStream,
  *,
  config,
  process_index: int,
  process_count: int,
) -> dict[str, Any]:
  """Labels the shards of one process that are not done yet.

  Returns:
    What it measured, {} when there was nothing to do.
  """
  done = finished_shards(folder, work)
  mine = [shard for shard in work.shards if shard % process_count == process_index]
  parts = {
    shard: labeling.parts(folder, work.plan, shard, batch_size=config.batch_size, facts=work.facts)
    for shard in mine
  }
  for shard in done.keys() & parts.keys():
    labeling.remove_parts(folder, shard)
  todo = {shard: parts[shard] for shard in mine if shard not in done}
  if not todo:
    return {}
  kept = {
    part: found
    for every in todo.values()
    for part in every
    if part.file and (found := labeling.load(part))
  }
  missing = [part for every in todo.values() for part in every if part not in kept]
  total, left = (
    sum(part.frames for every in parts.values() for part in every),
    sum(part.frames for part in missing),
  )
  print(
    f"extract: {left} of {total} frames in {len(todo)} of {len(mine)} shards to label, "
    f"{work.offset}, cameras {', '.join(work.plan.cameras)}; {work.loading}"
  )
  meter = labeling.Meter()
  with (
    sequences.walk(
      work.path,
      work.plan,
      [one for part in missing for one in part.sequences],
      image_size=stream.image_size,
      workers=work.loading.workers,
      threads=work.loading.threads,
      prefetch=work.loading.prefetch,
    ) as clips,
    bar(total, process_index) as progress,
  ):
    progress.update(total - left)
    for shard, every in todo.items():
      labeled = []
      for part in every:
        found = kept.pop(part, None)
        if found is None:
          found = labeling.label(part, work.plan, clips, stream, meter, progress)
          if part.file:
            labeling.save(part, found)
        labeled.append((part, found))
      labeling.write(folder, shard, work.plan, labeled, facts=work.facts)
      labeling.remove_parts(folder, shard)
  return meter.summary(stream, processes=process_count)


def bar(total: int, process_index: int) -> tqdm.tqdm:
  """Frames on the terminal, of process 0 only."""
  interval = 0.5 if sys.stderr.isatty() else 10.0  # a log file wants few lines
  return tqdm.tqdm(
    total=total, unit=" frames", desc="extract", disable=process_index != 0, mininterval=interval
  )


def complete(folder: str, work: LabelingRun, model: Any, *, timeout: float) -> dict[str, Any]:
  """Waits for the shards of other processes and writes labels.json.

  Args:
    timeout: seconds without any new shard after which the others are given up.

  Raises:
    errors.Transient: naming the shards that did not come.
  """
  done: dict[int, dict] = {}
  since = time.monotonic()
  while missing := [shard for shard in work.shards if shard not in done]:
    came = {
      shard: sidecar
      for shard in missing
      if (sidecar := labels.finished(folder, shard, facts=work.facts))
    }
    done |= came
    if came:
      since = time.monotonic()
      continue
    if time.monotonic() - since > timeout:
      raise errors.Transient(
        f"{folder}: {len(missing)} of {len(work.shards)} shards of other processes did not come "
        f"within {timeout:g} s (the first is {labels.file_name(missing[0])}): start again with "
        "--resume"
      )
    time.sleep(0.5)
  return labels.write_manifest(
    folder,
    [done[shard] for shard in work.shards],
    data_shards=work.path,
    size=model.latent.size,
    queries=model.latent.num_queries,
    dims=model.latent.latent_dim,
    offset_seconds=work.offset.seconds,
    cameras=list(work.plan.cameras),
    model={
      "path": work.checkpoint,
      "fingerprint": work.facts["model"],
      "dtype": work.facts["dtype"],
      "config": work.section,
    },
    data={
      "path": work.source,
      "fingerprint": work.facts["data"],
      "image_size": work.manifest["image_size"],
    },
  )


def report(workdir: pathlib.Path, manifest: dict[str, Any], speed: dict[str, Any]) -> None:
  """What there is now, in words."""
  for one in manifest["damaged"]:
    print(
      f"damaged: {shards.shard_name(one['shard'])} clip {one['clip']} camera {one['camera']}: "
      f"{one['frames']} frames cannot be read: {one['reason']}"
    )
  lost = {
    f"{manifest['at_end']} at the end of a segment": manifest["at_end"],
    (
      f"{manifest['left_out']} left out (no frame is near enough to "
      f"{manifest['offset_seconds']:g} s later)"
    ): manifest["left_out"],
    f"{manifest['unreadable']} lost with damaged frames": manifest["unreadable"],
  }
  print(
    "frames without a motion (valid = 0): "
    + (", ".join(text for text, count in lost.items() if count) or "none")
  )
  measured = speed.get("frames_per_s")
  rate = f", {measured:.1f} frames/s, waited for data {speed['wait_share']:.1%}" if measured else ""
  print(
    f"labels: {manifest['valid']} motions of {manifest['size']} numbers for {manifest['frames']} "
    f"frames, cameras {', '.join(manifest['cameras'])}{rate} -> {workdir}"
  )
