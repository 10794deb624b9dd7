"""Reads the metrics of finished steps: checks, logs, and what the other processes tell."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from como_jax import errors
from como_jax.parallel import distributed
from como_jax.train import log as log_lib
from como_jax.train import meter as meter_lib
from como_jax.train import observed as observed_lib
from como_jax.train import signals as signals_lib
from como_jax.train import step_clock
from como_jax.train.schedule import Schedule, Throughput


class MetricsReader:
  """Reads finished steps, each after the next one has been started.

  It checks that the metrics are finite, logs them, and receives from the other processes whether
  one of them was told to stop and how long each waited for its data.
  """

  def __init__(
    self,
    log: log_lib.Log | log_lib.NullLog,
    schedule: Schedule,
    throughput: Throughput,
    exchange: distributed.AsyncAllGather,
    signals: signals_lib.Signals,
    restart_point: Callable[[int], int | None],
    observed: observed_lib.Observed,
  ):
    self.log, self._schedule, self._unit = log, schedule, throughput.unit
    self._exchange, self._signals, self._restart_point = exchange, signals, restart_point
    self.meter = meter_lib.Meter(throughput.examples_per_step)
    self.observed, self._steps_per_example = observed, 1 / throughput.examples_per_step
    self._window, self._rate = step_clock.Window(observed.clock), 0.0
    self.data_wait = meter_lib.Bottleneck(throughput.data_advice)
    self.unwritten = ""  # why the log cannot be written
    self._agreed = ""  # several processes: the signal that all of them have received
    # (step, its metrics, what was sent with it, seconds of waiting, its times on the devices)
    self._pending: tuple[int, dict, Any, float, Any] | None = None

  @property
  def alone(self) -> bool:
    """Whether the run has one process."""
    return self._exchange.alone

  @property
  def stop(self) -> str:
    """Name of the signal to stop for, or ""; the same in every process at the same step."""
    return signals_lib.name(self._number) if self._exchange.alone else self._agreed

  @property
  def _number(self) -> int:
    return self._signals.number or (signals_lib.NO_LOG if self.unwritten else 0)

  @property
  def idle(self) -> bool:
    """Whether the devices have nothing to do: only then does waiting for data cost time."""
    return self._pending is None or all(
      value.is_ready() for value in jax.tree.leaves(self._pending[1])
    )

  def write(self, done: int, scalars: dict[str, float], *, kind: str = "train") -> None:
    """Logs; a log that cannot be written becomes a reason to stop."""
    try:
      with self.observed.clock.section(step_clock.LOG):
        self.log.write(done, scalars, kind=kind)
    except errors.StorageError as error:
      self.unwritten = self.unwritten or str(error)

  @contextlib.contextmanager
  def saving(self) -> Iterator[None]:
    """A save that fails as the log did before it is told with it."""
    try:
      yield
    except errors.StorageError as error:
      if not self.unwritten:
        raise
      raise errors.StorageError(f"{self.unwritten}; {error}") from error

  def add(self, done: int, metrics: dict, waited: float) -> None:
    """A step has been started; the one before it is read."""
    with self.observed.clock.section(step_clock.HOST):
      sent = self._exchange.send(self._number, waited)
    times = self.observed.clock.dispatched
    earlier, self._pending = self._pending, (done, metrics, sent, waited, times)
    self._read(earlier)

  def flush(self) -> None:
    """Reads the last step too."""
    earlier, self._pending = self._pending, None
    self._read(earlier)

  def _read(self, pending: tuple[int, dict, Any, float, Any] | None) -> None:
    if pending is None:
      return
    done = pending[0]
    # waiting here for the devices is their time, what they are idle is the host's
    with self.observed.clock.section(step_clock.HOST):
      values = self._finish(*pending)
    first = not self.observed.clock.started
    if first:
      self.observed.begun(done)
      self._window.restart()
    with self.observed.clock.section(step_clock.LOG):
      self._tell(done, values, first=first)

  def _finish(
    self, done: int, metrics: dict, sent: Any, waited: float, times: Any
  ) -> dict[str, float]:
    """Waits for a step, checks it and counts it; returns its metrics."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
      last = self._restart_point(done)
      where = (
        f"from the checkpoint of step {last}, whose weights are finite"
        if last is not None
        else "from step 0, there is no checkpoint before it"
      )
      raise errors.NonFiniteError(
        f"step {done}: {', '.join(f'{name} = {values[name]}' for name in bad)}; --resume goes on "
        f"{where}: lower --config.train.optimizer.learning_rate or .clip_norm with it, or look at "
        "the batch of this step"
      )
    heard = self._exchange.read(sent)
    number = int(np.max(heard[:, 0]))
    self._agreed = self._agreed or signals_lib.name(number)
    self.meter.waited(waited)
    self.meter.finished(times.end)
    self.data_wait.add(heard[:, 1])
    return values

  def _tell(self, done: int, values: dict[str, float], *, first: bool) -> None:
    """Logs a finished step where one is due, and shows the progress."""
    say = done % self._schedule.log_every == 0 or done == self._schedule.steps
    if say:
      self._rate = self.meter.window()
      self.write(
        done,
        {
          **values,
          f"{self._unit}_per_s": self._rate,
          f"{self._unit}_per_s_mean": self.meter.rate,
          "wait_share": self.meter.wait_share,
          **self.observed.utilization.scalars(self._rate * self._steps_per_example),
          **({} if first else self._window.close()),
        },
      )
      self.observed.reached(done)
      slow = self.data_wait.line()
      if slow:
        self.log.say(slow)
    self.log.progress(
      done,
      {
        "loss": values["loss"],
        f"{self._unit}/s": self._rate or self.meter.rate,
        "wait %": 100 * self.meter.wait_share,
      },
      say=say,
    )
