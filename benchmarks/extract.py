r"""What does labeling cost beyond the frozen encoder?

Frames per second of each part, in one run, on one machine.

python benchmarks/extract.py [--preset debug|published] [--data DIR] [--frames 1024] \
    [--batch-size 64] [--rounds 3] [--out]
    about a minute on 2 CPU cores (small model, bundled data); the weights are random, which does
    not change the speed
The rows: the encoder alone, on frames on the device; the encoder and the rest of the model (a pair
for every frame), which is the minimum cost of labels; the stream, on frames in the host's memory
and with the ring buffer of features; everything, with decoding and files. The rounds alternate
between the rows; the best round of each row counts. CPU time is that of all threads of this
process. Compare it on a busy machine without an accelerator.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import common
import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import model_presets, models, weights
from como_jax.data import shards
from como_jax.data.batching import ProcessSlice
from como_jax.inference import label_options, label_run
from como_jax.models import pixels
from como_jax.parallel import mesh as mesh_lib
from como_jax.tasks import extract
from como_jax.train import rng

CONFIG = pathlib.Path(__file__).parent.parent / "configs" / "extract.py"


def main() -> None:
  """Measures the rows with a model of random weights."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--preset", default="debug", choices=("debug", "published"))
  parser.add_argument("--data", default="bundled")
  parser.add_argument("--offset-seconds", type=float, default=0.15)
  parser.add_argument("--frames", type=int, default=1024, help="frames of a round, about")
  parser.add_argument("--batch-size", type=int, default=64)
  common.add_options(parser)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    section = model_presets.preset("motion", options.preset)
    model = models.build(section)
    params = jax.device_get(jax.jit(model.init)(rng.key(0, "init")))
    weights.save(f"{folder}/model", params, {"model": section, "data": {}})
    config = config_lib.parse(
      [
        "main",
        f"--config={CONFIG}",
        f"--config.checkpoint={folder}/model",
        f"--config.data.path={options.data}",
        f"--config.offset_seconds={options.offset_seconds}",
        f"--config.batch_size={options.batch_size}",
      ]
    ).config
    settings = label_options.from_config(config)
    labeling = extract.open_work(settings)  # the task's plan, model and weights
    parts = measure(options, settings, labeling, pathlib.Path(folder))
  common.finish(
    f"extract-{options.preset}", "What labeling costs beyond the frozen encoder", parts, options
  )


def measure(
  options: argparse.Namespace,
  settings: label_options.Options,
  labeling: label_run.LabelingRun,
  folder: pathlib.Path,
) -> list[str]:
  """Runs the rounds; the setting and the table, in Markdown.

  Args:
    options: of the program.
    settings: of the extraction.
    labeling: plan of the extraction, and its model.
    folder: for the labels.
  """
  model, params = labeling.trained.model, labeling.trained.params
  mesh, size = label_options.make_mesh(settings), options.batch_size
  steps = max(2, options.frames // size)
  stride = labeling.plan.reach
  pictures = np.random.default_rng(0).integers(
    0, 256, (size, model.image_size, model.image_size, 3), np.uint8
  )
  on_device = jax.device_put(pictures, mesh_lib.batch_sharding(mesh))
  device_params = jax.device_put(params, mesh_lib.replicated(mesh))
  part = _first_episodes(labeling, options.frames)
  stream = part.stream(batch_size=size, pairs_batch=settings.pairs_batch, mesh=mesh)

  def repeated(program) -> int:
    for _ in range(steps):
      out = program(device_params, on_device)
    jax.block_until_ready(out)
    return steps * size

  def streamed(number: int) -> int:
    for step in range(steps):
      stream.add(
        pictures,
        [(t - stride, t, None) for t in range(step * size, (step + 1) * size) if t >= stride],
      )
    stream.finish()
    return steps * size

  def everything(number: int) -> int:
    out = folder / f"labels-{number}"
    out.mkdir()
    return label_run.label_shards(str(out), part, stream, batch_size=size, process=ProcessSlice())[
      "frames"
    ]

  encoder = jax.jit(lambda p, x: model.encode_frames(p, pixels.normalize(x)))
  both = jax.jit(lambda p, x: _motion(model, p, pixels.normalize(x)))
  rows = {
    "encoder": lambda number: repeated(encoder),
    "encoder and pairs": lambda number: repeated(both),
    "stream": streamed,
    "extract": everything,
  }
  measured: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
  for number in range(options.rounds + 1):
    for name, run in rows.items():
      wall, used = time.monotonic(), time.process_time()
      frames = run(number)
      if number:  # the first round compiles
        measured[name].append(
          (frames / (time.monotonic() - wall), 1e3 * (time.process_time() - used) / frames)
        )
  best = {name: max(rate for rate, _ in values) for name, values in measured.items()}
  rows = [
    (
      name,
      f"{best[name]:.1f}",
      f"{best[name] / best['encoder']:.3f}",
      f"{best[name] / best['encoder and pairs']:.3f}",
      f"{min(rate for rate, _ in values):.1f}",
      f"{min(cpu for _, cpu in values):.2f}",
    )
    for name, values in measured.items()
  ]
  setting = (
    f"{options.preset} model, {model.image_size} px, {model.config['dtype']}, batches of {size}, "
    f"{len(part.plan.segments)} segments of {options.data}, offset of {stride} frames; best of "
    f"{options.rounds} rounds."
  )
  columns = (
    "",
    "frames/s",
    "ratio to the encoder",
    "ratio to encoder and pairs",
    "slowest round",
    "CPU ms a frame",
  )
  return [setting, common.table(columns, rows)]


def _motion(model, params, images):
  """Computes z of each frame and its neighbor in the batch."""
  tokens = model.encode_frames(params, images)
  return model.encode(params, images, images[::-1], tokens=(tokens, tokens[::-1])).z


def _first_episodes(labeling: label_run.LabelingRun, frames: int) -> label_run.LabelingRun:
  """The plan for the first segments of the first shard, with about `frames` frames."""
  segments = labeling.plan.segments
  table = segments.table
  first_shard = np.flatnonzero(table.shard[segments.first_row] == table.shard.min())
  ends = np.cumsum(segments.count[first_shard] * len(labeling.plan.cameras))
  last = int(first_shard[min(np.searchsorted(ends, frames), len(first_shard) - 1)])
  keep = np.zeros(len(table), bool)
  keep[: int(segments.last_row[last])] = (
    table.shard[: int(segments.last_row[last])] == table.shard.min()
  )
  plan = dataclasses.replace(labeling.plan, segments=shards.segments(table, keep))
  return dataclasses.replace(labeling, plan=plan)


if __name__ == "__main__":
  main()
