"""The one training loop: save, draw, step, log, evaluate, stop.

Every process of a run goes through it alike.
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from como_jax import errors
from como_jax.parallel import distributed
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpoint as checkpoint_lib
from como_jax.train import log as log_lib
from como_jax.train import meter as meter_lib
from como_jax.train import step as step_lib
from como_jax.train.state import TrainState

EXIT_SIGNALED = 143  # exit code after SIGTERM or SIGINT: saved, run again with --resume
# what process 0 tells the others in the place of a signal when it cannot write its log
_NO_LOG = int(signal.SIGXFSZ)


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


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """How a run ended.

  Attributes:
    state: the last one.
    examples_per_s: pairs or images a second, without compile time.
    wait_share: share of the time in which the devices waited for data.
    stopped: whether a signal stopped it.
    unvalidated: steps at which the evaluation failed.
  """

  state: TrainState
  examples_per_s: float
  wait_share: float
  stopped: bool
  unvalidated: tuple[int, ...] = ()


@dataclasses.dataclass
class TrainLoop:
  """Save, draw, step, log, evaluate, until the last step or a signal.

  The save comes before the next batch is drawn, so a checkpoint's step is its data position.
  Metrics are read one step late: the host never waits for the step it has just started. An
  evaluation that fails is reported and left out: it must not keep a run from its end. A log that
  cannot be written stops the run as a signal does, with a checkpoint.

  Attributes:
    train_step: `(state, batch) -> (state, metrics)`, donating the state; its `mesh` places batches.
    schedule: when to save, log, evaluate and end.
    throughput: what is counted a second.
    log: receives metrics and messages.
    checkpointer: saves states.
    evaluate: `state -> {name: value}`; every process calls it.
    on_step: called with the number of finished steps (tests use it to stop at a chosen one).
  """

  train_step: step_lib.TrainStep
  schedule: Schedule
  throughput: Throughput
  log: log_lib.Log
  checkpointer: checkpoint_lib.Checkpointer
  evaluate: Callable[[Any], dict[str, float]] | None = None
  on_step: Callable[[int], None] | None = None

  def run(self, state: TrainState, batches: Iterator[dict]) -> TrainResult:
    """Trains from the step of `state`; `batches` must start at the same position.

    Args:
      state: where to start.
      batches: this process's rows of each batch.

    Raises:
      errors.NonFinite: a metric is infinite or not a number; it names the checkpoint to go on from.
      errors.Storage: the log or a checkpoint cannot be written.
    """
    done, unvalidated = int(state.step), []
    with _Signals() as signals:
      reader = _MetricsReader(
        self.log,
        self.schedule,
        self.throughput,
        distributed.AsyncAllGather(self.train_step.mesh, count=2),
        signals,
        self.checkpointer.restart_point,
      )
      while True:
        at_end = done >= self.schedule.steps or bool(reader.stop)
        if at_end or self.schedule.saves_at(done):
          self._save(reader, done, state)
        if self._evaluation_due(reader, done) and not self._evaluated(reader, done, state):
          unvalidated.append(done)
        if at_end:
          break
        state, metrics, waited = self._advance(state, batches, done, idle=reader.idle)
        done += 1
        reader.add(done, metrics, waited)
        if self.on_step:
          self.on_step(done)
      with reader.saving():
        # Signals are still caught: a second SIGTERM must not end the process while it saves.
        self.checkpointer.wait()
    self._report_end(reader, done)
    return TrainResult(
      state=state,
      examples_per_s=reader.meter.rate,
      wait_share=reader.meter.wait_share,
      stopped=bool(reader.stop),
      unvalidated=tuple(unvalidated),
    )

  def _advance(
    self, state: TrainState, batches: Iterator[dict], done: int, *, idle: bool
  ) -> tuple[TrainState, dict[str, jax.Array], float]:
    """Starts the next step: (state, metrics, seconds that idle devices waited for the batch)."""
    begin = time.monotonic()
    with jax.profiler.TraceAnnotation("next_batch"):
      batch = next(batches)
    waited = time.monotonic() - begin if idle else 0.0
    placed = mesh_lib.put_batch(self.train_step.mesh, batch)
    # All that a step reads is on the devices now: an array that is copied with it is a mistake.
    with jax.profiler.StepTraceAnnotation("train", step_num=done), jax.transfer_guard("disallow"):
      state, metrics = self.train_step(state, placed)
    return state, metrics, waited

  def _save(self, reader: "_MetricsReader", done: int, state: TrainState) -> None:
    reader.flush()
    with reader.saving(), jax.profiler.TraceAnnotation("save"):
      self.checkpointer.save(done, state)

  def _evaluation_due(self, reader: "_MetricsReader", done: int) -> bool:
    return bool(
      self.evaluate
      and self.schedule.evaluates_at(done)
      and not (reader.stop or self.log.evaluated(done))
    )

  def _evaluated(self, reader: "_MetricsReader", done: int, state: TrainState) -> bool:
    """Evaluates and logs; False when it failed, which is reported."""
    reader.flush()
    reader.bottleneck.paused()
    with reader.meter.paused(), jax.profiler.TraceAnnotation("evaluate"):
      scores = _scores(self.evaluate, state, step=done, log=self.log)
    if not scores:
      return False
    reader.write(done, scores, kind="validation")
    text = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
    self.log.say(f"step {done}: validation {text}")
    return True

  def _report_end(self, reader: "_MetricsReader", done: int) -> None:
    if reader.unwritten or reader.stop == signal.Signals(_NO_LOG).name:
      raise errors.Storage(
        f"{reader.unwritten or 'process 0 cannot write its log'}; step {done} is saved: make "
        "room, then give --resume"
      )
    if reader.stop:
      self.log.say(
        f"stopped by {reader.stop} at step {done}: saved; run the same command with --resume to "
        "go on"
      )


def _scores(
  evaluate: Callable[[Any], dict[str, float]], state: TrainState, *, step: int, log: log_lib.Log
) -> dict[str, float]:
  """What the evaluation gives; {} when it fails, which is said."""
  try:
    return evaluate(state)
  except Exception as error:
    if isinstance(error, (errors.Failed, errors.Transient)) or distributed.lost_process(error):
      raise
    line = (str(error).splitlines() or [""])[0][:300]
    log.say(
      f"step {step}: the validation failed and is left out, training goes on: "
      f"{type(error).__name__}: {line}"
    )
    return {}


class _MetricsReader:
  """Reads finished steps, each after the next one has been started.

  It checks that the metrics are finite, logs them, and receives from the other processes whether
  one of them was told to stop and how long each waited for its data.
  """

  def __init__(
    self,
    log: log_lib.Log,
    schedule: Schedule,
    throughput: Throughput,
    exchange: distributed.AsyncAllGather,
    signals: "_Signals",
    restart_point: Callable[[int], int | None],
  ):
    self.log, self._schedule, self._unit = log, schedule, throughput.unit
    self._exchange, self._signals, self._restart_point = exchange, signals, restart_point
    self.meter = meter_lib.Meter(throughput.examples_per_step)
    self.bottleneck = meter_lib.Bottleneck(throughput.data_advice)
    self.unwritten = ""  # why the log cannot be written
    self._agreed = ""  # several processes: the signal that all of them have received
    self._pending: tuple[int, dict, Any, float] | None = None

  @property
  def stop(self) -> str:
    """Name of the signal to stop for, or ""; the same in every process at the same step."""
    return _name(self._number) if self._exchange.alone else self._agreed

  @property
  def _number(self) -> int:
    return self._signals.number or (_NO_LOG if self.unwritten else 0)

  @property
  def idle(self) -> bool:
    """Whether the devices have nothing to do: only then does waiting for data cost time."""
    return self._pending is None or all(
      value.is_ready() for value in jax.tree.leaves(self._pending[1])
    )

  def write(self, done: int, scalars: dict[str, float], *, kind: str = "train") -> None:
    """Logs; a log that cannot be written becomes a reason to stop."""
    try:
      self.log.write(done, scalars, kind=kind)
    except errors.Storage as error:
      self.unwritten = self.unwritten or str(error)

  @contextlib.contextmanager
  def saving(self):
    """A save that fails as the log did before it is told with it."""
    try:
      yield
    except errors.Storage as error:
      if not self.unwritten:
        raise
      raise errors.Storage(f"{self.unwritten}; {error}") from error

  def add(self, done: int, metrics: dict, waited: float) -> None:
    """A step has been started; the one before it is read."""
    sent = self._exchange.send(self._number, waited)
    earlier, self._pending = self._pending, (done, metrics, sent, waited)
    self._read(earlier)

  def flush(self) -> None:
    """Reads the last step too."""
    earlier, self._pending = self._pending, None
    self._read(earlier)

  def _read(self, pending: tuple[int, dict, Any, float] | None) -> None:
    if pending is None:
      return
    done, metrics, sent, waited = pending
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
      last = self._restart_point(done)
      where = (
        f"from the checkpoint of step {last}, whose weights are finite"
        if last is not None
        else "from step 0, there is no checkpoint before it"
      )
      raise errors.NonFinite(
        f"step {done}: {', '.join(f'{name} = {values[name]}' for name in bad)}; --resume goes on "
        f"{where}: lower --config.train.optimizer.learning_rate or .clip_norm with it, or look at "
        "the batch of this step"
      )
    heard = self._exchange.read(sent)
    number = int(np.max(heard[:, 0]))
    self._agreed = self._agreed or _name(number)
    self.meter.waited(waited)
    self.meter.finished()
    self.bottleneck.add(heard[:, 1])
    say = done % self._schedule.log_every == 0 or done == self._schedule.steps
    if say:
      self.write(
        done,
        {**values, f"{self._unit}_per_s": self.meter.rate, "wait_share": self.meter.wait_share},
      )
      slow = self.bottleneck.line()
      if slow:
        self.log.say(slow)
    self.log.progress(
      done,
      {
        "loss": values["loss"],
        f"{self._unit}/s": self.meter.rate,
        "wait %": 100 * self.meter.wait_share,
      },
      say=say,
    )


class _Signals:
  """Turns SIGTERM and SIGINT into a request to stop after the step; a second one acts as usual."""

  def __enter__(self):
    self.number = 0
    self._old = {}
    try:
      for number in (signal.SIGTERM, signal.SIGINT):
        # None: set by a library, not by Python
        self._old[number] = signal.signal(number, self._handle) or signal.SIG_DFL
    except ValueError:  # not in the main thread: the caller keeps the signals
      self._old = {}
    return self

  def _handle(self, number, frame):
    self.number = number
    signal.signal(number, self._old[number])

  def __exit__(self, *unused):
    for number, handler in self._old.items():
      signal.signal(number, handler)


def _name(number: int) -> str:
  """The signal's name such as "SIGTERM", or "" for 0."""
  return signal.Signals(number).name if number else ""
