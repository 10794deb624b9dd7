"""How fast it is: device, train, policy, attention and labeling of accelerator.py.

They use what the benchmarks of these names measure on any machine.
"""

import argparse
import concurrent.futures
import functools
import pathlib
import tempfile
import time

import common
import extract
import jax
import jax.numpy as jnp
import numpy as np
import policy_latency
import torch
import train_step
from accelerator_runs import make_shards
from train_step_models import SEED, Contestant, check, ours, pictures, section, theirs

from como_jax import config as config_lib
from como_jax import model_presets, models, weights
from como_jax.inference import label_options
from como_jax.models import attention as attention_lib
from como_jax.tasks import extract as extract_task
from como_jax.train import rng

# pairs of a step, steps of a round, rounds
TRAIN = {"published": (64, 6, 2), "tiny": (4, 1, 1)}
LABELING = {"published": (4096, 128, 2), "tiny": (32, 8, 1)}  # frames of a round, batch, rounds
CALLS = {"published": 50, "tiny": 2}  # of a policy
COPY = {"published": 2**30, "tiny": 2**20}  # float32 values


def device(size: str, out: pathlib.Path) -> list[str]:
  """The part of the page: what the card reaches."""
  del out
  where = _torch_device()
  rows = []
  for library in ("jax", "torch"):
    for dtype in ("bfloat16", "float32"):
      rate = train_step.peak(library, dtype, where, rounds=2)
      rows.append((f"matrix product, {library}, {dtype}", f"{rate / 1e12:.4g} TFLOP/s"))
  x = jnp.ones((COPY[size],), jnp.float32)
  copy = jax.jit(lambda x: x + 1, donate_argnums=0)  # into the same memory: nothing is allocated
  x = jax.block_until_ready(copy(x))
  begin = time.perf_counter()
  for _ in range(10):
    x = copy(x)
  jax.block_until_ready(x)
  rate = 10 * 2 * x.nbytes / (time.perf_counter() - begin)
  rows.append(("memory, jax, read and written", f"{rate / 1e9:.4g} GB/s"))
  return [
    f"{common.machine()}; torch {torch.__version__}. float32 products use TF32 on a GPU.",
    common.table(("device", "rate"), rows),
  ]


def train(size: str, out: pathlib.Path) -> list[str]:
  """The part of the page: a motion step, and the same step in torch."""
  del out
  where = _torch_device()
  pairs, steps, rounds = TRAIN[size]
  options = argparse.Namespace(
    preset="published" if size == "published" else "small", remat="none", compile_mode="default"
  )
  params = jax.device_get(
    jax.jit(models.build(section(options, "float32")).init)(rng.key(SEED, "init"))
  )
  difference = check(options, params, where)
  side, clips = section(options, "float32")["image_size"], max(1, round(pairs / 7))
  frames = {2: pictures(pairs, 2, side), 8: pictures(7 * clips, 8, side)}
  contestants = {
    "como_jax, bfloat16, K=2": (ours(options, params, frames[2], "bfloat16"), pairs),
    "como_jax, bfloat16, K=8": (ours(options, params, frames[8], "bfloat16"), 7 * clips),
    "torch eager, float32 (TF32)": (
      theirs(options, params, frames[2], "float32", device=where, compiled=False),
      pairs,
    ),
    "torch.compile, bfloat16": (
      theirs(options, params, frames[2], "bfloat16", device=where, compiled=size == "published"),
      pairs,
    ),
  }
  seconds = {}

  def first_step(name: str) -> None:
    begin = time.monotonic()
    contestants[name][0](1)
    seconds[name] = time.monotonic() - begin
    print(f"{name}: first step after {seconds[name]:.1f} s", flush=True)

  def turn(contestant: Contestant, count: int) -> float:
    contestant(steps)
    return steps * count

  *_, eager, compiled = contestants
  with concurrent.futures.ThreadPoolExecutor() as pool:  # XLA compiles outside Python's lock
    list(pool.map(first_step, [name for name in contestants if name not in (eager, compiled)]))
  for name in (eager, compiled):
    first_step(name)
  rates = {
    name: functools.partial(turn, contestant, count)
    for name, (contestant, count) in contestants.items()
  }
  measured = common.rounds(rates, rounds)
  peak = train_step.peak("jax", "bfloat16", where, rounds=2)
  best = {name: result.best.rate for name, result in measured.items()}
  rows = []
  for name, (contestant, count) in contestants.items():
    work = contestant.operations / count
    rows.append(
      (
        name,
        f"{best[name]:.4g}",
        f"{measured[name].slowest.rate:.4g}",
        f"{work / 1e9:.4g}",
        f"{work * best[name] / 1e12:.4g}",
        f"{work * best[name] / peak:.2f}",
        f"{best[name] / best[eager]:.2f}",
        f"{best[name] / best[compiled]:.2f}",
        f"{seconds[name]:.0f}",
      )
    )
  columns = ("step", "pairs/s", "slowest round", "GFLOP a pair", "TFLOP/s", "of the peak")
  columns += ("to eager", "to compiled", "first step, s")
  return [
    f"{options.preset} sizes, {pairs} pairs a step (K=8: {7 * clips}), best of {rounds} rounds of "
    f"{steps} steps, in turn. Peak: bfloat16 products of jax, {peak / 1e12:.4g} TFLOP/s, measured "
    "after the rounds. torch draws independent pairs, as at K=2. Losses of both in full float32 "
    f"differ by {difference:.1e}.",
    common.table(columns, rows),
  ]


def attention(size: str, out: pathlib.Path) -> list[str]:
  """The part of the page: the fused kernel of attention beside XLA, forward and backward."""
  del out
  many = 64 if size == "published" else 1

  def measure(shape: tuple[int, int, int, int]) -> tuple:
    batch, queries, keys, heads = shape
    data = np.random.default_rng(SEED)
    shapes = [(batch, n, heads, 64) for n in (queries, keys, keys)]
    inputs = [jnp.asarray(data.normal(size=s), jnp.bfloat16) for s in shapes]

    def program(kernel: str):
      def loss(*x):
        return attention_lib.attend(*x, kernel=kernel).astype(jnp.float32).sum()

      run = jax.jit(jax.grad(loss, (0, 1, 2)))
      jax.block_until_ready(run(*inputs))
      return run

    def rate(run, count: int = 20) -> float:
      begin = time.perf_counter()
      for _ in range(count):
        result = run(*inputs)
      jax.block_until_ready(result)
      return count / (time.perf_counter() - begin)

    runs = {kernel: program(kernel) for kernel in ("fused", "xla")}
    measured = common.rounds({k: lambda run=run: rate(run) for k, run in runs.items()}, 2)
    milliseconds = {k: 1e3 / max(r.units for r in row.rounds) for k, row in measured.items()}
    fused, xla = milliseconds["fused"], milliseconds["xla"]
    return (
      f"{batch} x {queries} x {keys}, {heads} heads",
      *map("{:.3f}".format, (fused, xla, xla / fused)),
    )

  shapes = [(4 * many, 197, 197, 16), (3 * many, 403, 403, 12), (many, 205, 205, 12)]
  shapes += [(4 * many, n, 197, 12) for n in (1, 8, 16, 32, 64)]
  columns = ("examples x queries x keys", "fused, ms", "XLA, ms", "XLA / fused")
  return [
    "bfloat16, forward and backward, heads of 64. `auto` fuses from 32 queries on.",
    common.table(columns, [measure(shape) for shape in shapes]),
  ]


def policy(size: str, out: pathlib.Path) -> list[str]:
  """The part of the page: latency of a chunk of actions."""
  del out
  options = argparse.Namespace(calls=CALLS[size], rounds=1, camera=256, profile=False)
  name = "published" if size == "published" else "debug"
  kinds = [("dit", "", steps) for steps in (10, 4)] + [("gpt", "_gpt", None)]

  def build(kind: tuple[str, str, int | None]):
    made = model_presets.preset("policy", name + kind[1]) | {
      "robots": {"robot": policy_latency.ROBOT}
    }
    params = jax.jit(models.build(made).init)(rng.key(0, "init"))
    return policy_latency.serving.Policy(
      policy_latency.policy_checkpoint.restore(params, policy_latency.spec(made)),
      num_sampling_steps=kind[2],
      guidance_scale=1.0,
      batch_size=1,
    )

  rows = []
  with concurrent.futures.ThreadPoolExecutor() as pool:
    policies = list(pool.map(build, kinds))
  for kind, built in zip(kinds, policies, strict=True):
    rows.append((kind[0], kind[2] or "", *policy_latency.row(built, 1, options)))
    print(rows[-1], flush=True)
  columns = ("policy", "sampler's steps", "chunks/s", "p50 ms", "p99 ms", "calls")
  columns += ("model alone, p50 ms", "call / model", "CPU ms a call", "compiles after the first")
  return [
    f"{name} sizes, one observation a call, two cameras of 256 px where published.",
    common.table(columns, rows),
  ]


def labeling(size: str, out: pathlib.Path) -> list[str]:
  """The part of the page: labels of frames, beside the bare encoder."""
  frames, batch, rounds = LABELING[size]
  data = make_shards(size, out)
  options = argparse.Namespace(
    preset="published" if size == "published" else "debug",
    data=data.name,
    frames=frames,
    batch_size=batch,
    rounds=rounds,
    out=False,
  )
  with tempfile.TemporaryDirectory() as folder:
    made = model_presets.preset("motion", options.preset)
    params = jax.device_get(jax.jit(models.build(made).init)(rng.key(0, "init")))
    weights.save(f"{folder}/model", params, {"model": made, "data": {}})
    arguments = [f"checkpoint={folder}/model", f"data.path={data}", "offset_seconds=0.1"]
    arguments += [f"batch_size={batch}"]
    config = config_lib.parse(
      ["main", f"--config={extract.CONFIG}", *(f"--config.{word}" for word in arguments)]
    ).config
    settings = label_options.from_config(config)
    work = extract_task.open_work(settings)
    return extract.measure(options, settings, work, pathlib.Path(folder))


def _torch_device() -> torch.device:
  on_gpu = jax.default_backend() == "gpu"
  if on_gpu != torch.cuda.is_available():
    raise SystemExit(f"jax runs on {jax.default_backend()}, torch's GPU: {not on_gpu}")
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  return torch.device("cuda" if on_gpu else "cpu")
