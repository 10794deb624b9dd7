"""When a run does what, and what is counted meanwhile."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When a run does what, in steps.

  Attributes:
    steps: the end of the run.
    log_every: steps between two lines of the log.
    checkpoint_every: steps between two checkpoints; 0: only one at the end.
    evaluate_every: steps between two evaluations; 0: only one at the end.
  """

  steps: int
  log_every: int
  checkpoint_every: int
  evaluate_every: int = 0

  def saves_at(self, step: int) -> bool:
    """Whether a checkpoint is due between the start and the end."""
    return bool(step and self.checkpoint_every and step % self.checkpoint_every == 0)

  def evaluates_at(self, step: int) -> bool:
    """Whether an evaluation is due."""
    periodic = self.evaluate_every and step % self.evaluate_every == 0
    return bool(step and (step >= self.steps or periodic))


@dataclasses.dataclass(frozen=True)
class Throughput:
  """What is counted a second.

  Attributes:
    examples_per_step: of all processes.
    unit: "pairs" or "images".
    data_advice: end of the line that says that data holds up the run.
  """

  examples_per_step: int
  unit: str
  data_advice: str = ""
