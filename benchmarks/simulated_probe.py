"""Errors of the probes on a simulated z of any width, where the best possible error is known.

python benchmarks/simulated_probe.py [--seeds 6] [--mlp-seeds 2] [--out]

120 episodes of 29 windows. All numbers are AR(1) with coefficient 0.9 within an episode, as
neighboring windows are alike. The target is 4 of z's numbers, each plus independent noise of the
same variance (also AR(1)); the rest of z is independent of it, and z is rotated at random. 86
episodes are fitted, 34 scored. The best possible error is 0.5 of the target's variance, at every
width.
"""

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from benchmarks import common
from como_jax.evaluate import linear_probe, mlp_probe, probes

WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
EPISODES, FITTED, LENGTH, READ, MEMORY = 120, 86, 29, 4, 0.9


def world(width: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws (z [N, width], targets [N, 4], episode of each sample [N])."""
  rng = np.random.default_rng(seed)
  z = _sequences(rng, width)
  targets = z[:, :READ] + _sequences(rng, READ)
  rotation, _ = np.linalg.qr(rng.normal(size=(width, width)))
  return z @ rotation, targets, np.repeat(np.arange(EPISODES), LENGTH)


def _sequences(rng: np.random.Generator, count: int) -> np.ndarray:
  """Draws `count` independent AR(1) sequences of variance 1 in each episode.

  Returns:
    [episodes x windows, count].
  """
  values = np.empty((EPISODES, LENGTH, count))
  values[:, 0] = rng.normal(size=(EPISODES, count))
  for t in range(1, LENGTH):
    values[:, t] = MEMORY * values[:, t - 1] + np.sqrt(1 - MEMORY**2) * rng.normal(
      size=(EPISODES, count)
    )
  return values.reshape(-1, count)


def measure(width: int, seed: int, *, mlp: bool = False) -> dict[str, float]:
  """Measures held-out errors in units of the fitted targets' variance.

  Args:
    width: of z.
    seed: of the simulation.
    mlp: whether to fit the MLP probe too.

  Returns:
    "probe"; "half", fitted on half of the episodes; "tuned", with the best ridge of each target
    dimension on the held-out episodes; "tuned together", the same with one ridge for all
    dimensions; "smallest ridge"; "mean", of predicting the mean; "mlp".
  """
  z, targets, episodes = world(width, seed)
  held_out = episodes >= FITTED
  linear = linear_probe.probe(z, targets, episodes=episodes, held_out=held_out)
  mean, scale, _ = probes.scale_of(targets[~held_out])
  standard = (targets - mean) / scale
  by_ridge = (
    linear_probe.path(z[~held_out], standard[~held_out], z[held_out], standard[held_out])
    / held_out.sum()
  )
  result = {
    "probe": linear.mse,
    "half": linear.half,
    "tuned": by_ridge.min(axis=0).mean(),
    "tuned together": by_ridge.mean(axis=1).min(),
    "smallest ridge": by_ridge[0].mean(),
    "mean": by_ridge[-1].mean(),
  }
  if mlp:
    result["mlp"] = mlp_probe.probe(z, targets, episodes=episodes, held_out=held_out).mse
  return {name: float(value) for name, value in result.items()}


def main() -> int:
  """Measures all widths and prints the page."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seeds", type=int, default=6)
  parser.add_argument(
    "--mlp-seeds", type=int, default=2, help="of these, with the MLP probe as well"
  )
  parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
  common.add_options(parser, rounds=None)
  options = parser.parse_args()
  rows, every = [], []
  for width in options.widths:
    runs = [measure(width, seed, mlp=seed < options.mlp_seeds) for seed in range(options.seeds)]
    every += runs

    def of(name, runs=runs):
      return np.array([run[name] for run in runs if name in run])

    gaps, together = of("probe") - of("tuned"), of("probe") - of("tuned together")

    def span(values):
      return (
        f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})" if len(values) else ""
      )

    rows.append(
      (
        width,
        span(of("probe")),
        span(of("tuned")),
        f"{gaps.mean():+.3f}, {gaps.max():+.3f}",
        f"{together.mean():+.3f}, {together.max():+.3f}",
        f"{(of('half') - of('probe')).mean():+.3f}",
        span(of("smallest ridge")),
        span(of("mean")),
        span(of("mlp")),
      )
    )
    print(*rows[-1], sep=" | ", flush=True)
  head = (
    "width of z",
    "probe",
    "ridge tuned on the held-out episodes",
    "gap to it: mean, largest",
    "gap to one ridge for all dimensions tuned so",
    "half of the episodes costs",
    "smallest ridge (1e-8)",
    "predicting the mean",
    "MLP probe",
  )
  gaps = np.array([run["probe"] - run["tuned"] for run in every])
  above = np.array([run["probe"] for run in every])
  says = (
    f"{options.seeds} seeds at every width, mean (smallest to largest) over seeds; MLP: "
    f"{options.mlp_seeds} seeds. Of {len(every)} runs, {int((gaps > 0.03).sum())} are more than "
    f"0.03 above the ridge tuned on the held-out episodes (largest: {gaps.max():.3f}); "
    f"{int((above > 1).sum())} are above 1.0 (largest: {above.max():.3f}). Best possible: 0.5."
  )
  common.finish(
    "simulated-probe",
    "What the probes read from a simulated z of any width",
    [__doc__.split("\n\n")[2].strip(), common.table(head, rows), says],
    options,
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
