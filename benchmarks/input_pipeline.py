r"""What does the input pipeline cost beyond decoding?

Frames per CPU second and per second of our batches, of raw decoding, and of torch's DataLoader.

python benchmarks/input_pipeline.py [--data synthetic|bundled|DIR] [--config published|small] \
    [--batch-size 64] [--workers 0 1 2]
    about two minutes on 2 CPU cores; the rows of torch need torch (a CPU build is enough) and are
    left out without it
--data synthetic makes a data set of textured, moving images at the config's size (224 px for
published), with two cameras, as ingest stores it. The rows: "raw decode" decodes the frames of the
batches from bytes in memory to RGB, one by one in one thread; "read and decode" also reads their
bytes from the shards, with checksums; "como_jax" is the training pipeline, up to ready batches;
"torch" is a torch.utils.data.DataLoader over the same frames as JPEG files (one file per frame,
the same bytes), with the same windows, decoder, augmentation, resizing and batches. CPU time is
that of all threads and processes. No one uses the batches, so the loaders run at full speed;
batches that were prepared between the rounds are dropped before a round is timed. --step-ms (time
of a train step) and --rows (of a batch, on one host) add the part of --cores that the pipeline
needs (computed, not measured).
"""

import argparse
import contextlib
import itertools
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # no accelerator is needed, here or in workers

import common
import numpy as np
from input_pipeline_data import Pairs, Sample, Synthetic, draw, write_files

from como_jax import config as config_lib
from como_jax import models, objectives
from como_jax.assembly import motion_data
from como_jax.data import ingest, ingest_settings, transforms, video
from como_jax.data.pipeline import OpenedWindows

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "motion.py"
GOAL, MAX_WAIT = 0.85, 0.02  # fraction of raw decoding per CPU second; fraction of a step


def main() -> None:
  """Prepares the data set and compares the rows."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--data", default="synthetic", help="synthetic, bundled, or anything ingest reads"
  )
  parser.add_argument("--config", default="published", choices=("published", "small"))
  parser.add_argument("--batch-size", type=int, default=64)
  parser.add_argument(
    "--batches", type=int, default=32, help="of a round; many more than are prepared ahead"
  )
  parser.add_argument("--workers", nargs="*", type=int, default=[0, 1, 2])
  parser.add_argument(
    "--threads", type=int, default=4, help="reading threads of each process of como_jax"
  )
  parser.add_argument(
    "--prefetch", type=int, default=2, help="batches prepared ahead, for each process"
  )
  parser.add_argument(
    "--episodes", type=int, default=24, help="of the synthetic data: 128 frames, two cameras each"
  )
  parser.add_argument("--changes", default="", help="of the config: data.frames=4 ...")
  parser.add_argument("--step-ms", type=float, default=0.0)
  parser.add_argument("--rows", type=int, default=64)
  parser.add_argument("--cores", type=int, default=16)
  parser.add_argument("--no-torch", action="store_true")
  common.add_options(parser)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
    settings = {
      "train.batch_size": options.batch_size,
      "data.cache": f"{folder}/cache",
      "data.threads": options.threads,
      "data.prefetch": options.prefetch,
    }
    args = [
      f"--config={CONFIG}:{options.config}",
      *(f"--config.{key}={value}" for key, value in settings.items()),
      *(f"--config.{word}" for word in options.changes.split()),
    ]
    config = config_lib.parse(["main", *args]).config
    path = options.data
    if path == "synthetic":
      path = f"{folder}/synthetic"
      ingest.run(
        Synthetic(options.episodes, config.data.image_size),
        path,
        ingest_settings.StorageOptions(image_size=config.data.image_size),
        workers=0,
        progress=False,
      )
    with config.unlocked():
      config.data.path = path
    compare(config, options, folder, stack)


def compare(config, options: argparse.Namespace, folder: str, stack: contextlib.ExitStack) -> None:
  """Runs the rows and prints the page."""
  jitter = "contrastive" in objectives.active(config.objectives)
  (opened,) = motion_data.MotionData(config).mixture.windows("train", frames=config.data.frames)
  samples = draw(config, opened, jitter=jitter, count=options.batch_size * options.batches)
  frames = sum(len(sample.frame_indices) for sample in samples)
  blobs = [blob for sample in samples for blob in sample.blobs(opened)]

  def raw() -> int:
    for blob in blobs:
      video.decode_jpeg(blob)
    return frames

  def read() -> int:
    for sample in samples:
      for blob in sample.blobs(opened):
        video.decode_jpeg(blob)
    return frames

  loaders, model = {}, models.build(config.model)
  for workers in options.workers:
    with config.unlocked():
      config.data.workers = workers
    data = motion_data.TrainingData(config, model, jitter=jitter)
    batches = stack.enter_context(data.batches(0))
    loaders[f"como_jax, {workers} workers"] = (
      batches,
      max(1, workers) * (2 * options.prefetch + 3),
    )
  if not options.no_torch and importable("torch"):
    augment = (*motion_data.augmentation(config.data), transforms.Resize(config.data.image_size))
    pairs = Pairs(write_files(samples, opened, f"{folder}/files"), config.data.frames, augment)
    for workers in options.workers:
      loaders[f"torch, {workers} workers"] = (
        pairs.loader(options.batch_size, workers),
        4 * max(1, workers) + 1,
      )

  def drawn(batches) -> int:
    taken = (next(batches) for _ in range(options.batches))
    return sum(
      int(np.prod(value.shape[:2]))
      for batch in taken
      for name, value in batch.items()
      if name != "seconds"
    )

  def before(name: str) -> None:
    settle()
    if name in loaders:
      batches, ahead = loaders[name]
      for _ in range(ahead):  # drops the batches that were prepared between the rounds
        next(batches)

  rows = {"raw decode": raw, "read and decode": read}
  rows |= {name: lambda batches=batches: drawn(batches) for name, (batches, _) in loaders.items()}
  check(opened, samples, loaders, config, options)
  measured = common.rounds(rows, options.rounds, before=before, cpu=cpu_seconds)
  base = measured["raw decode"].thriftiest.per_cpu_second
  lines = []
  for name, one in measured.items():
    rate = one.thriftiest.per_cpu_second
    lines.append(
      (name, f"{rate:.0f}", f"{rate / base:.3f}", f"{one.best.rate:.0f}", f"{one.slowest.rate:.0f}")
    )
  table = common.table(
    ("", "frames per CPU second", "of raw decode", "frames/s", "frames/s, slowest round"), lines
  )
  size, kept = np.mean([len(blob) for blob in blobs]), opened.windows.segments.count.max()
  setting = (
    f"{options.config} config, {options.data} data: {config.data.image_size} px, JPEG of "
    f"{size / 1024:.1f} KiB a frame, segments of up to {kept} frames, {len(opened.cameras)} "
    f"cameras; {config.data.frames} frames a "
    f"sample{f' and {config.data.frames - 1} jittered' if jitter else ''}, batches of "
    f"{options.batch_size}, {options.rounds} rounds of {options.batches} batches."
  )
  ours = max(
    (
      one.thriftiest.per_cpu_second for name, one in measured.items() if name.startswith("como_jax")
    ),
    default=0.0,
  )
  verdict = f"Goal: at least {GOAL:.0%} of raw decode per CPU second; reached: {ours / base:.1%}."
  parts = [setting, table, verdict]
  if options.step_ms:
    parts.append(wait(options, ours=ours, per_sample=frames / len(samples), loaders=loaders))
  common.finish(
    f"input-pipeline-{options.config}-{os.path.basename(options.data)}",
    "What the input pipeline costs",
    parts,
    options,
  )


def wait(options: argparse.Namespace, *, ours: float, per_sample: float, loaders) -> str:
  """Formats whether the pipeline is as fast as the train steps (computed from the rates)."""
  needed = options.rows * per_sample / (options.step_ms / 1e3)
  cores = needed / ours
  short = max(0.0, 1 - options.cores / cores)
  settle()
  fetch = []
  batches = [batches for name, (batches, _) in loaders.items() if name.startswith("como_jax")][-1]
  for _ in range(3):
    settle()
    begin = time.perf_counter()
    next(batches)
    fetch.append((time.perf_counter() - begin) * options.rows / options.batch_size)
  return (
    f"Computed, not run: a host that feeds {options.rows} rows in {options.step_ms:g} ms needs "
    f"{needed:.0f} frames/s, the work of {cores:.1f} of its {options.cores} cores; waiting "
    f"{short:.1%} of a step (goal: under {MAX_WAIT:.0%}). Taking a ready batch of so many rows "
    f"took {1e3 * min(fetch):.1f} ms ({1e3 * min(fetch) / options.step_ms:.1%} of a step), which "
    "the loop spends while a step runs."
  )


def check(
  opened: OpenedWindows, samples: list[Sample], loaders, config, options: argparse.Namespace
) -> None:
  """Checks that all loaders have the same first batch, made from the frames of raw decode."""
  first = {
    name: {key: np.asarray(value) for key, value in next(batches).items()}
    for name, (batches, _) in loaders.items()
  }
  reference = next(iter(first.values()))
  for name, batch in first.items():
    for key, value in batch.items():
      if value.shape != reference[key].shape or (
        name.startswith("como_jax") and not np.array_equal(value, reference[key])
      ):
        raise SystemExit(f"{name} gives other batches: {key} {value.shape}")
  images = np.concatenate(
    [reference["frames"][0], *([reference["jittered"][0]] if "jittered" in reference else [])]
  )
  decoded = np.stack(
    [video.resize(video.decode_jpeg(blob), *images.shape[1:3]) for blob in samples[0].blobs(opened)]
  )
  if (
    images.shape != decoded.shape
    or np.abs(images.mean(axis=(1, 2, 3)) - decoded.mean(axis=(1, 2, 3))).max() > 8
  ):
    raise SystemExit("the frames of raw decode are not those of the batches")


def importable(name: str) -> bool:
  """Whether a module can be imported."""
  with contextlib.suppress(ImportError):
    __import__(name)
    return True
  return False


def cpu_seconds() -> float:
  """CPU seconds of this process and all its descendants (Linux)."""
  used: dict[int, tuple[int, float]] = {}
  for entry in os.listdir("/proc"):
    if entry.isdigit():
      with contextlib.suppress(OSError):
        fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        used[int(entry)] = int(fields[1]), sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
  total = time.process_time()
  for number in used:
    parents = list(itertools.takewhile(lambda one: one in used, _ancestors(used, number)))
    if number != os.getpid() and os.getpid() in parents:
      total += used[number][1]
  return total


def _ancestors(used: dict[int, tuple[int, float]], number: int):
  while number in used:
    number = used[number][0]
    yield number


def settle(seconds: float = 20.0) -> None:
  """Waits until all our processes are idle, so that a row's prefetching does not affect others."""
  end, used = time.monotonic() + seconds, cpu_seconds()
  while time.monotonic() < end:
    time.sleep(0.3)
    before, used = used, cpu_seconds()
    if used - before < 0.03:
      return


if __name__ == "__main__":
  main()
