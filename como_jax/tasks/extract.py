"""Labels for every frame of a data set: a trained motion model, frozen, over all its clips.

A unit of work is a shard: its labels appear at once with their sidecar, so a killed run goes on with --resume and ends with the same
bytes as one that was never interrupted. Batches never mix shards, and shard s belongs to process s % process_count, so nothing
hangs on what was done before or by whom.
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
import xxhash

from como_jax import config as config_lib
from como_jax import errors, models, trees, weights
from como_jax.data import episode as episodes
from como_jax.data import index, ingest, labels, lerobot_labels, loading, sequences, video
from como_jax.data.sources import shards
from como_jax.parallel import distributed
from como_jax.parallel import mesh as mesh_lib
from como_jax.tasks import probe, sources, streaming
from como_jax.train import checkpoint, files, rng, rundir

SPEED = "speed.json"  # the one file that differs between two runs


@dataclasses.dataclass
class Work:
  """What is to be labelled, with what.

  Attributes:
    path: folder of shards; `table`, `manifest`: its records and description.
    cameras: names to label.
    offset: seconds between the frames of a pair.
    facts: what labels hang on; every finished shard keeps a copy.
    source: the data path as given.
    checkpoint: the model's path as given; `section` its model section.
    loading: how frames are read.
  """

  path: str
  table: shards.Table
  manifest: dict[str, Any]
  cameras: tuple[str, ...]
  offset: float
  facts: dict[str, Any]
  source: str
  checkpoint: str
  section: dict[str, Any]
  loading: loading.Loading

  @property
  def shards(self) -> list[int]:
    return [int(shard) for shard in np.unique(self.table.shard)]

  def plan(self, shard: int) -> list[sequences.Sequence]:
    return sequences.plan(self.table, shard, offset_seconds=self.offset, cameras=self.cameras)


def run(command: config_lib.CommandLine) -> int:
  """Writes a label set into the workdir, and a LeRobot data set with the labels into config.lerobot if that is given."""
  config, workdir = command.config, command.workdir
  first, flags = distributed.is_first(), {"resume": command.resume, "overwrite": command.overwrite}
  distributed.same("\n".join([config_lib.to_json(config), str(workdir), str(flags)]), what="the command line")
  sources.cores()  # here, where all processes come

  def prepare():
    check(config)
    if first:
      rundir.check(workdir, config, **flags)
    work, model, params = open_work(config)
    mesh = make_mesh(config)
    if config.lerobot and first:
      lerobot_labels.check(config.lerobot, source=work.source, shards_path=work.path, resume=command.resume)
    return work, model, params, mesh

  def begin():
    if not first:
      rundir.join(workdir, config)
      return
    if command.resume:
      finished_shards(str(workdir), work)  # labels of another model are refused before anything is written
    rundir.open_run(workdir, config, **flags)
    for stale in glob.glob(os.path.join(glob.escape(str(workdir)), "*.tmp")):
      os.remove(stale)

  work, model, params, mesh = distributed.together(prepare)
  distributed.together(begin, first_alone=True)
  stream = make_stream(work, model, params, config=config, mesh=mesh)
  speed = extract(str(workdir), work, stream, config=config, process_index=jax.process_index(), process_count=jax.process_count())
  if not first:
    return 0
  if speed:
    files.write(workdir / SPEED, json.dumps(speed, indent=2))
  manifest = complete(str(workdir), work, model, timeout=config.timeout)
  report(workdir, manifest, speed)
  if config.lerobot:
    done = lerobot_labels.export(str(workdir), config.lerobot, source=work.source, shards_path=work.path)
    print(done, flush=True)
  return 0


def check(config) -> None:
  """Raises `errors.UserError` for numbers that no run can have."""
  for key, least in {"batch_size": 1, "pairs_batch": 0}.items():
    if config[key] < least:
      raise errors.UserError(f"config.{key}={config[key]}, expected at least {least}")
  if config.dtype and config.dtype not in models.DTYPES:
    raise errors.UserError(f"config.dtype={config.dtype!r}: {errors.nearest(config.dtype, models.DTYPES)}, or \"\" for the model's own")


def make_mesh(config) -> jax.sharding.Mesh:
  """The mesh of this process's devices: processes do not wait for each other. Raises `errors.UserError`."""
  try:
    mesh = mesh_lib.make(**config.mesh, devices=jax.local_devices())
  except errors.UserError as error:
    raise errors.UserError(str(error).replace("config.train.mesh", "config.mesh")) from error
  ways = mesh.shape["data"] * mesh.shape["fsdp"]
  for key in ("batch_size", "pairs_batch"):
    if config[key] % ways:
      raise errors.UserError(f"config.{key}={config[key]} is not divisible by the {ways} devices of config.mesh")
  return mesh


def open_work(config) -> tuple[Work, Any, Any]:
  """(what to do, model, parameters). Raw data is turned into shards first.

  Raises:
    errors.UserError: a checkpoint or data set that does not exist or does not fit.
  """
  params, run_config = probe.load(config.checkpoint)
  section, trained_on = run_config["model"], run_config.get("data", {})
  model = models.build({**section, "dtype": config.dtype or section["dtype"]})
  params = trees.merge(jax.eval_shape(model.init, rng.key(0, "init")), params, what=f"checkpoint {config.checkpoint}")
  given, offset = data_path(config, trained_on)
  source = sources.resolve(given)
  resize = config.data.resize or trained_on.get("resize", "squash")
  path = ingest.ensure_shards(source, image_size=model.image_size, cache_dir=sources.cache_dir(config.data), resize=resize)
  table, manifest = shards.read_table(path), shards.read_manifest(path)
  cameras = sequences.check(table, offset_seconds=offset, cameras=tuple(config.data.cameras), name=source)
  layout = np.stack([table.shard, table.record, table.start, table.length], 1).astype("<i8")
  facts = {"model": model_fingerprint(config.checkpoint, params), "data": manifest["source"]["fingerprint"],
           "layout": xxhash.xxh64_hexdigest(layout.tobytes()), "offset_seconds": offset, "cameras": list(cameras), "dtype": model.config["dtype"],
           "decoding": video.DECODING}
  piece = (int(table.length.max()), model.image_size, model.image_size, 3)
  return Work(path, table, manifest, cameras, offset, facts, source, str(config.checkpoint), section,
              sources.choose_loading(config.data, [path], {"frames": jax.ShapeDtypeStruct(piece, np.uint8)})), model, params


def data_path(config, trained_on: dict) -> tuple[str, float]:
  """(data path, offset in seconds): the config's, else those of the run that trained the model.

  Raises:
    errors.UserError: neither says it.
  """
  entries = [dict(entry) for entry in trained_on.get("mixture") or ()]
  path = config.data.path
  if path is None:
    known = [entry["path"] for entry in entries] or [trained_on.get("path", "")]
    if len(known) != 1 or not known[0]:
      raise errors.UserError("config.data.path is missing: the model was trained on " + (", ".join(known) if known[0] else "unknown data"))
    path = known[0]
  own = next((entry for entry in entries if os.path.abspath(entry["path"]) == os.path.abspath(path)), {})
  offset = config.offset_seconds
  if offset is None:
    offset = own.get("offset_seconds", trained_on.get("offset_seconds"))
  if offset is None:
    raise errors.UserError(f"config.offset_seconds is missing: the checkpoint {str(config.checkpoint)!r} does not say at which offset it "
                           "was trained")
  return path, float(offset)


def model_fingerprint(path: str, params) -> str:
  """xxh64 of params.safetensors; where a checkpoint is what is used, of the file that its weights would make."""
  found = checkpoint.find(path)
  if found.weights:
    return shards.file_hash(str(found.weights / weights.PARAMS))
  with tempfile.TemporaryDirectory() as temporary:
    file = pathlib.Path(temporary) / weights.PARAMS
    weights.write_safetensors(file, {name: np.asarray(leaf) for name, leaf in trees.flatten(params).items()})
    return shards.file_hash(str(file))


def finished_shards(folder: str, work: Work) -> dict[int, dict]:
  """Sidecars of the shards that are done. Raises `errors.UserError` when they are of another model, offset or data."""
  found = {shard: labels.finished(folder, shard, facts=work.facts) for shard in work.shards}
  return {shard: sidecar for shard, sidecar in found.items() if sidecar}


def make_stream(work: Work, model: Any, params: Any, *, config, mesh) -> streaming.Stream:
  """The compiled part, for all frame rates of the data."""
  reach = int(index.strides(work.table.fps, work.offset).max())
  return streaming.Stream(model, params, batch_size=config.batch_size, pairs_batch=config.pairs_batch or config.batch_size, reach=reach, mesh=mesh)


def extract(folder: str, work: Work, stream: streaming.Stream, *, config, process_index: int, process_count: int) -> dict[str, Any]:
  """Labels the shards of one process that are not done yet.

  Returns:
    What it measured, {} when there was nothing to do.
  """
  done = finished_shards(folder, work)
  mine = [shard for shard in work.shards if shard % process_count == process_index]
  todo = {shard: work.plan(shard) for shard in mine if shard not in done}
  if not todo:
    return {}
  size = {shard: sum(one.length for one in (todo.get(shard) or work.plan(shard))) for shard in mine}
  everything = [one for plan in todo.values() for one in plan]
  print(f"extract: {sum(size[shard] for shard in todo)} of {sum(size.values())} frames in {len(todo)} of {len(mine)} shards to label, "
        f"{work.offset} s apart, cameras {', '.join(work.cameras)}; {work.loading}", flush=True)
  meter = Meter()
  with sequences.walk(work.path, work.table, everything, image_size=stream.image_size, workers=work.loading.workers,
                      threads=work.loading.threads, prefetch=work.loading.prefetch) as pieces, \
      bar(sum(size.values()), process_index) as progress:
    progress.update(sum(size[shard] for shard in mine if shard not in todo))
    for shard, plan in todo.items():
      labelled, damaged = label(plan, pieces, stream, meter, progress)
      write(folder, shard, work, labelled, damaged, size=stream.latent_size)
  return meter.summary(stream, processes=process_count)


def bar(total: int, process_index: int) -> tqdm.tqdm:
  """Frames on the terminal, of process 0 only."""
  interval = 0.5 if sys.stderr.isatty() else 10.0  # a log file wants few lines
  return tqdm.tqdm(total=total, unit=" frames", desc="extract", disable=process_index != 0, mininterval=interval)


class Meter:
  """Frames a second without the first piece, and the time spent waiting for frames."""

  def __init__(self):
    self.begin, self.frames, self.waited, self.total = None, 0, 0.0, 0

  def piece(self, frames: int, waited: float) -> None:
    """One more piece is on its way; the first full batch compiles, so the clock starts behind it."""
    if self.begin is not None:
      self.frames, self.waited = self.frames + frames, self.waited + waited
    self.total += frames

  def summary(self, stream: streaming.Stream, *, processes: int) -> dict[str, Any]:
    seconds = max(1e-9, time.monotonic() - self.begin) if self.begin else float("inf")
    return {"frames_per_s": round(self.frames / seconds, 2), "wait_share": round(min(1.0, self.waited / seconds), 4), "frames": self.total,
            "encoded": stream.encoded, "pairs": stream.paired, "processes": processes, **rundir.hardware()}


Labelled = dict[tuple[str, str], tuple[int, np.ndarray, np.ndarray]]  # (episode, camera) -> (start, z [L, Z], valid [L])


def label(plan: list[sequences.Sequence], pieces, stream: streaming.Stream, meter: Meter, progress) -> tuple[Labelled, dict]:
  """One shard through the stream: (labels of its sequences, {(row, camera): why it cannot be read})."""
  labelled: Labelled = {}
  damaged: dict[tuple[int, str], str] = {}
  at = 0  # frames of this shard in the stream so far

  def keep(finished):
    for (z, valid, t), value in finished:
      z[t], valid[t] = value, True

  for one in plan:
    z, valid, readable = np.zeros((one.length, stream.latent_size), np.float32), np.zeros(one.length, bool), np.zeros(one.length, bool)
    labelled[one.episode, one.camera] = one.start, z, valid
    for piece in one.pieces:
      before = time.monotonic()
      read = next(pieces)
      meter.piece(len(read["frames"]), time.monotonic() - before)
      if str(read["damage"]):
        damaged[piece.row, one.camera] = str(read["damage"])
      place = piece.first - one.start
      readable[place:place + len(read["frames"])] = read["readable"]
      seconds = range(max(place, one.stride), place + len(read["frames"]))
      pairs = [(at - place + t - one.stride, at - place + t, (z, valid, t - one.stride))
               for t in seconds if readable[t] and readable[t - one.stride]]
      keep(stream.add(read["frames"], pairs))
      at += len(read["frames"])
      if meter.begin is None and stream.encoded:
        meter.begin = time.monotonic()
      progress.update(len(read["frames"]))
  keep(stream.finish())
  return labelled, damaged


def write(folder: str, shard: int, work: Work, labelled: Labelled, damaged: dict, *, size: int) -> None:
  """The labels of one shard, cut into the records of its data. Records that cannot be read get none."""
  table = work.table
  rows = np.flatnonzero(table.shard == shard)
  rows = rows[np.argsort(table.record[rows], kind="stable")]

  def clips():
    for row in rows:
      episode, start, length = str(table.episode[row]), int(table.start[row]), int(table.length[row])
      arrays = {}
      for camera in table.cameras[row]:
        if (episode, camera) not in labelled:
          continue
        begin, z, valid = labelled[episode, camera]
        part = slice(start - begin, start - begin + length)
        whole = (row, camera) not in damaged
        arrays[f"z/{camera}"] = z[part] if whole else np.zeros((length, size), np.float32)
        arrays[f"valid/{camera}"] = (valid[part] if whole else np.zeros(length, bool)).astype(np.uint8)
      yield episodes.Clip(episode, start, float(table.fps[row]), str(table.task[row]), {}, arrays)

  lost = [{"record": int(table.record[row]), "camera": camera, "reason": reason} for (row, camera), reason in sorted(damaged.items())]
  labels.write_shard(folder, shard, clips(), frames=int(table.length[rows].sum()), facts=work.facts, damaged=lost)


def complete(folder: str, work: Work, model: Any, *, timeout: float) -> dict[str, Any]:
  """Waits for the shards of other processes and writes labels.json.

  Args:
    timeout: seconds without any new shard after which the others are given up.

  Raises:
    errors.Transient: naming the shards that did not come.
  """
  done: dict[int, dict] = {}
  since = time.monotonic()
  while missing := [shard for shard in work.shards if shard not in done]:
    came = {shard: sidecar for shard in missing if (sidecar := labels.finished(folder, shard, facts=work.facts))}
    done |= came
    if came:
      since = time.monotonic()
      continue
    if time.monotonic() - since > timeout:
      raise errors.Transient(f"{folder}: {len(missing)} of {len(work.shards)} shards of other processes did not come within {timeout:g} s "
                             f"(the first is {labels.file_name(missing[0])}): start again with --resume")
    time.sleep(0.5)
  return labels.write_manifest(
      folder, [done[shard] for shard in work.shards], table=work.table, size=model.latent_size, queries=model.qformer.queries,
      dims=model.latent_size // model.qformer.queries, offset_seconds=work.offset, cameras=list(work.cameras),
      model={"path": work.checkpoint, "fingerprint": work.facts["model"], "dtype": work.facts["dtype"], "config": work.section},
      data={"path": work.source, "fingerprint": work.facts["data"], "image_size": work.manifest["image_size"]})


def report(workdir: pathlib.Path, manifest: dict[str, Any], speed: dict[str, Any]) -> None:
  """What there is now, in words."""
  for one in manifest["damaged"]:
    print(f"damaged: {shards.shard_name(one['shard'])} record {one['record']} camera {one['camera']}: {one['reason']}")
  if manifest["damaged"]:
    print(f"{len(manifest['damaged'])} damaged records have no labels (valid = 0)")
  measured = speed.get("frames_per_s")
  rate = f", {measured:.1f} frames/s, waited for data {speed['wait_share']:.1%}" if measured else ""
  print(f"labels: {manifest['valid']} motions of {manifest['size']} numbers for {manifest['frames']} frames, cameras "
        f"{', '.join(manifest['cameras'])}{rate} -> {workdir}", flush=True)
