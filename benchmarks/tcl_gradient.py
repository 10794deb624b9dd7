"""How noisy is the gradient when Tcl reads only a drawn fraction of the pairs?

python benchmarks/tcl_gradient.py [--steps 100] [--batches 8] [--draws 8] [--option path=none]
The small motion model is first trained with Tcl on all pairs. At these parameters the gradient of
the loss is computed for several batches, and for several draws of each batch. About five minutes
on 2 CPU cores. Columns, as shares of squared norms:
    of Tcl alone       variance of Tcl's gradient over draws, over its squared norm for all pairs
    of the whole loss  the same for the loss that is trained
    added noise        variance of the whole gradient over draws, over its variance over batches
The mean over draws minus the gradient of all pairs is no bias if it is within its error.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import common
import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util

from como_jax import config as config_lib
from como_jax import objectives
from como_jax.parallel import flops
from como_jax.parallel import mesh as mesh_lib
from como_jax.tasks import motion
from como_jax.train import job as job_lib
from como_jax.train import optimizer, rng, step

ROOT = pathlib.Path(__file__).parent.parent
FRACTIONS = (1 / 2, 1 / 4, 1 / 7, 1 / 14)


def main() -> None:
  """Measures all fractions, and prints the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--steps", type=int, default=100, help="of training before")
  parser.add_argument("--batches", type=int, default=8)
  parser.add_argument("--draws", type=int, default=8)
  parser.add_argument("--clips", type=int, default=8, help="of a batch")
  parser.add_argument("--frames", type=int, default=8, help="of a clip")
  parser.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS))
  parser.add_argument("--option", default="", help="further options of configs/motion.py:small")
  common.add_options(parser, rounds=None)
  options = parser.parse_args()
  variant = ",".join(part for part in ("small", options.option) if part)
  config = config_lib.parse(
    [
      "main",
      f"--config={ROOT / 'configs' / 'motion.py'}:{variant}",
      f"--config.data.frames={options.frames}",
      f"--config.train.batch_size={options.clips}",
    ]
  ).config
  model, params, batches = _trained(config, options.steps, options.batches)
  total, alone = (_gradient(config, model, 1.0, tcl=tcl) for tcl in (False, True))
  whole = [total(params, batch, 0) for batch in batches]
  of_tcl = [alone(params, batch, 0) for batch in batches]
  rows = []
  for fraction in options.fractions:
    one = _gradient(config, model, fraction, tcl=True)
    drawn = [np.stack([one(params, batch, i) for i in range(options.draws)]) for batch in batches]
    rows.append(_row(fraction, whole, of_tcl, drawn))
    print(rows[-1], flush=True)
  table = common.table(
    ("fraction", "of Tcl alone", "of the whole loss", "added noise", "bias of Tcl", "GFLOP a pair"),
    [
      (*cells, f"{_operations(config, model, params, batches[0], fraction) / 1e9:.3f}")
      for cells, fraction in zip(rows, options.fractions, strict=True)
    ],
  )
  everything = _operations(config, model, params, batches[0], 1.0) / 1e9
  about = (
    f"motion:{variant} after {options.steps} steps, clips of {options.frames} frames, "
    f"{options.clips} clips a batch, {options.batches} batches, {options.draws} draws of each. "
    f"With all pairs a step costs {everything:.3f} GFLOP a pair."
  )
  common.finish("tcl-gradient", "The gradient of Tcl on drawn pairs", [about, table], options)


def _trained(config, steps: int, batches: int):
  """The model, its parameters after `steps` steps with Tcl on all pairs, and further batches."""
  job = motion.job(config)
  tx, _ = optimizer.from_section(config.train)
  frozen, mesh = job.model.frozen, mesh_lib.make(devices=jax.devices()[:1])
  state = job_lib.initial_state(job, tx, frozen=frozen, ema=False, seed=config.seed, mesh=mesh)
  state = job_lib.begun(job, state)
  train = step.TrainStep(
    job.loss, tx, step.StepOptions(job.weights, frozen, config.seed), mesh=mesh, state=state
  )
  reader = job.batches(0)
  for _ in range(steps):
    state, _ = train(state, next(reader))
  chosen = [
    {name: jnp.asarray(x) for name, x in next(reader).items() if name in job.batch}
    for _ in range(batches)
  ]
  reader.close()
  return job.model, state.params, chosen


def _loss(config, model, fraction: float):
  """(loss function, weights of its terms) with Tcl on a fraction of the pairs."""
  section = objectives.active(config.objectives)
  section["contrastive"]["fraction"] = fraction
  objective = objectives.build(section)
  return objectives.model_loss(model, objective), objective.weights


def _gradient(config, model: Any, fraction: float, *, tcl: bool) -> Callable[..., np.ndarray]:
  """A compiled (parameters, batch, number of a draw) -> flat gradient.

  Args:
    config: of the training.
    model: the motion model.
    fraction: of the pairs that Tcl reads.
    tcl: whether the gradient is that of the weighted Tcl alone, not of the whole loss.
  """
  loss, weights = _loss(config, model, fraction)
  if tcl:
    weights = {name: weight if name == "contrastive" else None for name, weight in weights.items()}
  chosen = step.StepOptions(weights, model.frozen, 0)

  @jax.jit
  def flat(params, batch, key):
    gradient, _ = step.compute_gradients(loss, params, batch, key, chosen)
    return flatten_util.ravel_pytree(gradient)[0]

  return lambda params, batch, draw: np.asarray(
    flat(params, batch, rng.key(draw, "loss")), np.float64
  )


def _variance(rows) -> float:
  """Sum over parameters of the variance over rows."""
  return float(np.var(np.stack(rows), axis=0, ddof=1).sum()) if len(rows) > 1 else float("nan")


def _row(fraction: float, whole: list, of_tcl: list, drawn: list) -> tuple[str, ...]:
  """The cells of a fraction but the last.

  Args:
    fraction: of the pairs.
    whole: gradient of the whole loss of each batch, with all pairs.
    of_tcl: gradient of Tcl of each batch, with all pairs.
    drawn: gradients of Tcl of each batch and draw; the rest of the loss draws nothing.
  """
  pairs = list(zip(of_tcl, drawn, strict=True))
  noise = np.mean([np.square(some - full).sum(axis=1).mean() for full, some in pairs])
  size, whole_size = (np.mean([np.square(x).sum() for x in each]) for each in (of_tcl, whole))
  bias = np.mean([np.square(some.mean(axis=0) - full).sum() for full, some in pairs])
  return (
    f"{fraction:.3f}",
    f"{noise / size:.3f}",
    f"{noise / whole_size:.2e}",
    f"{noise / _variance(whole):.2e}",
    f"{bias / size:.3f} (of chance: {noise / size / len(drawn[0]):.3f})",
  )


def _operations(config, model, params, batch, fraction: float) -> float:
  """Operations of a pair: loss and gradient."""
  loss, weights = _loss(config, model, fraction)
  program = jax.make_jaxpr(
    lambda params, batch: step.compute_gradients(
      loss, params, batch, rng.key(0, "loss"), step.StepOptions(weights, model.frozen, 0)
    )[0]
  )(params, batch)
  clips, frames = batch["frames"].shape[:2]
  return flops.count(program) / clips / (frames - 1)


if __name__ == "__main__":
  main()
