"""What a finished run leaves: its weights and its speed."""

import json
import shutil
from collections.abc import Mapping
from typing import Any

from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.train import atomic, checkpoint, loop


def export(
  command: config_lib.CommandLine,
  outcome: loop.TrainResult,
  final: dict[str, Any],
  *,
  unit: str,
  files: Mapping[str, str],
  seconds: float,
) -> int:
  """Leaves the weights and the speed of a finished run in its directory.

  Args:
    command: that ran.
    outcome: of the loop.
    final: the weights.
    unit: of an example, in words.
    files: JSON files that stand beside the weights, name -> text.
    seconds: that the run took.

  Returns:
    The exit code.

  Raises:
    errors.NonFiniteError: the weights are not finite; nothing is written.
  """
  workdir, steps = command.workdir, command.config.train.steps
  if not checkpoint.all_finite(final):
    raise errors.NonFiniteError(
      f"step {steps}: the weights are infinite or not a number and are not exported: lower "
      "config.train.optimizer.learning_rate, or go on from an earlier checkpoint"
    )
  # resuming a finished run measures nothing: keep the old file
  if outcome.examples_per_s or not (workdir / "speed.json").exists():
    speed = {
      f"{unit}_per_s": outcome.examples_per_s,
      "wait_share": outcome.wait_share,
      "steps": steps,
      "seconds": seconds,
    }
    atomic.write(workdir / "speed.json", json.dumps(speed, indent=2))
  for stale in workdir.glob(f".{checkpoint.WEIGHTS}.new-*"):  # of a start that was killed in here
    shutil.rmtree(stale, ignore_errors=True)
  weights.save(
    workdir / checkpoint.WEIGHTS,
    final,
    json.loads(config_lib.to_json(command.config)),
    step=steps,
    overwrite=True,
    files=files,
  )
  failed = (
    f"; the validation failed at step {', '.join(map(str, outcome.failed_evaluations))} (see above)"
    if outcome.failed_evaluations
    else ""
  )
  print(
    f"done: {steps} steps, {outcome.examples_per_s:.1f} {unit}/s, waited for data "
    f"{outcome.wait_share:.1%}; weights in {workdir / checkpoint.WEIGHTS}{failed}"
  )
  return 0
