"""What does the timing of a run's sections (train/step_clock.py) cost a step?

python benchmarks/step_clock.py [--steps N] [--rounds 5]
    About a minute on 2 CPU cores. The rows: the training loop with its clock, and with one that
    does nothing, around the same step: products of small matrices, in two sizes, without a log or
    checkpoints. The rounds alternate; the best round of each row counts. Last, the calls of one
    step alone, without a loop around them: what the difference would be on a quiet machine.
"""

import argparse
import contextlib
import pathlib
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import common
import jax
import jax.numpy as jnp

from como_jax.parallel import mesh as mesh_lib
from como_jax.train import loop, observed, step_clock

SIDE = 256  # of the matrices
PRODUCTS = (20, 400)  # of a step, one row of the table each


class NoClock(step_clock.StepClock):
  """Times nothing."""

  @contextlib.contextmanager
  def section(self, name):
    """Does nothing."""
    yield

  @contextlib.contextmanager
  def device_step(self):
    """Does nothing."""
    yield lambda results: None

  def begun(self):
    """Only notes it."""
    self.started = True


def step_of(products: int):
  """A step of so many matrix products, with its mesh."""

  @jax.jit
  def step(x, batch):
    y = jax.lax.fori_loop(0, products, lambda _, y: jnp.tanh(y @ x), batch["x"])
    return x, {"loss": jnp.mean(y), "grad_norm": jnp.max(y)}

  def call(state, batch):
    x, metrics = step(state.x, batch)
    return types.SimpleNamespace(step=state.step, x=x), metrics

  call.mesh = mesh_lib.make()
  return call


def run(step, steps: int, clock: step_clock.StepClock) -> int:
  """Runs the loop on a step; returns the steps."""
  log = types.SimpleNamespace(
    write=lambda *given, **more: None,
    progress=lambda *given, **more: None,
    say=lambda text: None,
    evaluated=lambda step: False,
  )
  checkpointer = types.SimpleNamespace(save=lambda *given: None, wait=lambda: None)
  batch = {"x": jnp.ones((SIDE, SIDE), jnp.float32) / SIDE}
  state = types.SimpleNamespace(step=0, x=jnp.eye(SIDE, dtype=jnp.float32))
  loop.TrainLoop(
    step,
    loop.Schedule(steps, 50, 0),
    loop.Throughput(1, "steps"),
    log,
    checkpointer,
    observed=observed.Observed(clock),
  ).run(state, iter(lambda: batch, None))
  clock.close()
  return steps


def alone(steps: int) -> int:
  """The clock's calls of a step, without the step; returns the steps."""
  clock, results = step_clock.StepClock(), jnp.zeros(())
  clock.begun()
  window = step_clock.Window(clock)
  for i in range(steps):
    with clock.section(step_clock.DATA):
      pass
    with clock.section(step_clock.HOST):
      pass
    with clock.section(step_clock.HOST), clock.device_step() as watch:
      watch(results)
    for name in (step_clock.HOST, step_clock.HOST, step_clock.LOG):
      with clock.section(name):
        pass
    if i % 50 == 0:
      window.close()
  clock.close()
  return steps


def main() -> None:
  """Measures and prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--steps", type=int, default=300, help="of a round")
  common.add_options(parser)
  options = parser.parse_args()
  rows = []
  for products in PRODUCTS:
    step = step_of(products)
    steps = max(50, options.steps * PRODUCTS[0] // products)
    measured = common.rounds(
      {
        "timed": lambda step=step, steps=steps: run(step, steps, step_clock.StepClock()),
        "not timed": lambda step=step, steps=steps: run(step, steps, NoClock()),
      },
      options.rounds,
    )
    with_it, without = (1e3 / measured[name].best.rate for name in ("timed", "not timed"))
    rows.append(
      (
        str(products),
        f"{with_it:.3f}",
        f"{without:.3f}",
        f"{1e3 * (with_it - without):.0f}",
        f"{with_it / without:.4f}",
      )
    )
  head = ("matrix products of a step", "ms, timed", "ms, not timed", "difference, µs", "ratio")
  calls = common.rounds({"calls": lambda: alone(20_000)}, options.rounds)["calls"].best
  text = f"The calls of a step alone take {1e6 / calls.rate:.1f} µs."
  common.finish(
    "step-clock", "What the timing of a step costs", [common.table(head, rows), text], options
  )


if __name__ == "__main__":
  main()
