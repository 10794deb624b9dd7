r"""What does a train step of the motion model cost, and what does the same model cost in torch?

python benchmarks/train_step.py [--preset small|published] [--dtypes float32 bfloat16] \
    [--frames 2 8] [--batch PAIRS] [--rounds 3]
    small: about 3 minutes per dtype on 2 CPU cores. published (ViT-L/16, 224 px): for a GPU. One
    pair takes 7 seconds per step on a CPU; there, use --dtypes float32 --frames 2 --rounds 2
    --remat none --no-compile. torch (requirements-test.txt) uses the same cores or GPU.
The rows: our train step, as in a run; the torch twin of the parity tests (fused attention, fused
Adam, autocast and encoder weights in bfloat16), eager and compiled. All compute the same: normalize
uint8 frames, frozen encoder, Q-former on forward, reversed and jittered pairs, forward dynamics,
reconstruction and Tcl, gradients, clipping, Adam. First it is checked that both losses are equal.
--frames 8: ours uses clips of 8 frames, whose 7 pairs share encoded frames; torch (eager) draws as
many independent pairs and encodes the three frames of each, as CoMo's code does. One row more is
the config motion:fast: Tcl reads one drawn pair of each clip, so its loss is an estimate of theirs.
Operations are counted in each program (matrix products and convolutions, without recomputation).
If ours needs fewer for the same result, pairs/s shows it and GFLOP/s does not. The rounds alternate
between the rows; the best round of each row counts.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs the same GPU's memory
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from como_jax import main as entry

# before a thread starts, as in our runs; torch is in the same process and benefits too
entry.keep_memory()

import common
import jax
import jax.numpy as jnp
import numpy as np
import torch
from train_step_models import SEED, Contestant, check, ours, pictures, same, section, theirs

from como_jax import models
from como_jax.train import optimizer, rng

# Pairs of a batch and steps of a round; matrices of the peak.
SIZES = {
  ("small", "cpu"): (32, 3),
  ("published", "cpu"): (1, 1),
  ("small", "gpu"): (512, 20),
  ("published", "gpu"): (64, 5),
}
MATRIX = {"cpu": 2048, "gpu": 8192}
# fraction of jax's matrix product rate below which torch emulates a dtype; pairs and steps then
EMULATED, EMULATED_SIZE = 0.1, (2, 1)
# for the first step's loss and gradient norm, in the timed precision
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
OURS, FAST, EAGER, COMPILED = "como_jax", "como_jax, fast", "torch eager", "torch.compile"


def main() -> None:
  """Measures all dtypes and clip lengths, and prints the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--preset", default="small", choices=("small", "published"))
  parser.add_argument(
    "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16")
  )
  parser.add_argument(
    "--frames", nargs="+", type=int, default=[2, 8], help="of a clip: 2, or more for clip sampling"
  )
  parser.add_argument(
    "--batch",
    type=int,
    default=0,
    help="pairs of a batch; rounded to whole clips (default: by preset and device)",
  )
  parser.add_argument(
    "--steps", type=int, default=0, help="of a round (default: by preset and device)"
  )
  parser.add_argument("--remat", default="", help="replaces the preset's")
  parser.add_argument("--compile-mode", default="default", help="of torch.compile")
  parser.add_argument(
    "--rows",
    nargs="+",
    default=[OURS, FAST, EAGER, COMPILED],
    choices=(OURS, FAST, EAGER, COMPILED),
    help="fewer of them, for a machine with little time",
  )
  parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
  common.add_options(parser)
  options = parser.parse_args()
  on_gpu = jax.default_backend() == "gpu"
  if on_gpu != torch.cuda.is_available():
    raise SystemExit(
      f"jax runs on {jax.default_backend()}, torch.cuda.is_available() is "
      f"{torch.cuda.is_available()}: nothing to compare"
    )
  device = torch.device("cuda" if on_gpu else "cpu")
  cores = len(os.sched_getaffinity(0))
  torch.set_num_threads(cores)
  # as XLA does by default
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

  params = jax.jit(models.build(section(options, "float32")).init)(rng.key(SEED, "init"))
  params = jax.device_get(params)
  difference = check(options, params, device)
  parts = [
    f"torch {torch.__version__} on {cores} threads; {options.preset} preset, "
    f"{optimizer.count(params):,} parameters, "
    f"{optimizer.count({k: v for k, v in params.items() if k != 'encoder'}):,} of them trained. "
    f"Relative difference of the two losses of the same parameters, float32: {difference:.1e}."
  ]
  for dtype in options.dtypes:
    peaks = {name: peak(name, dtype, device, rounds=options.rounds) for name in ("jax", "torch")}
    batch, steps = (
      EMULATED_SIZE if emulated(peaks) else SIZES[options.preset, "gpu" if on_gpu else "cpu"]
    )
    for frames in options.frames:
      parts.append(
        measure(
          options,
          params,
          dtype=dtype,
          frames=frames,
          device=device,
          peaks=peaks,
          batch=options.batch or batch,
          steps=options.steps or steps,
        )
      )
      print(parts[-1], flush=True)
  common.finish(
    f"train-step-{options.preset}", "What a train step costs, beside torch", parts, options
  )


def peak(library: str, dtype: str, device: torch.device, *, rounds: int) -> float:
  """Operations per second of a large matrix product in "jax" or "torch".

  Sizes are doubled up to MATRIX, or until a product takes a second.
  """
  on_cpu = device.type == "cpu"
  size, largest, count = 256, MATRIX["cpu" if on_cpu else "gpu"], 3 if on_cpu else 50
  while True:
    product = _product(library, dtype, device, size=size, count=count)
    measured = common.rounds({library: product}, rounds)[library]
    if size >= largest or measured.best.wall > count:
      return measured.best.rate
    size *= 2


def emulated(peaks: Mapping[str, float]) -> bool:
  """Whether torch has no instructions for the dtype of these peaks."""
  return peaks["torch"] < EMULATED * peaks["jax"]


def _product(
  library: str, dtype: str, device: torch.device, *, size: int, count: int
) -> Callable[[], float]:
  """Returns a function that runs `count` matrix products, waits, and returns their operations."""
  a, b = np.random.default_rng(SEED).normal(size=(2, size, size)).astype(np.float32)
  if library == "jax":
    run, given, wait = (
      jax.jit(jnp.matmul),
      [jnp.asarray(x, dtype) for x in (a, b)],
      jax.block_until_ready,
    )
  else:
    run, given = (
      torch.matmul,
      [torch.tensor(x, dtype=getattr(torch, dtype), device=device) for x in (a, b)],
    )
    wait = (lambda out: None) if device.type == "cpu" else (lambda out: torch.cuda.synchronize())

  def take() -> float:
    for _ in range(count):
      out = run(*given)
    wait(out)
    return count * 2.0 * size**3

  return take


def measure(
  options: argparse.Namespace,
  params: Mapping[str, Any],
  *,
  dtype: str,
  frames: int,
  device: torch.device,
  peaks: Mapping[str, float],
  batch: int,
  steps: int,
) -> str:
  """Formats the table of one dtype and clip length, with about `pairs` pairs per step."""
  pairs = max(1, round(batch / (frames - 1))) * (frames - 1)
  side = section(options, dtype)["image_size"]
  independent = pictures(pairs, 2, side)
  clips = pictures(pairs, frames, side)
  made = {
    OURS: lambda: ours(options, params, clips, dtype),
    FAST: lambda: ours(options, params, clips, dtype, "fast"),
    EAGER: lambda: theirs(options, params, independent, dtype, device=device, compiled=False),
    COMPILED: lambda: theirs(options, params, independent, dtype, device=device, compiled=True),
  }
  left_out = {FAST} if frames == 2 else {COMPILED}
  if options.no_compile:
    left_out.add(COMPILED)
  contestants = {
    name: make() for name, make in made.items() if name in options.rows and name not in left_out
  }

  def turn(contestant: Contestant) -> float:
    contestant(steps)
    return steps * pairs

  measured = common.rounds(
    {name: lambda one=one: turn(one) for name, one in contestants.items()}, options.rounds
  )
  if frames == 2 and OURS in contestants:
    for name, one in contestants.items():
      for what, mine, value in zip(
        ("loss", "gradient norm"), contestants[OURS].first, one.first, strict=False
      ):
        same(
          f"{what} of the first step of {name}, {dtype},", mine, value, tolerance=TOLERANCE[dtype]
        )

  work = {name: one.operations / pairs for name, one in contestants.items()}  # per pair
  best, top = {name: one.best.rate for name, one in measured.items()}, max(peaks.values())
  others, rows = [name for name in contestants if name not in (OURS, FAST)], []
  for name, one in measured.items():
    rates = (best[name], one.slowest.rate)
    rows.append(
      (
        name,
        f"{rates[0]:.3g}",
        f"{rates[1]:.3g}",
        f"{one.thriftiest.per_cpu_second:.3g}",
        f"{work[name] / 1e9:.4g}",
        f"{work[name] * rates[0] / 1e9:.4g}",
        f"{work[name] * rates[0] / top:.2f}",
        *(f"{best[name] / best[other]:.2f}" for other in others),
        *(f"{work[name] * best[name] / work[other] / best[other]:.2f}" for other in others),
      )
    )
  columns = (
    "",
    "pairs/s",
    "slowest round",
    "pairs a CPU second",
    "GFLOP a pair",
    "GFLOP/s",
    "share of the peak",
    *(f"pairs/s / {other}" for other in others),
    *(f"GFLOP/s / {other}" for other in others),
  )
  about = f"{pairs} pair{'s' if pairs > 1 else ''}"
  if frames > 2:
    about = (
      f"{pairs // (frames - 1)} clips of {frames} frames ({pairs} pairs; torch: as many "
      "independent pairs)"
    )
  remat = section(options, dtype)["remat"]
  warning = ""
  if emulated(peaks):
    warning = (
      f"torch only emulates {dtype} on this machine: the ratios to it say nothing about other "
      "hardware. The rows show that this precision runs and computes the same.\n\n"
    )
  return (
    f"## {dtype}, {about} a step\n\nMatrix products reach {peaks['jax'] / 1e9:.4g} GFLOP/s in jax "
    f"and {peaks['torch'] / 1e9:.4g} in torch. Rematerialization of ours: {remat}. Best of "
    f"{options.rounds} rounds of {steps} steps.\n\n" + warning + common.table(columns, rows)
  )


if __name__ == "__main__":
  main()
