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
from como_jax.train import observed as observed_lib
from como_jax.train import profile as profile_lib
from como_jax.train import signals as signals_lib
from como_jax.train import step as step_lib
from como_jax.train import step_clock
from como_jax.train import watchdog as watchdog_lib
from como_jax.train.metrics_reader import MetricsReader
from como_jax.train.schedule import Schedule as Schedule  # also as loop.Schedule
from como_jax.train.schedule import Throughput as Throughput
from como_jax.train.state import TrainState

# Exit code of `fit.fit` after SIGTERM or SIGINT: saved, run again with --resume.
EXIT_SIGNALED = 143
_STEPS = 10  # at most, of a profile that a signal asks for


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

  The state after n steps is saved before batch n is fetched, so a run resumed from it begins with
  batch n.
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
    observed: where the time goes.
    profile_now: `(first step, last step) -> profile`, for the signal that asks for one.
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
  observed: observed_lib.Observed = dataclasses.field(default_factory=observed_lib.Observed)
  profile_now: Callable[[int, int], profile_lib.Profile] | None = None

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
        self.observed,
      )
      profiles = _Profiles(self.profile, self.profile_now, self.schedule, signals)
      while True:
        at_end = done >= self.schedule.steps or bool(reader.stop)
        if at_end or self.schedule.saves_at(done):
          self._save(reader, done, state)
          if not at_end:
            self._log_goodput(reader, done)
        if self._evaluation_due(reader, done):
          succeeded = self._evaluate(reader, done, state)
          if not succeeded:
            failed_evaluations.append(done)
        if at_end:
          break
        for profile in profiles.begin_at(done + 1):
          with self._recording(reader, profile):
            profile.start()
        state, metrics, waited = self._advance(state, batches, done, idle=reader.idle)
        done += 1
        reader.add(done, metrics, waited)
        self.watchdog.finished(done - 1)
        for profile in profiles.end_at(done):
          with self._recording(reader, profile):
            profile.stop()
        if self.on_step:
          self.on_step(done)
      for profile in profiles.end_at(None):
        profile.stop()
      with self.watchdog.paused("save"), reader.saving(), self._clock.section(step_clock.SAVE):
        # Signals are still caught: a second SIGTERM must not end the process while it saves.
        self.checkpointer.wait()
      self._log_goodput(reader, done)
    self._report_end(reader, done)
    return TrainResult(
      state=state,
      examples_per_s=reader.meter.rate,
      wait_share=reader.meter.wait_share,
      stopped=bool(reader.stop),
      failed_evaluations=tuple(failed_evaluations),
    )

  @property
  def _clock(self) -> step_clock.StepClock:
    return self.observed.clock

  def _advance(
    self, state: TrainState, batches: Iterator[dict], done: int, *, idle: bool
  ) -> tuple[TrainState, dict[str, jax.Array], float]:
    """Starts the next step: (state, metrics, seconds that idle devices waited for the batch)."""
    begin = time.monotonic()
    with (
      self._clock.section(step_clock.DATA),
      self.watchdog.phase("next_batch"),
      jax.profiler.TraceAnnotation("next_batch"),
    ):
      batch = next(batches)
    waited = time.monotonic() - begin if idle else 0.0
    with self._clock.section(step_clock.HOST):
      placed = mesh_lib.put_batch(self.train_step.mesh, batch)
    # All that a step reads is on the devices now: the guard turns any further copy into an error.
    with (
      self._clock.section(step_clock.HOST),
      self._clock.device_step() as watch,
      jax.profiler.StepTraceAnnotation("train", step_num=done + 1),
      jax.transfer_guard("disallow"),
    ):
      state, metrics = self.train_step(state, placed)
      watch(metrics)
    return state, metrics, waited

  def _restart_point(self, step: int) -> int | None:
    # it waits for a save and reads whole checkpoints
    with self.watchdog.paused("restart point"):
      return self.checkpointer.restart_point(step)

  def _save(self, reader: MetricsReader, done: int, state: TrainState) -> None:
    reader.flush()  # raises where a metric was not finite
    self.observed.reached(done)
    with (
      self.watchdog.paused("save"),
      reader.saving(),
      jax.profiler.TraceAnnotation("save"),
      self._clock.section(step_clock.SAVE),
    ):
      self.checkpointer.save(done, state)
    self.observed.reached(done)

  def _log_goodput(self, reader: MetricsReader, done: int) -> None:
    with self._clock.section(step_clock.LOG):
      scalars = self.observed.goodput()
      if scalars:
        reader.write(done, scalars, kind="goodput")

  def _evaluation_due(self, reader: MetricsReader, done: int) -> bool:
    return bool(
      self.evaluate
      and self.schedule.evaluates_at(done)
      and not (reader.stop or self.log.evaluated(done))
    )

  def _evaluate(self, reader: MetricsReader, done: int, state: TrainState) -> bool:
    """Evaluates and logs; False when it failed, which is reported."""
    assert self.evaluate is not None  # or none would be due
    with (
      self._paused(reader, "evaluate"),
      jax.profiler.TraceAnnotation("evaluate"),
      self._clock.section(step_clock.EVALUATE),
    ):
      scores = _scores(self.evaluate, state, step=done, log=self.log)
    self.observed.reached(done)
    if not scores:
      return False
    reader.write(done, scores, kind="validation")
    text = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
    with self._clock.section(step_clock.LOG):
      self.log.say(f"step {done}: validation {text}")
    return True

  @contextlib.contextmanager
  def _recording(self, reader: MetricsReader, profile: profile_lib.Profile) -> Iterator[None]:
    """Context in which a profile begins or ends.

    It has whole steps where all processes come here. Where a signal told one of several, the steps
    under way are cut: to wait for them here alone would read what the others read later.
    """
    together = reader.alone or profile is self.profile
    with (
      self._paused(reader, "profile") if together else self.watchdog.paused("profile"),
      self._clock.section(step_clock.LOG),
    ):
      yield

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


@dataclasses.dataclass
class _Profiles:
  """The profiles of a run: that of its config, and those that a signal asks for.

  Attributes:
    planned: that of the config.
    make: makes one of the steps (first, last).
    schedule: a profile on request is as long as a window of the log, at most `_STEPS`.
    signals: tell of a request.
    running: those that record.
  """

  planned: profile_lib.Profile | None
  make: Callable[[int, int], profile_lib.Profile] | None
  schedule: Schedule
  signals: signals_lib.Signals
  running: list[profile_lib.Profile] = dataclasses.field(default_factory=list)

  def begin_at(self, step: int) -> list[profile_lib.Profile]:
    """What is to be started before a step: one at a time, a request waits for its turn."""
    if self.planned and step == self.planned.first:
      begun = self.planned
    elif self.signals.profile and self.make and not self.running:
      self.signals.profile = False
      begun = self.make(step, step - 1 + min(self.schedule.log_every, _STEPS))
    else:
      return []
    self.running.append(begun)
    return [begun]

  def end_at(self, step: int | None) -> list[profile_lib.Profile]:
    """What is to be stopped behind a step; None: all that a signal asked for."""
    ended = [
      one
      for one in self.running
      if (one.last == step if step is not None else one is not self.planned)
    ]
    self.running = [one for one in self.running if one not in ended]
    return ended


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
