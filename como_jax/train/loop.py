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
from como_jax.train.state import TrainState

EXIT_SIGNALED = 143  # exit code after SIGTERM or SIGINT: saved, run again with --resume
# what process 0 tells the others in the place of a signal when it cannot write its log
_NO_LOG = int(signal.SIGXFSZ)


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """How a run ended: the last state, examples (pairs, images) a second without compile time,
  whether a signal stopped it, and the steps at which the evaluation failed.
  """

  state: TrainState
  examples_per_s: float
  wait_share: float
  stopped: bool
  unvalidated: tuple[int, ...] = ()


def run(
  state: TrainState,
  *,
  step: Callable,
  batches: Iterator[dict],
  mesh: jax.sharding.Mesh,
  steps: int,
  log: log_lib.Log,
  checkpointer: checkpoint_lib.Checkpointer,
  examples_per_step: int,
  unit: str,
  log_every: int,
  checkpoint_every: int,
  evaluate: Callable[[Any], dict[str, float]] | None = None,
  evaluate_every: int = 0,
  on_step: Callable[[int], None] | None = None,
  slow_data: str = "",
) -> TrainResult:
  """Trains until `steps`, from the step of `state`; `batches` must start at the same position.

  The save comes before the next batch is drawn, so a checkpoint's step is its data position.
  Metrics are read one step late: the host never waits for the step it has just started. An
  evaluation that fails is said and left out: it must not keep a run from its end. A log that cannot
  be written stops the run as a signal does, with a checkpoint.

  Args:
    step: `(state, batch) -> (state, metrics)`, donating the state.
    batches: this process's rows of each batch.
    evaluate: `state -> {name: value}`, every `evaluate_every` steps and at the end; every process
      calls it.
    unit: what is counted a second, "pairs" or "images".
    on_step: called with the number of finished steps (tests use it to stop at a chosen one).
    slow_data: advice for the line that says that data holds up the run.

  Raises:
    errors.NonFinite: a metric is infinite or not a number; it names the checkpoint to go on from.
    errors.Storage: the log or a checkpoint cannot be written.
  """
  done, unvalidated = int(state.step), []
  exchange = distributed.AsyncAllGather(mesh, count=2)
  with _Signals() as signals:
    reader = _MetricsReader(
      log=log,
      log_every=log_every,
      steps=steps,
      unit=unit,
      exchange=exchange,
      signals=signals,
      meter=meter_lib.Meter(examples_per_step),
      bottleneck=meter_lib.Bottleneck(slow_data),
      restart_point=checkpointer.restart_point,
    )
    while True:
      due = done >= steps or reader.stop
      if due or (done and checkpoint_every and done % checkpoint_every == 0):
        reader.flush()
        with reader.saving():
          checkpointer.save(done, state)
      if (
        evaluate
        and done
        and (done >= steps or (evaluate_every and done % evaluate_every == 0))
        and not (reader.stop or log.evaluated(done))
      ):
        reader.flush()
        reader.bottleneck.paused()
        with reader.meter.paused():
          scores = _scores(evaluate, state, step=done, log=log)
        if scores:
          reader.write(done, scores, kind="validation")
          log.say(
            f"step {done}: validation " + ", ".join(f"{k} {v:.4g}" for k, v in scores.items())
          )
        else:
          unvalidated.append(done)
      if due:
        break
      waiting = time.monotonic()
      batch = next(batches)
      waited = time.monotonic() - waiting if reader.idle else 0.0
      state, metrics = step(state, mesh_lib.put_batch(mesh, batch))
      done += 1
      reader.add(done, metrics, waited)
      if on_step:
        on_step(done)
    with reader.saving():
      # while signals are still caught: a second host's SIGTERM must not end it in the middle of a
      # save
      checkpointer.wait()
  if reader.unwritten or reader.stop == signal.Signals(_NO_LOG).name:
    raise errors.Storage(
      f"{reader.unwritten or 'process 0 cannot write its log'}; step {done} is saved: make "
      "room, then give --resume"
    )
  if reader.stop:
    log.say(
      f"stopped by {reader.stop} at step {done}: saved; run the same command with --resume to go on"
    )
  return TrainResult(
    state=state,
    examples_per_s=reader.meter.rate,
    wait_share=reader.meter.wait_share,
    stopped=bool(reader.stop),
    unvalidated=tuple(unvalidated),
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


@dataclasses.dataclass
class _MetricsReader:
  """Reads finished steps, each after the next one has been started: checks that the metrics are
  finite, logs them, and hears from the other processes whether one of them was told to stop and how
  long each waited for its data.
  """

  log: log_lib.Log
  log_every: int
  steps: int
  unit: str
  exchange: distributed.AsyncAllGather
  signals: "_Signals"
  meter: meter_lib.Meter
  bottleneck: meter_lib.Bottleneck
  restart_point: Callable[[int], int | None]
  unwritten: str = ""  # why the log cannot be written
  _agreed: str = ""  # several processes: the signal that all of them have heard of
  _pending: tuple[int, dict, Any, float] | None = None

  @property
  def stop(self) -> str:
    """Name of the signal to stop for, or ""; the same in every process at the same step."""
    return _name(self._number) if self.exchange.alone else self._agreed

  @property
  def _number(self) -> int:
    return self.signals.number or (_NO_LOG if self.unwritten else 0)

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
    sent = self.exchange.send(self._number, waited)
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
      last = self.restart_point(done)
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
    heard = self.exchange.read(sent)
    number = int(np.max(heard[:, 0]))
    self._agreed = self._agreed or _name(number)
    self.meter.waited(waited)
    self.meter.finished()
    self.bottleneck.add(heard[:, 1])
    say = done % self.log_every == 0 or done == self.steps
    if say:
      self.write(
        done, {**values, f"{self.unit}_per_s": self.meter.rate, "wait_share": self.meter.wait_share}
      )
      slow = self.bottleneck.line()
      if slow:
        self.log.say(slow)
    self.log.progress(
      done,
      {
        "loss": values["loss"],
        f"{self.unit}/s": self.meter.rate,
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
