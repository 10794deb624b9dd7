"""What the directory of a run says of the run so far."""

import pathlib
from collections.abc import Callable
from typing import Any

from como_jax import weights
from como_jax.train import checkpoint, integrity, optimizer, rundir


def done_already(workdir: pathlib.Path, steps: int) -> str:
  """What to say of a run that has done more steps than it is asked for; "" for any other.

  Nothing is written then.
  """
  folder = workdir / checkpoint.FOLDER
  good = (
    step
    for step in integrity.steps(folder)
    if step > steps and not integrity.problem(folder / str(step))
  )
  step = next(good, None)
  if step is None:
    return ""
  exported = workdir / checkpoint.WEIGHTS
  has = weights.read_step(exported) if (exported / weights.PARAMS).is_file() else None
  if has == step:
    words = f"{exported} holds its weights"
  else:
    state = "its weights are not exported yet" if has is None else f"{exported} is of step {has}"
    words = (
      f"{state}, "
      f"the checkpoint of step {step} is what other tasks use; --config.train.steps={step} "
      "exports it"
    )
  return f"already at step {step} of {steps} asked: nothing to do; {words}"


def rate_before(workdir: pathlib.Path) -> Callable[[int], Any] | None:
  """The learning-rate schedule that the run had so far; None where its config does not say."""
  before = weights.read_config(workdir / rundir.CONFIG).get("train", {})
  settings = dict(before.get("optimizer", {}))
  known = ("learning_rate", "floor", "warmup_steps", "warmup_start")
  if "steps" not in before or "schedule" not in settings or not set(known) <= set(settings):
    return None
  return optimizer.learning_rate_schedule(
    kind=settings["schedule"], steps=before["steps"], **{key: settings[key] for key in known}
  )
