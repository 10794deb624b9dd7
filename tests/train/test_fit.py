"""The way of a training task through its parts, on paper: in which order, with which settings, and
what is closed at the end.
"""

import dataclasses
import types

import pytest

from como_jax import errors
from como_jax.train import fit as fit_lib
from como_jax.train import loop, step
from tests.train.paper_fit import _fit as _fit  # a fixture

FILES = {"policy.json": "{}", "data.json": "text of ['DATA']"}
START = [("same", "the command line", True, True), "cores"]
PREPARED = [("mesh", 2), ("batch", True, 16, 2), "make", "record"]


def test_a_first_start(fit, tmp_path):
  code, said = fit()
  told, run = fit.told, tmp_path / "run"
  assert code == 0 and said == (
    f"toy: 1,234 parameters, 234 trainable; devices 2 x chip, mesh {{'data': 2, 'fsdp': 1}}, "
    f"processes 1; {fit.job.read_options}; step 0 of 9; {run}\nledger: SUMMARY\n"
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
    ("ledger", "run", 0),
    "batches.close",
    "log.close",
    "checkpointer.close",
    "ledger.end",
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
  assert lines[2] == (
    "resume: the learning rate of step 4 was 0.25 and is now 0.5 (train.steps and "
    "train.optimizer decide the schedule)"
  ) and lines[3:] == ["ledger: SUMMARY"]
  assert ("ledger", "run", 4) in told.calls and told.looped[0][1].observed.ledger
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
    and told.looped[0][1].observed.ledger is None
  )
  writer = told.looped[0][1].log
  assert writer.evaluated(4) and not writer.evaluated(3)


def test_a_run_without_an_evaluation_and_one_that_was_stopped(fit):
  told = fit.told
  object.__setattr__(fit.job, "evaluate", None)
  told.outcome = dict(stopped=True)
  assert fit()[0] == loop.EXIT_SIGNALED and told.looped[0][1].evaluate is None
  assert not told.exported and told.calls[-4:] == [
    "batches.close",
    "log.close",
    "checkpointer.close",
    "ledger.end",
  ]


def test_what_fails_is_closed_in_order_unless_another_process_is_gone(fit):
  told = fit.told
  told.error = errors.NonFiniteError("nan")
  with pytest.raises(errors.NonFiniteError):
    fit()
  assert told.calls[-4:] == ["batches.close", "log.close", "checkpointer.close", "ledger.end"]
  told.lost = True
  with pytest.raises(errors.NonFiniteError):
    fit()
  assert "log.close" not in told.calls and "checkpointer.close" not in told.calls
  told.error = KeyboardInterrupt()
  with pytest.raises(KeyboardInterrupt):
    fit()
  assert told.calls[-2:] == ["checkpointer.close", "ledger.end"]


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


@pytest.mark.parametrize("useful", [None, "USEFUL"])
def test_what_is_not_known_of_the_devices_is_said_once(fit, monkeypatch, useful):
  losses: list[str] = []
  fit.told.remark = "no MFU"
  object.__setattr__(fit.job, "useful_loss", useful)
  code, said = fit()
  assert code == 0 and said.splitlines()[1:] == ["no MFU", "ledger: SUMMARY"]
  trace, devices, count = fit.told.used
  assert (devices, count) == (["DEVICE"], 2)
  step_ = types.SimpleNamespace(trace=lambda shapes, batch: (shapes, batch))
  monkeypatch.setattr(
    fit_lib.step, "TrainStep", lambda loss, *given, **more: losses.append(loss) or step_
  )
  assert trace() == ("SHAPES", "BATCH") and losses == [useful or "LOSS"]


@pytest.mark.parametrize("first", [True, False])
def test_a_profile_on_request_is_of_the_process_that_was_asked(fit, capsys, tmp_path, first):
  fit.told.first = first
  fit.told.validated = []
  fit(tensorboard=False)
  profile = fit.told.looped[0][1].profile_now(3, 12)
  assert (profile.first, profile.last, profile._records) == (3, 12, True)
  assert profile._folder == tmp_path / "run" / "tensorboard"
  profile._say("a line")
  said = capsys.readouterr()
  assert (said.out, said.err) == (("a line\n", "") if first else ("", "process 0: a line\n"))
