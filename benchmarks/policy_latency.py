r"""How fast does a policy act?

Chunks of actions per second and the latency of a call, with the class that rollouts and the server
use.

python benchmarks/policy_latency.py [--preset small|published] [--policy dit gpt] [--steps 1 4 \
    10] [--batch-sizes 1 4 16] [--camera 256]
    small: about two minutes on 2 CPU cores. published (ViT-L/16, two cameras): give --batch-sizes 1
    --calls 3 there, or an accelerator --guidance 2 adds the pass without the instruction; --dtype
    float32 replaces the preset's; --profile prints where the host's time goes
A call is `Policy.infer`: checks, resizing of every camera's image, normalized state, embedded
instruction (cached after its first use), copies to the device and back, sampling, actions in the
robot's units. Every call has new images. "model" is the compiled sampler alone, on a batch on the
device; the difference is the cost of the host. The weights are random, which does not change the
speed.
"""

import argparse
import cProfile
import pathlib
import pstats
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import common
import jax
import numpy as np

from como_jax import model_presets, models
from como_jax.data import policy_spec, statistics
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import policy as serving
from como_jax.serve import policy_checkpoint
from como_jax.train import optimizer, rng

ROBOT = {"action": 7, "state": 8}  # LIBERO's arm
_compiles: list[str] = []  # one entry for each compilation by XLA in this process
INSTRUCTIONS = ("open the top drawer", "put the bowl on the plate", "turn on the stove")


def main() -> None:
  """Measures all policies and prints the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--preset", default="small", choices=("small", "published"))
  parser.add_argument("--policy", nargs="+", default=["dit", "gpt"], choices=("dit", "gpt"))
  parser.add_argument("--steps", nargs="+", type=int, default=[1, 4, 10], help="of DiT's sampler")
  parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 4, 16])
  parser.add_argument("--calls", type=int, default=100, help="calls of a round")
  parser.add_argument("--camera", type=int, default=256, help="side of the cameras' pictures")
  parser.add_argument("--guidance", type=float, default=1.0)
  parser.add_argument("--dtype", default="", choices=("", "float32", "bfloat16"))
  parser.add_argument("--profile", action="store_true")
  common.add_options(parser, rounds=2)
  options = parser.parse_args()
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: _compiles.append(name) if "backend_compile" in name else None
  )
  rows, notes = [], []
  for kind in options.policy:
    section = model_presets.preset(
      "policy",
      ("published" if options.preset == "published" else "debug")
      + ("_gpt" if kind == "gpt" else ""),
    )
    section |= {"robots": {"robot": ROBOT}} | ({"dtype": options.dtype} if options.dtype else {})
    model = models.build(section)
    params = jax.jit(model.init)(rng.key(0, "init"))
    notes.append(
      f"{kind}: {optimizer.count(params):,} parameters, {section['dtype']}, "
      f"{section['num_cameras']} x {section['image_size']} px, "
      f"chunks of {section['action_horizon']}"
    )
    guidance = options.guidance if kind == "dit" else 1.0
    for steps in options.steps if kind == "dit" else [None]:
      for size in options.batch_sizes:
        policy = serving.Policy(
          policy_checkpoint.restore(params, spec(section)),
          num_sampling_steps=steps,
          guidance_scale=guidance,
          batch_size=size,
        )
        rows.append((kind, steps or "", size, *row(policy, size, options)))
        print(rows[-1], flush=True)
  columns = (
    "policy",
    "sampler's steps",
    "batch",
    "chunks/s",
    "p50 ms",
    "p99 ms",
    "calls",
    "model alone, p50 ms",
    "call / model",
    "CPU ms a call",
    "compiles after the first call",
  )
  guided = f", guidance {options.guidance:g}" if options.guidance != 1 else ""
  setting = (
    f"{options.preset} preset{guided}, pictures of {options.camera} x {options.camera} as the "
    f"cameras give them, random weights, {options.rounds} rounds of {options.calls} calls.\n\n"
    + "\n".join(f"* {note}" for note in notes)
  )
  common.finish(
    f"policy-latency-{options.preset}",
    "How fast a policy acts",
    [setting, common.table(columns, rows)],
    options,
  )


def spec(section: dict) -> policy_spec.PolicySpec:
  """What stands beside the weights of such a policy."""
  facts, data = {}, np.random.default_rng(0)
  for key, width in ROBOT.items():
    rows = statistics.Accumulator()
    rows.add(data.normal(size=(64, width)))
    facts[key] = rows.finish()
  robot = policy_spec.RobotSpec(
    action=ROBOT["action"],
    state=ROBOT["state"],
    action_names=policy_spec.action_names((), ROBOT["action"]),
    cameras=tuple(f"camera_{i}" for i in range(section["num_cameras"])),
    unused_cameras=(),
    step_seconds=0.05,
    reduce="mean",
    instructions={"count": 0, "empty": True, "examples": []},
    transforms={key: values.transforms(snap=key == "action") for key, values in facts.items()},
  )
  return policy_spec.PolicySpec(
    model=section,
    language={"kind": "hash", "width": section["language"]["width"]},
    robots={"robot": robot},
    latent=None,
    resize="squash",
    guidance_scale=1.0,
  )


def observations(policy: serving.Policy, count: int, *, side: int) -> list[list[dict]]:
  """Builds `count` different histories of one observation."""
  data = np.random.default_rng(0)
  histories = []
  for i in range(count):
    observation = {
      STATE: data.normal(size=policy.state_dim).astype(np.float32),
      TASK: INSTRUCTIONS[i % len(INSTRUCTIONS)],
    }
    histories.append(
      [
        observation
        | {
          IMAGE + name: data.integers(0, 256, (side, side, 3), np.uint8) for name in policy.cameras
        }
      ]
    )
  return histories


def row(policy: serving.Policy, size: int, options: argparse.Namespace) -> tuple[str, ...]:
  """Measures calls and the sampler alone, alternately; returns the cells of a row."""
  observed = observations(policy, max(2 * size, 8), side=options.camera)
  seconds: dict[str, list[float]] = {"call": [], "model": []}
  counter = 0
  batch, key = jax.device_put(policy.batch(observed[:size])), jax.random.key(0)

  def call() -> float:
    nonlocal counter
    counter += 1
    histories = [observed[(counter * size + i) % len(observed)] for i in range(size)]
    begin = time.perf_counter()
    policy.infer(histories, seed=counter)
    seconds["call"].append(time.perf_counter() - begin)
    return size

  def model() -> float:
    begin = time.perf_counter()
    jax.block_until_ready(policy.sample(batch, key))
    seconds["model"].append(time.perf_counter() - begin)
    return size

  call()
  model()
  before = len(_compiles)
  work = {
    name: lambda run=run: sum(run() for _ in range(options.calls))
    for name, run in (("call", call), ("model", model))
  }
  measured = common.rounds(work, options.rounds)
  compiles = len(_compiles) - before
  counted = {
    name: 1e3 * np.array(times[-options.rounds * options.calls :])
    for name, times in seconds.items()
  }
  if options.profile:
    profile = cProfile.Profile()
    profile.runcall(lambda: [call() for _ in range(options.calls)])
    pstats.Stats(profile).sort_stats("tottime").print_stats(18)
  p50, p99 = np.percentile(counted["call"], (50, 99))
  alone, best = np.percentile(counted["model"], 50), measured["call"].thriftiest
  return (
    f"{measured['call'].best.rate:.1f}",
    f"{p50:.2f}",
    f"{p99:.2f}",
    str(len(counted["call"])),
    f"{alone:.2f}",
    f"{p50 / alone:.3f}",
    f"{1e3 * best.cpu / options.calls:.2f}",
    str(compiles),
  )


if __name__ == "__main__":
  main()
