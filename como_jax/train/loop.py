"""The one training loop: save, draw, step, log, evaluate, stop."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from como_jax import errors
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpoint as checkpoint_lib
from como_jax.train import log as log_lib
from como_jax.train.state import TrainState

STOPPED = 143  # exit code after SIGTERM or SIGINT: saved, run again with --resume


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run ended: the last state, examples (pairs, images) a second without compile time, and whether a signal stopped it."""

  state: TrainState
  examples_per_s: float
  wait_share: float
  seconds: float
  stopped: bool


def run(state: TrainState, *, step: Callable, batches: Iterator[dict], mesh: jax.sharding.Mesh, steps: int, log: log_lib.Log,
        checkpointer: checkpoint_lib.Checkpointer, examples_per_step: int, unit: str, log_every: int, checkpoint_every: int,
        evaluate: Callable[[Any], dict[str, float]] | None = None, evaluate_every: int = 0,
        on_step: Callable[[int], None] | None = None) -> Outcome:
  """Trains until `steps`, from the step of `state`; `batches` must start at the same position.

  The save comes before the next batch is drawn, so a checkpoint's step is its data position. Metrics are read one step late:
  the host never waits for the step it has just started.

  Args:
    step: `(state, batch) -> (state, metrics)`, donating the state.
    evaluate: `state -> {name: value}`, every `evaluate_every` steps and at the end.
    unit: what is counted a second, "pairs" or "images".
    on_step: called with the number of finished steps (tests use it to stop at a chosen one).
  """
  sharding = mesh_lib.batch_sharding(mesh)
  begin = time.monotonic()
  meter = _Meter(examples_per_step)
  pending: tuple[int, dict] | None = None
  done = int(state.step)
  with _Signals() as signals:
    while True:
      due = done == steps or signals.stop
      if due or (done and checkpoint_every and done % checkpoint_every == 0):
        pending = _settle(pending, log=log, log_every=log_every, steps=steps, meter=meter, unit=unit)
        checkpointer.save(done, state)
      if evaluate and done and (done == steps or (evaluate_every and done % evaluate_every == 0)) and not (signals.stop or log.evaluated(done)):
        pending = _settle(pending, log=log, log_every=log_every, steps=steps, meter=meter, unit=unit)
        with meter.paused():
          scores = evaluate(state)
        log.write(done, scores, kind="validation")
        log.say(f"step {done}: validation " + ", ".join(f"{k} {v:.4g}" for k, v in scores.items()))
      if due:
        break
      waiting = time.monotonic()
      batch = next(batches)
      meter.waited(time.monotonic() - waiting)
      batch = jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
      state, metrics = step(state, batch)
      done += 1
      settled, pending = pending, (done, metrics)
      _settle(settled, log=log, log_every=log_every, steps=steps, meter=meter, unit=unit)
      if on_step:
        on_step(done)
  checkpointer.wait()
  if signals.stop:
    log.say(f"stopped by {signals.stop} at step {done}: saved; run the same command with --resume to go on")
  return Outcome(state=state, examples_per_s=meter.rate, wait_share=meter.wait_share, seconds=time.monotonic() - begin,
                 stopped=bool(signals.stop))


def _settle(pending, *, log: log_lib.Log, log_every: int, steps: int, meter: "_Meter", unit: str) -> None:
  """Reads one finished step's metrics: checks that they are finite, logs them."""
  if pending is None:
    return None
  done, metrics = pending
  values = {name: float(value) for name, value in jax.device_get(metrics).items()}
  bad = [name for name, value in values.items() if not math.isfinite(value)]
  if bad:
    raise errors.NonFinite(f"step {done}: {', '.join(f'{name} = {values[name]}' for name in bad)}; the last checkpoint holds finite "
                    "weights, lower the learning rate or look at the batch of this step")
  meter.finished()
  say = done % log_every == 0 or done == steps
  if say:
    log.write(done, {**values, f"{unit}_per_s": meter.rate, "wait_share": meter.wait_share})
  log.progress(done, {"loss": values["loss"], f"{unit}/s": meter.rate, "wait %": 100 * meter.wait_share}, say=say)
  return None


class _Meter:
  """Throughput and the share of time spent waiting for data; the first step, which compiles, is left out."""

  def __init__(self, examples_per_step: int):
    self._examples, self._steps, self._wait, self._begin, self._end, self._pause = examples_per_step, 0, 0.0, None, 0.0, 0.0

  def waited(self, seconds: float) -> None:
    if self._begin is not None:
      self._wait += seconds

  def finished(self) -> None:
    if self._begin is None:
      self._begin = time.monotonic()
    else:
      self._steps += 1
    self._end = time.monotonic()

  def paused(self) -> "_Pause":
    return _Pause(self)

  @property
  def seconds(self) -> float:
    return max(1e-9, self._end - self._begin - self._pause) if self._begin else 0.0

  @property
  def rate(self) -> float:
    return self._steps * self._examples / self.seconds if self._steps else 0.0

  @property
  def wait_share(self) -> float:
    return min(1.0, self._wait / self.seconds) if self._steps else 0.0


class _Pause:
  """Time that is not training time."""

  def __init__(self, meter: _Meter):
    self._meter = meter

  def __enter__(self):
    self._begin = time.monotonic()

  def __exit__(self, *unused):
    if self._meter._begin is not None:
      self._meter._pause += time.monotonic() - self._begin


class _Signals:
  """Turns SIGTERM and SIGINT into a request to stop after the step; a second one acts as usual."""

  def __enter__(self):
    self.stop = ""
    self._old = {}
    try:
      for number in (signal.SIGTERM, signal.SIGINT):
        self._old[number] = signal.signal(number, self._handle)
    except ValueError:  # not in the main thread: the caller keeps the signals
      self._old = {}
    return self

  def _handle(self, number, frame):
    self.stop = signal.Signals(number).name
    signal.signal(number, self._old[number])

  def __exit__(self, *unused):
    for number, handler in self._old.items():
      signal.signal(number, handler)
