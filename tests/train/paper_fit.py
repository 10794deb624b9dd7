"""`fit.fit` on paper: it keeps what is called, in which order, and with which settings."""

import types

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.data import read_options
from como_jax.train import fit as fit_lib
from como_jax.train import job as job_lib
from como_jax.train import loop


class Batches:
  """Batches that say where they start: x; the loss reads x and y of them."""

  def __init__(self, start, close):
    self._start, self.close = start, close

  def __iter__(self):
    return self

  def __next__(self):
    return {"x": self._start, "y": 2, "z": 3}


@pytest.fixture(name="fit")
def _fit(tmp_path, monkeypatch, capsys):
  """`fit.fit` on paper: (function, what happened)."""
  told = types.SimpleNamespace(
    calls=[],
    looped=[],
    built=[],
    states=[],
    logs=[],
    exported=[],
    first=True,
    processes=1,
    enough="",
    old_rate=None,
    restored=None,
    changed=[],
    outcome=dict(stopped=False),
    error=None,
    lost=False,
    validated=[2, 4],
    alone=[],
    remark="",
  )

  def call(name, value=None):
    return lambda *given, **more: told.calls.append(name) or (value() if callable(value) else value)

  def noted(name, *keep):
    return lambda *given, **more: told.calls.append((name, *[more.get(key) for key in keep]))

  d = fit_lib.distributed
  monkeypatch.setattr(d, "is_primary", lambda: told.first)
  monkeypatch.setattr(
    d,
    "run_on_all_processes",
    lambda function, *, first_alone=False: told.alone.append(first_alone) or function(),
  )
  monkeypatch.setattr(
    d,
    "assert_same_on_all",
    lambda text, *, what: told.calls.append(
      ("same", what, str(tmp_path / "run") in text, "resume" in text)
    ),
  )
  monkeypatch.setattr(
    d,
    "gather",
    lambda tree, *, keep: told.calls.append(("gather", tree, keep)) or {"a": np.ones(1)},
  )
  monkeypatch.setattr(d, "lost_process", lambda error: told.lost)
  monkeypatch.setattr(fit_lib.reading, "cores", call("cores"))
  for name in ("check", "join", "write_parameters"):
    monkeypatch.setattr(fit_lib.rundir, name, call(f"rundir.{name}"))
  monkeypatch.setattr(fit_lib.config_changes, "changes", call("changes"))
  monkeypatch.setattr(fit_lib.rundir, "hardware", lambda: {"devices": "2 x chip"})
  monkeypatch.setattr(
    fit_lib.rundir, "open_run", noted("rundir.open_run", "resume", "overwrite", "files")
  )
  monkeypatch.setattr(fit_lib.log, "check_wandb", call("wandb"))
  monkeypatch.setattr(fit_lib.resume, "done_already", call("done_already", lambda: told.enough))
  monkeypatch.setattr(fit_lib.resume, "rate_before", call("rate_before", lambda: told.old_rate))
  mesh = types.SimpleNamespace(shape={"data": 2, "fsdp": 1}, local_devices=["DEVICE"], size=2)
  monkeypatch.setattr(
    fit_lib.mesh_lib, "make", lambda **shape: told.calls.append(("mesh", shape["data"])) or mesh
  )
  monkeypatch.setattr(
    fit_lib.mesh_lib,
    "check_batch",
    lambda given, size, *, accumulate: told.calls.append(
      ("batch", given is mesh, size, accumulate)
    ),
  )
  monkeypatch.setattr(fit_lib.data_identity, "record", call("record", ["DATA"]))
  monkeypatch.setattr(
    fit_lib.data_identity,
    "check",
    lambda workdir, data, *, accept: told.calls.append(("data", data, accept)) or told.changed,
  )
  monkeypatch.setattr(fit_lib.data_identity, "text", lambda data: f"text of {data}")
  monkeypatch.setattr(
    fit_lib.optimizer,
    "from_section",
    lambda section: told.calls.append(("optimizer", section.steps)) or ("TX", lambda step: 0.5),
  )

  def state(step):
    return types.SimpleNamespace(
      step=step, params={"frozen": {"a": np.zeros(1000)}, "head": {"b": np.zeros(234)}}, ema=None
    )

  monkeypatch.setattr(
    fit_lib.job,
    "state_shapes",
    lambda job, tx, **more: told.states.append((job, tx, more)) or "SHAPES",
  )
  monkeypatch.setattr(
    fit_lib.job,
    "initial_state",
    lambda job, tx, **more: told.states.append((job, tx, more)) or state(0),
  )
  monkeypatch.setattr(
    fit_lib.step,
    "TrainStep",
    lambda loss, tx, options, **more: told.built.append((loss, tx, options, more)) or "TRAIN_STEP",
  )
  monkeypatch.setattr(
    fit_lib.job,
    "check_memory",
    lambda step, *given: told.calls.append(("memory", given[0], given[3] is mesh)),
  )
  checkpointer = types.SimpleNamespace(
    close=call("checkpointer.close"),
    restore=lambda now, given: told.calls.append("restore") or told.restored,
  )
  monkeypatch.setattr(
    fit_lib.checkpointer_lib,
    "Checkpointer",
    lambda workdir, **more: told.calls.append(("checkpointer", *more.values())) or checkpointer,
  )
  writer = types.SimpleNamespace(
    validated=told.validated, close=call("log.close"), say=lambda text: print(text)
  )
  monkeypatch.setattr(
    fit_lib.log, "Log", lambda workdir, **more: told.logs.append((workdir, more)) or writer
  )

  monkeypatch.setattr(fit_lib.job, "batch_shapes", lambda job, given: "BATCH")

  def utilization(trace, devices, *, count):
    told.used = trace, devices, count
    return types.SimpleNamespace(remark=told.remark)

  monkeypatch.setattr(fit_lib.utilization, "Utilization", utilization)
  monkeypatch.setattr(
    fit_lib.goodput,
    "Ledger",
    lambda workdir, clock, *, step: (
      told.calls.append(("ledger", workdir.name, step))
      or types.SimpleNamespace(end=call("ledger.end"), summary=lambda: "SUMMARY")
    ),
  )
  monkeypatch.setattr(fit_lib.goodput, "text", lambda summary: f"ledger: {summary}")

  def run(train_loop, now, batches):
    told.looped.append((now, train_loop))
    told.first_batch = next(batches)
    if told.error:
      raise told.error
    return loop.TrainResult(
      **{**dict(state=now, examples_per_s=1.0, wait_share=0.0), **told.outcome}
    )

  monkeypatch.setattr(fit_lib.loop.TrainLoop, "run", run)
  monkeypatch.setattr(
    fit_lib.export,
    "export",
    lambda *given, seconds, **more: told.exported.append((given, more, seconds)) or 0,
  )
  job = job_lib.TrainJob(
    model=types.SimpleNamespace(frozen=("frozen/.*",)),
    loss="LOSS",
    weights="WEIGHTS",
    examples_per_step=12,
    unit="pairs",
    batch={"x": 0, "y": 0},
    read_options=read_options.ReadOptions(1, 2, 3, "CPU cores 4"),
    data=["D"],
    constants={"c": 1},
    evaluate=lambda params: ("scores", params),
    batches=lambda start: Batches(start, call("batches.close")),
    files={"policy.json": "{}"},
  )

  def fit(*words, **train):
    del told.calls[:]
    config = config_lib.ConfigDict({"task": "toy", "seed": 7})
    config.train = config_lib.train(
      **{
        **dict(
          batch_size=16,
          steps=9,
          mesh__data=2,
          accumulate=2,
          ema=0.5,
          keep_checkpoints=3,
          log_every=4,
          checkpoint_every=5,
          evaluate_every=6,
          tensorboard=False,
        ),
        **train,
      }
    )
    command = config_lib.CommandLine(
      config, "toy", tmp_path / "run", resume="--resume" in words, overwrite=False
    )
    code = fit_lib.fit(command, lambda: told.calls.append("make") or job)
    return code, capsys.readouterr().out

  fit.told, fit.job, fit.state, fit.mesh = told, job, state, mesh
  return fit
