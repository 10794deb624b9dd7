"""What is kept of a run's time and devices: one object for the loop and what it calls."""

import dataclasses

from como_jax.train import goodput as goodput_lib
from como_jax.train import step_clock
from como_jax.train.utilization import Utilization


@dataclasses.dataclass
class Observed:
  """The clock of an attempt, the ledger of the run, and the use of its devices.

  Attributes:
    clock: of this attempt.
    ledger: of the run; None in the processes that do not write it.
    utilization: of the devices.
  """

  clock: step_clock.StepClock = dataclasses.field(default_factory=step_clock.StepClock)
  ledger: goodput_lib.Ledger | None = None
  utilization: Utilization = dataclasses.field(default_factory=Utilization)

  def begun(self, step: int) -> None:
    """The first step of the attempt has ended."""
    self.clock.begun()
    self.reached(step)

  def reached(self, step: int) -> None:
    """Writes the time so far to the ledger."""
    if self.ledger:
      with self.clock.section(step_clock.LOG):
        self.ledger.reached(step)

  def goodput(self) -> dict[str, float]:
    """The ledger of the whole run so far, for the log; {} in a process without one."""
    return goodput_lib.scalars(self.ledger.summary()) if self.ledger else {}

  def close(self) -> None:
    """Ends the attempt in the ledger, and the clock."""
    if self.ledger:
      self.ledger.end()
    self.clock.close()
