"""The one training loop: save, evaluate, fetch a batch, step, log; again until the end.

Every process of a run runs the same loop.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from como_jax import errors
from como_jax.parallel import distributed
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpointer as checkpointer_lib
from como_jax.train import log as log_lib
from como_jax.train import profile as profile_lib
from como_jax.train import signals as signals_lib
from como_jax.train import step as step_lib
from como_jax.train import watchdog as watchdog_lib
from como_jax.train.metrics_reader import MetricsReader
from como_jax.train.schedule import Schedule as Schedule  # also as loop.Schedule
from como_jax.train.schedule import Throughput as Throughput
from como_jax.train.state import TrainState

# Exit code of `fit.fit` after SIGTERM or SIGINT: saved, run again with --resume.
EXIT_SIGNALED = 143


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """How a run ended.

  Attributes:
    state: the last one.
    examples_per_s: pairs or images a second, without compile time.
    wait_share: share of the time in which the devices waited for data.
    stopped: whether a signal stopped it.
    failed_evaluations: steps at which the evaluation failed.
  """

  state: TrainState
  examples_per_s: float
  wait_share: float
  stopped: bool
  failed_evaluations: tuple[int, ...] = ()


@dataclasses.dataclass
class TrainLoop:
  """Save, evaluate, fetch a batch, step, log; until the last step or a signal.

  The save comes before the next batch is fetched, so a run resumes with the batch of that number.
  Metrics are read one step late: the host never waits for the step it has just started. They are
  all read before a save, so no state is saved after a loss that was not finite. An evaluation that
  fails is reported and left out (but for a lost process or storage): it must not end a run. A log
  that cannot be written stops the run as a signal does, with a checkpoint, and raises StorageError.

  Attributes:
    train_step: `(state, batch) -> (state, metrics)`, donating the state; its `mesh` places batches.
    schedule: when to save, log, evaluate and end.
    throughput: examples of a step, and their unit.
    log: receives metrics and messages.
    checkpointer: saves states.
    evaluate: `state -> {name: value}`; every process calls it.
    on_step: called with the number of finished steps (tests use it to stop at a chosen one).
    profile: of some steps.
    watchdog: ends the process when a step does not end.
  """

  train_step: step_lib.TrainStep
  schedule: Schedule
  throughput: Throughput
  log: log_lib.Log | log_lib.NullLog
  checkpointer: checkpointer_lib.Checkpointer
  evaluate: Callable[[Any], dict[str, float]] | None = None
  on_step: Callable[[int], None] | None = None
  profile: profile_lib.Profile | None = None
  watchdog: watchdog_lib.Watchdog = watchdog_lib.OFF

  def run(self, state: TrainState, batches: Iterator[dict]) -> TrainResult:
    """Trains from the step of `state`; `batches` must start at the same position.

    Args:
      state: where to start.
      batches: this process's rows of each batch.

    Raises:
      errors.NonFiniteError: a metric is infinite or not a number (found by `MetricsReader`); it
        names the checkpoint to resume from.
      errors.StorageError: the log or a checkpoint cannot be written.
    """
    done, failed_evaluations = int(state.step), []
    with signals_lib.Signals() as signals, self.watchdog:
      reader = MetricsReader(
        self.log,
        self.schedule,
        self.throughput,
        # two numbers of every process: its signal (so that all stop at the same step), and the
        # seconds it waited for data
        distributed.AsyncAllGather(self.train_step.mesh, count=2),
        signals,
        self._restart_point,
      )
      while True:
        at_end = done >= self.schedule.steps or bool(reader.stop)
        if at_end or self.schedule.saves_at(done):
          self._save(reader, done, state)
        if self._evaluation_due(reader, done):
          succeeded = self._evaluate(reader, done, state)
          if not succeeded:
            failed_evaluations.append(done)
        if at_end:
          break
        if self.profile and done + 1 == self.profile.first:
          with self._paused(reader, "profile"):
            self.profile.start()
        state, metrics, waited = self._advance(state, batches, done, idle=reader.idle)
        done += 1
        reader.add(done, metrics, waited)
        self.watchdog.finished(done - 1)
        if self.profile and done == self.profile.last:
          with self._paused(reader, "profile"):
            self.profile.stop()
        if self.on_step:
          self.on_step(done)
      with self.watchdog.paused("save"), reader.saving():
        # Signals are still caught: a second SIGTERM must not end the process while it saves.
        self.checkpointer.wait()
    self._report_end(reader, done)
    return TrainResult(
      state=state,
      examples_per_s=reader.meter.rate,
      wait_share=reader.meter.wait_share,
      stopped=bool(reader.stop),
      failed_evaluations=tuple(failed_evaluations),
    )

  def _advance(
    self, state: TrainState, batches: Iterator[dict], done: int, *, idle: bool
  ) -> tuple[TrainState, dict[str, jax.Array], float]:
    """Starts the next step: (state, metrics, seconds that idle devices waited for the batch)."""
    begin = time.monotonic()
    with self.watchdog.phase("next_batch"), jax.profiler.TraceAnnotation("next_batch"):
      batch = next(batches)
    waited = time.monotonic() - begin if idle else 0.0
    placed = mesh_lib.put_batch(self.train_step.mesh, batch)
    # All that a step reads is on the devices now: the guard turns any further copy into an error.
    with (
      jax.profiler.StepTraceAnnotation("train", step_num=done + 1),
      jax.transfer_guard("disallow"),
    ):
      state, metrics = self.train_step(state, placed)
    return state, metrics, waited

  def _restart_point(self, step: int) -> int | None:
    # it waits for a save and reads whole checkpoints
    with self.watchdog.paused("restart point"):
      return self.checkpointer.restart_point(step)

  def _save(self, reader: MetricsReader, done: int, state: TrainState) -> None:
    reader.flush()  # raises where a metric was not finite
    with self.watchdog.paused("save"), reader.saving(), jax.profiler.TraceAnnotation("save"):
      self.checkpointer.save(done, state)

  def _evaluation_due(self, reader: MetricsReader, done: int) -> bool:
    return bool(
      self.evaluate
      and self.schedule.evaluates_at(done)
      and not (reader.stop or self.log.evaluated(done))
    )

  def _evaluate(self, reader: MetricsReader, done: int, state: TrainState) -> bool:
    """Evaluates and logs; False when it failed, which is reported."""
    assert self.evaluate is not None  # or none would be due
    with self._paused(reader, "evaluate"), jax.profiler.TraceAnnotation("evaluate"):
      scores = _scores(self.evaluate, state, step=done, log=self.log)
    if not scores:
      return False
    reader.write(done, scores, kind="validation")
    text = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
    self.log.say(f"step {done}: validation {text}")
    return True

  @contextlib.contextmanager
  def _paused(self, reader: MetricsReader, name: str) -> Iterator[None]:
    """The devices have done all steps; the time in this context is not that of training."""
    reader.flush()
    reader.data_wait.paused()
    with self.watchdog.paused(name), reader.meter.paused():
      yield

  def _report_end(self, reader: MetricsReader, done: int) -> None:
    if reader.unwritten or reader.stop == signals_lib.name(signals_lib.NO_LOG):
      raise errors.StorageError(
        f"{reader.unwritten or 'process 0 cannot write its log'}; step {done} is saved: make "
        "room, then give --resume"
      )
    if reader.stop:
      self.log.say(
        f"stopped by {reader.stop} at step {done}: saved; run the same command with --resume to "
        "go on"
      )


def _scores(
  evaluate: Callable[[Any], dict[str, float]],
  state: TrainState,
  *,
  step: int,
  log: log_lib.Log | log_lib.NullLog,
) -> dict[str, float]:
  """What the evaluation gives; {} when it fails, which is logged."""
  try:
    return evaluate(state)
  except Exception as error:
    if isinstance(error, (errors.RunError, errors.TransientError)) or distributed.lost_process(
      error
    ):
      raise
    line = (str(error).splitlines() or [""])[0][:300]
    log.say(
      f"step {step}: the validation failed and is left out, training goes on: "
      f"{type(error).__name__}: {line}"
    )
    return {}
