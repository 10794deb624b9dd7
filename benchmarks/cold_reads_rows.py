"""One row of cold_reads.py, in processes of its own: the start of a reader, then a worker of it.

  python benchmarks/cold_reads_rows.py FOLDER KIND STATE start|work [--samples N]

$PYTHONPATH is the checkout whose como_jax is measured, so that an older one can be compared. The
last line printed is JSON.
"""

import argparse
import json
import os
import pickle
import resource
import time

import numpy as np

from como_jax import data
from como_jax.data import (
  evaluation,
  frame_codec,
  motion_mixture,
  pipeline,
  policy_layout,
  policy_mixture,
  policy_pipeline,
  reader,
  sequences,
  shard_file,
  shards,
)
from como_jax.data.batching import Batching
from como_jax.data.policy_index import PolicySet
from como_jax.data.read_options import ReadOptions

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder")
parser.add_argument("kind", choices=("training", "validation", "policy", "labeling"))
parser.add_argument("state", help="file for what the start sends to its workers")
parser.add_argument("step", choices=("start", "work"))
parser.add_argument("--samples", type=int, default=512)
parser.add_argument("--kept", action="store_true", help="policy: statistics that ingest kept")
options = parser.parse_args()

try:
  from como_jax.data import stored
except ImportError:  # code of before
  stored = None

SIZE, BATCH = 224, 16
READ = ReadOptions(threads=0, prefetch=0)


def start():
  """Opens the data as the task does, up to its first batch; returns what workers get."""
  if options.kind in ("training", "validation"):
    mixture = motion_mixture.MotionMixture([data.DataSet(options.folder, offset_seconds=0.5)])
    split, frames = ("train", 2) if options.kind == "training" else ("validation", 3)
    return mixture.windows(split, frames=frames)
  if options.kind == "labeling":
    plan = sequences.plan(shards.read_table(options.folder), offset_seconds=0.5)
    chosen = [plan.sequences(shard)[0] for shard in range(-(-options.samples // 1024))]
    return plan, chosen
  mixture = policy_mixture.PolicyMixture([PolicySet(options.folder, robot="arm")])
  mixture.describe()
  statistics = mixture.statistics(**({"kept": True} if options.kept else {}))
  layout = policy_layout.Layout(
    normalization=statistics.normalization("standard"),
    robots={"arm": (7, 8)},
    num_cameras=1,
    history=1,
    step_seconds=0.0,
    action_horizon=16,
    reduce="mean",
    motion_horizon=0,
    latent_size=0,
    image_size=SIZE,
    language=dict.fromkeys(
      mixture.instructions(), (np.zeros((1, 8), np.float32), np.ones(1, bool))
    ),
  )
  return mixture._loader(layout, "train")


def batches(state):
  """Batches of a worker."""
  if options.kind == "training":
    return pipeline.batches(state, pipeline.Layout(SIZE, frames=2), Batching(BATCH), READ)
  if options.kind == "validation":
    layout = pipeline.Layout(SIZE, frames=3)
    windows = evaluation.evaluation_windows(
      state, layout, Batching(BATCH), READ, max_windows=options.samples
    )
    return windows.batches()
  if options.kind == "labeling":
    plan, chosen = state
    return sequences.iterate_clips(
      options.folder, plan, chosen, image_size=SIZE, threads=0, prefetch=0
    )
  return policy_pipeline.batches(state, Batching(BATCH), READ)


def load(state) -> int:
  """Loads the samples; returns the number of frames."""
  frames = 0
  with batches(state) as stream:
    for number, batch in enumerate(stream, 1):
      images = batch["images" if "images" in batch else "frames"]
      frames += images.size // (SIZE * SIZE * 3)
      done = frames if options.kind == "labeling" else number * BATCH
      if done >= options.samples:
        return frames
  return frames


class Counts:
  """Bytes that are asked for, bytes that are used, and the calls that decode."""

  def __init__(self):
    self.asked = self.used = self.requests = 0
    self.calls: list = []

  def install(self) -> None:
    """Wraps what reads and what decodes."""
    pread, decode = os.pread, frame_codec.decode
    opened, read_array = shard_file.ShardFile.__init__, reader.SegmentReader.read_array

    def counted_pread(file, size, offset):
      self.asked, self.requests = self.asked + size, self.requests + 1
      return pread(file, size, offset)

    def counted_decode(codec, blobs, frames, out, **more):
      self.used += sum(map(len, blobs.values()))
      self.calls.append((codec, dict(blobs), list(frames), [image.shape for image in out], more))
      return decode(codec, blobs, frames, out, **more)

    def counted_open(file, *given, **more):
      opened(file, *given, **more)
      self.asked, self.requests = self.asked + file.bytes_read, self.requests + 1

    def counted_array(*given, **more):
      result = read_array(*given, **more)
      self.used += 0 if result is None else result.nbytes
      return result

    os.pread, frame_codec.decode = counted_pread, counted_decode
    shard_file.ShardFile.__init__, reader.SegmentReader.read_array = counted_open, counted_array
    self._before = (pread, decode, opened, read_array)

  def remove(self) -> None:
    """Undoes `install`."""
    (
      os.pread,
      frame_codec.decode,
      shard_file.ShardFile.__init__,
      reader.SegmentReader.read_array,
    ) = self._before


def raw(calls) -> int:
  """Decodes what was decoded, from memory; returns the number of frames."""
  outs = [[np.empty(shape, np.uint8) for shape in shapes] for *_, shapes, _ in calls[:1]]
  for codec, blobs, frames, shapes, more in calls:
    out = outs[0] if [image.shape for image in outs[0]] == shapes else None
    out = [np.empty(shape, np.uint8) for shape in shapes] if out is None else out
    frame_codec.decode(codec, blobs, frames, out, **more)
  return sum(len(frames) for _, _, frames, *_ in calls)


def memory() -> dict[str, float]:
  """MiB of this process: its own, and of files that other processes share."""
  with open("/proc/self/status", encoding="utf-8") as file:
    lines = dict(line.split(":", 1) for line in file if line.startswith("Rss"))
  return {key: int(lines[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile")}


def work() -> dict:
  """Loads the samples of a worker: counts, memory, then the rate, each with empty caches."""
  with open(options.state, "rb") as file:
    pickled = file.read()
  before = memory()
  state = pickle.loads(pickled)
  load(state)
  after = memory()
  counts = Counts()
  state = pickle.loads(pickled)
  counts.install()
  if stored:
    with stored.counter() as asked:
      load(state)
    counts.asked, counts.requests = asked.bytes, asked.requests
    pages = len(asked.pages) * stored.PAGE
  else:
    load(state)
    pages = 0
  counts.remove()
  rates = {"ours": 0.0, "raw": 0.0}
  for _ in range(3):
    state, cpu = pickle.loads(pickled), time.process_time()
    frames = load(state)
    rates["ours"] = max(rates["ours"], frames / (time.process_time() - cpu))
    cpu = time.process_time()
    frames = raw(counts.calls)
    rates["raw"] = max(rates["raw"], frames / (time.process_time() - cpu))
  return {
    "asked": counts.asked,
    "pages": pages,
    "requests": counts.requests,
    "used": counts.used,
    "samples": options.samples,
    "own_mib": after["RssAnon"] - before["RssAnon"],
    "shared_mib": after["RssFile"] - before["RssFile"],
    **rates,
  }


def main() -> None:
  """Runs one step."""
  if options.step == "work":
    print(json.dumps(work()))
    return
  counts = Counts()
  counts.install()
  wall, cpu = time.monotonic(), time.process_time()
  state = start()
  with batches(state) as stream:
    next(stream)
  result = {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu}
  result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  with open(options.state, "wb") as file:
    pickle.dump(state, file)
  print(json.dumps(result | {"asked": counts.asked, "mib": os.path.getsize(options.state) / 2**20}))


if __name__ == "__main__":
  main()
