"""The loop on paper: a step, a log and checkpoints that keep every call and its order."""

import functools
import types

import jax
import numpy as np
import pytest

from como_jax import errors
from como_jax.train import loop, metrics_reader, observed, step_clock


class Log:
  """Keeps what it is told; it can be full from some step on."""

  def __init__(self, calls, *, full_from=10**9, evaluated=()):
    self._calls, self._full, self._evaluated = calls, full_from, evaluated

  def write(self, step, scalars, *, kind="train"):
    if step >= self._full:
      raise errors.StorageError(f"cannot write the log at step {step}")
    self._calls.append(("write", step, kind, dict(scalars)))

  def progress(self, step, scalars, *, say):
    self._calls.append(("progress", step, dict(scalars), say))

  def say(self, text):
    self._calls.append(("say", text))

  def evaluated(self, step):
    return step in self._evaluated


class AsyncAllGather:
  """One process, or what several of them are made to say: {step: [[signal, seconds], ...]}."""

  def __init__(self, others=None):
    self.alone, self._others, self._sent = others is None, others or {}, 0

  def send(self, number, waited):
    self._sent += 1
    return self._others.get(self._sent, [[number, waited]])

  def read(self, sent):
    return np.asarray(sent, np.float32)


class Checkpointer:
  def __init__(self, calls, full=None):
    self._calls, self._full = calls, full

  def save(self, step, state):
    self._calls.append(("save", step, int(state.step)))
    if self._full:
      raise self._full

  def wait(self):
    self._calls.append(("wait",))

  def restart_point(self, step):
    self._calls.append(("restart_point", step))
    return {5: 3}.get(step)


class Watcher:
  """The devices have done a step when it has been dispatched."""

  def __init__(self, clock):
    self._clock = clock

  def watch(self, step, results):
    step.end = self._clock()


class Value(float):
  """A metric on a device that may not be done."""

  ready = True

  def is_ready(self):
    return self.ready


@pytest.fixture(name="played")
def _played(monkeypatch):
  """Runs the loop on paper: (outcome, calls). A step takes a second."""
  bottleneck, clock = metrics_reader.meter_lib.Bottleneck, [0.0]

  def played(
    *,
    steps,
    start=0,
    metrics=None,
    exchange=None,
    log=None,
    full=None,
    calls=None,
    slow_data="",
    waits=0.0,
    log_every=1,
    checkpoint_every=0,
    evaluate_every=0,
    evaluate=None,
    on_step=None,
    profile=None,
    watchdog=None,
    profile_now=None,
    utilization=None,
    ledger=None,
  ):
    calls = [] if calls is None else calls
    clock[0] = 0.0
    times = types.SimpleNamespace(monotonic=lambda: clock[0])
    monkeypatch.setattr(loop, "time", times)
    monkeypatch.setattr(metrics_reader.meter_lib, "time", times)
    monkeypatch.setattr(
      metrics_reader.meter_lib, "Bottleneck", functools.partial(bottleneck, clock=times.monotonic)
    )
    monkeypatch.setattr(
      loop.distributed, "AsyncAllGather", lambda mesh, *, count: exchange or AsyncAllGather()
    )
    monkeypatch.setattr(loop.mesh_lib, "put_batch", lambda mesh, batch: batch)
    monkeypatch.setattr(jax, "device_get", lambda tree: tree)

    def batches():
      at = start
      while True:
        calls.append(("draw", at))
        clock[0] += waits
        yield at
        at += 1

    def step(state, batch):
      assert batch == state.step
      clock[0] += 1.0
      done = state.step + 1
      return types.SimpleNamespace(step=done), {
        "loss": Value((metrics or {}).get(done, 0.5)),
        "rate": Value(2.0),
      }

    step.mesh = None
    seen = observed.Observed(step_clock.StepClock(clock=times.monotonic, watcher=Watcher))
    seen.utilization, seen.ledger = utilization or seen.utilization, ledger
    outcome = loop.TrainLoop(
      step,
      loop.Schedule(steps, log_every, checkpoint_every, evaluate_every),
      loop.Throughput(8, "pairs", slow_data),
      log(calls) if log else Log(calls),
      Checkpointer(calls, full),
      evaluate,
      on_step,
      profile(calls) if profile else None,
      observed=seen,
      profile_now=profile_now,
      **({"watchdog": watchdog(calls)} if watchdog else {}),
    ).run(types.SimpleNamespace(step=start), batches())
    return outcome, calls

  played.clock = clock
  return played


def kinds(calls, *wanted):
  return [call[:2] for call in calls if call[0] in wanted]
