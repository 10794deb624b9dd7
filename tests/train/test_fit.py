"""The way of a training task through its parts, on paper: in which order, with which settings, and
what is closed at the end.
"""

import dataclasses
import types

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.data import read_options
from como_jax.train import fit as fit_lib
from como_jax.train import job as job_lib
from como_jax.train import loop, step


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
  mesh = types.SimpleNamespace(shape={"data": 2, "fsdp": 1})
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


FILES = {"policy.json": "{}", "data.json": "text of ['DATA']"}
START = [("same", "the command line", True, True), "cores"]
PREPARED = [("mesh", 2), ("batch", True, 16, 2), "make", "record"]


def test_a_first_start(fit, tmp_path):
  code, said = fit()
  told, run = fit.told, tmp_path / "run"
  assert code == 0 and said == (
    f"toy: 1,234 parameters, 234 trainable; devices 2 x chip, mesh {{'data': 2, 'fsdp': 1}}, "
    f"processes 1; {fit.job.read_options}; step 0 of 9; {run}\n"
  )
  final = fit.state(0).params
  assert [one for one in told.calls if not (isinstance(one, tuple) and one[0] == "gather")] == [
    *START,
    "rundir.check",
    *PREPARED,
    ("optimizer", 9),
    ("memory", "SHAPES", True),
    ("rundir.open_run", False, False, FILES),
    ("checkpointer", 3, ("frozen/.*",)),
    "rundir.write_parameters",
    "batches.close",
    "log.close",
    "checkpointer.close",
  ]
  assert told.alone == [False, False, False, True], (
    "process 0 opens the directory before the others look for it"
  )
  settings = dict(frozen=("frozen/.*",), ema=True, mesh=fit.mesh)
  assert told.states == [(fit.job, "TX", settings), (fit.job, "TX", {**settings, "seed": 7})]
  ((loss, tx, options, more),) = told.built
  assert (loss, tx, options.lr_schedule(0)) == ("LOSS", "TX", 0.5)
  assert dataclasses.replace(options, lr_schedule=None) == step.StepOptions(
    weights="WEIGHTS", frozen=("frozen/.*",), seed=7, num_microbatches=2, ema_decay=0.5
  )
  assert more == dict(mesh=fit.mesh, state="SHAPES", constants={"c": 1})
  ((workdir, more),) = told.logs
  assert (
    workdir == run
    and more.pop("config")["task"] == "toy"
    and more == dict(steps=9, start=0, tensorboard=False, wandb="", name="toy")
  )
  ((now, train_loop),) = told.looped
  assert now.step == 0 and train_loop.train_step == "TRAIN_STEP"
  assert told.first_batch == {"x": 0, "y": 2}, "what the loss reads"
  kind, scored = train_loop.evaluate(now)
  assert kind == "scores" and scored is now.params
  assert train_loop.schedule == loop.Schedule(9, 4, 5, 6)
  assert (train_loop.throughput.examples_per_step, train_loop.throughput.unit) == (12, "pairs")
  assert train_loop.throughput.data_advice.startswith(
    "raise config.data.workers (now 1; this process: CPU cores 4)"
  )
  gathered = next(one for one in told.calls if one[0] == "gather")
  assert gathered[2] is True and set(gathered[1]) == set(final)
  (command, outcome, exported), more, seconds = told.exported[0]
  assert (
    (command.workdir, outcome.state) == (run, now)
    and more == dict(unit="pairs", files={"policy.json": "{}"})
    and exported["a"] == 1
    and 0 <= seconds < 3600
  )


def test_a_resumed_run_goes_on_where_it_was(fit, monkeypatch):
  told = fit.told
  told.restored, told.changed, told.old_rate = (
    fit.state(4),
    ["resume: data changed"],
    lambda step: 0.25,
  )
  code, said = fit("--resume", accept_changed_data=True, wandb="project", frozen=("other",))
  lines = said.splitlines()
  assert (
    code == 0
    and lines[0] == "resume: data changed"
    and "1,234 parameters, 1,234 trainable" in lines[1]
    and "; step 4 of 9; " in lines[1]
  )
  assert (
    lines[2]
    == (
      "resume: the learning rate of step 4 was 0.25 and is now 0.5 (train.steps and "
      "train.optimizer decide the schedule)"
    )
    and len(lines) == 3
  )
  assert told.calls[2:10] == [
    "rundir.check",
    "wandb",
    "changes",
    "done_already",
    "rate_before",
    *PREPARED[:3],
  ]
  assert (
    ("data", ["DATA"], True) in told.calls
    and ("rundir.open_run", True, False, FILES) in told.calls
    and "restore" in told.calls
  )
  assert (
    told.looped[0][0].step == 4 and told.first_batch["x"] == 4 and told.logs[0][1]["start"] == 4
  )
  assert told.states[0][2]["frozen"] == ("other",) == told.built[0][2].frozen
  told.old_rate, told.restored = lambda step: 0.5 * (1 + 9e-5), None
  _, said = fit("--resume")
  assert (
    "learning rate" not in said
    and "step 0 of 9" in said
    and ("data", ["DATA"], False) in told.calls
  )


def test_a_run_with_enough_steps_is_left_alone(fit):
  fit.told.enough = "already there"
  assert (
    fit("--resume") == (0, "already there\n")
    and fit.told.calls[-2:] == ["done_already", "rate_before"]
    and not fit.told.built
  )
  assert fit()[0] == 0 and fit.told.built, "asked of a resume alone"


def test_the_other_processes_wait_and_write_nothing(fit, monkeypatch):
  told = fit.told
  told.first, told.restored = False, fit.state(4)
  monkeypatch.setattr(
    fit_lib.distributed, "broadcast_from_primary", lambda text: "[2, 4]" if text == "[]" else text
  )
  code, said = fit("--resume")
  assert code == 0 and said == "" and not told.logs and not told.exported
  written = ("rundir.write_parameters",)
  for name in ("rundir.check", "changes", "done_already", "record", *written):
    assert name not in told.calls
  assert (
    "rundir.join" in told.calls
    and not any(one[0] == "rundir.open_run" for one in told.calls)
    and told.calls[-1][0] == "gather"
    and told.calls[-1][2] is False
  )
  writer = told.looped[0][1].log
  assert writer.evaluated(4) and not writer.evaluated(3)


def test_a_run_without_an_evaluation_and_one_that_was_stopped(fit):
  told = fit.told
  object.__setattr__(fit.job, "evaluate", None)
  told.outcome = dict(stopped=True)
  assert fit()[0] == loop.EXIT_SIGNALED and told.looped[0][1].evaluate is None
  assert not told.exported and told.calls[-3:] == [
    "batches.close",
    "log.close",
    "checkpointer.close",
  ]


def test_what_fails_is_closed_in_order_unless_another_process_is_gone(fit):
  told = fit.told
  told.error = errors.NonFiniteError("nan")
  with pytest.raises(errors.NonFiniteError):
    fit()
  assert told.calls[-3:] == ["batches.close", "log.close", "checkpointer.close"]
  told.lost = True
  with pytest.raises(errors.NonFiniteError):
    fit()
  assert "log.close" not in told.calls and "checkpointer.close" not in told.calls
  told.error = KeyboardInterrupt()
  with pytest.raises(KeyboardInterrupt):
    fit()
  assert told.calls[-1] == "checkpointer.close"


@pytest.mark.parametrize("first", [True, False])
def test_a_profile_is_recorded_by_process_0_alone_and_closed(fit, monkeypatch, tmp_path, first):
  asked, made = [], types.SimpleNamespace(close=lambda: fit.told.calls.append("profile.close"))

  def make(folder, *, say, **more):
    return asked.append((folder, more)) or made

  monkeypatch.setattr(fit_lib.profile, "Profile", make)
  fit.told.first = first
  assert fit(profile_steps=(2, 4)) and asked[0][1] == dict(first=2, last=4, records=first)
  assert asked[0][0] == tmp_path / "run" / "tensorboard" and "profile.close" in fit.told.calls
  assert fit() and [one.profile for _, one in fit.told.looped] == [made, None]
