"""Runs the stages of a long command so that an interrupted command goes on where it stopped."""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage of a command.

  Attributes:
    name: name of the stage.
    product: the file or folder that it writes.
    run: runs the stage; returns the exit code.
    skip: returns a reason to skip the stage, or ""; called just before the stage would run.
    done: whether a product means that the stage is finished.
    needed: whether a failure ends the command.
  """

  name: str
  product: pathlib.Path
  run: Callable[[], int]
  skip: Callable[[], str] = lambda: ""
  done: Callable[[pathlib.Path], bool] = pathlib.Path.exists
  needed: bool = True


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What the stages of a command came to.

  Attributes:
    seconds: stage -> duration; 0 if it is not known.
    skipped: stage -> reason why it was skipped.
    code: exit code of the last stage that failed, or 0.
    complete: whether all needed stages are finished.
  """

  seconds: dict[str, float]
  skipped: dict[str, str]
  code: int
  complete: bool


def run(stages: Sequence[Stage], workdir: pathlib.Path) -> Outcome:
  """Runs the stages that are not finished yet; stops after a needed one that fails.

  Args:
    stages: the stages, in order.
    workdir: folder in which the duration of each stage is kept.
  """
  seconds, skipped, failed = {}, {}, 0
  for stage in stages:
    clock = workdir / f".{stage.name}-seconds"
    if stage.done(stage.product):
      print(f"== {stage.name}: done already ({stage.product.parent})")
    elif reason := stage.skip():
      skipped[stage.name] = reason
      print(f"== {stage.name}: left out: {reason}")
      continue
    else:
      print(f"== {stage.name}")
      begin = time.monotonic()
      code = _attempt(stage)
      if code and stage.needed:
        return Outcome(seconds, skipped, code, complete=False)
      if code:
        skipped[stage.name] = (
          f"it failed, see above (exit code {code}); the same command tries again"
        )
        failed = code
        continue
      clock.write_text(str(time.monotonic() - begin))
    seconds[stage.name] = float(clock.read_text()) if clock.exists() else 0.0
  return Outcome(seconds, skipped, failed, complete=True)


def _attempt(stage: Stage) -> int:
  """Runs a stage; returns the exit code, also for an exception in a stage that is not needed."""
  try:
    return stage.run()
  except Exception as error:
    if stage.needed:
      raise
    print(f"error: {stage.name}: {type(error).__name__}: {error}", file=sys.stderr)
    return getattr(error, "code", 1)
