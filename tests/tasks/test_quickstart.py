"""Which stages of a quickstart run again on the next start.

The whole way: tests/end_to_end/test_readme.py.
"""

import json
import pathlib
from types import SimpleNamespace

import pytest

from como_jax import config as config_lib
from como_jax import errors, stages
from como_jax.quickstart import options, plan, products
from como_jax.tasks import exam, probe, quickstart, rollout

ROOT = pathlib.Path(__file__).parent.parent.parent


def planned(config, workdir):
  asked = options.from_config(config)
  return plan.Plan(asked, workdir, quickstart.run_task).stages()


@pytest.fixture
def ready(tmp_path, monkeypatch):
  """A quickstart whose stages all left something: (command, commands that were run, arguments of
  the report).
  """
  started, finished = [], []
  monkeypatch.setattr(quickstart.tasks, "run", lambda command: started.append(command) or 0)
  monkeypatch.setattr(plan.sim, "load", lambda name: None)
  monkeypatch.setattr(plan.rendering, "choose_backend", lambda: None)
  monkeypatch.setattr(quickstart, "finish", lambda workdir, **rest: finished.append(rest))
  command = config_lib.parse(
    ["main", f"--config={ROOT}/configs/quickstart.py:debug", f"--workdir={tmp_path}"]
  )
  for stage in planned(command.config, tmp_path):
    stage.product.parent.mkdir(exist_ok=True)
    stage.product.write_text("{}")
  (tmp_path / "rollout" / "config.json").write_text("{}")
  return command, started, finished


def results(workdir, broken):
  (workdir / "rollout" / "results.json").write_text(json.dumps({"errors": broken}))


BROKEN = [{"task": "reach", "episode": 0, "seed": 0, "error": "unstable"}]


@pytest.mark.parametrize("broken, again", [([], False), (BROKEN, True)])
def test_a_rollout_is_finished_when_all_its_episodes_were_played(ready, tmp_path, broken, again):
  command, started, finished = ready
  results(tmp_path, broken)
  assert quickstart.run(command) == 0 and len(finished) == 1
  assert [(one.workdir.name, one.resume) for one in started] == [("rollout", True)] * again


def raise_a_user_error(command):
  raise errors.UserError("no such camera")


@pytest.mark.parametrize(
  "failing, code", [(lambda command: 1, 1), (raise_a_user_error, 2), (lambda command: 1 / 0, 1)]
)
def test_a_simulator_that_fails_costs_neither_the_server_nor_the_report(
  ready, tmp_path, monkeypatch, failing, code
):
  command, _, finished = ready
  results(tmp_path, BROKEN)
  monkeypatch.setattr(quickstart.tasks, "run", failing)
  assert quickstart.run(command) == code
  assert (
    f"exit code {code}" in finished[0]["skipped"]["rollout"] and "serve" in finished[0]["seconds"]
  )
  (tmp_path / "motion" / "weights").unlink()
  monkeypatch.setattr(quickstart.tasks, "run", lambda command: 3)
  # without a motion model there is nothing to report
  assert quickstart.run(command) == 3 and len(finished) == 1


def parsed(workdir, *words):
  return config_lib.parse(
    ["main", f"--config={ROOT}/configs/quickstart.py:debug", f"--workdir={workdir}", *words]
  )


def made(workdir, calls, *, failing=(), reason=""):
  """Three stages on paper; the second one may be left out, the last one is not needed."""

  def stage(name, **more):
    def run():
      calls.append(name)
      if name in failing:
        raise RuntimeError("broken")
      (workdir / name).mkdir(exist_ok=True)
      return 0

    return stages.Stage(name, workdir / name, run, **more)

  return lambda plan: [
    stage("one"),
    stage("two", skip=lambda: reason),
    stage("three", needed=False),
  ]


def test_stages_are_run_once_and_timed(tmp_path, monkeypatch, capsys):
  work, calls, finished, clock = tmp_path / "work", [], [], iter(range(100, 200, 5))
  monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: next(clock)))
  monkeypatch.setattr(
    quickstart, "finish", lambda workdir, **rest: finished.append((workdir, rest))
  )
  monkeypatch.setattr(plan.Plan, "stages", made(work, calls, failing=("three",), reason="why"))
  command = parsed(work)
  assert quickstart.run(command) == 1 and calls == ["one", "three"]
  out, err = capsys.readouterr()
  assert (
    out == "== one\n== two: left out: why\n== three\n"
    and err == "error: three: RuntimeError: broken\n"
  )
  assert finished == [
    (
      work,
      {
        "seconds": {"one": 5.0},
        "skipped": {
          "two": "why",
          "three": "it failed, see above (exit code 1); the same command tries again",
        },
      },
    )
  ]
  assert (work / "quickstart.json").read_text() == json.dumps(
    json.loads(config_lib.to_json(command.config)), indent=2
  )
  monkeypatch.setattr(plan.Plan, "stages", made(work, calls))
  (work / ".one-seconds").unlink()  # of an earlier version
  assert quickstart.run(command) == 0 and calls == ["one", "three", "two", "three"]
  assert finished[1][1] == {"seconds": {"one": 0.0, "two": 5.0, "three": 5.0}, "skipped": {}}
  assert capsys.readouterr().out == f"== one: done already ({work})\n== two\n== three\n"
  assert (
    quickstart.run(command) == 0
    and len(calls) == 4
    and finished[2][1] == {"seconds": {"one": 0.0, "two": 5.0, "three": 5.0}, "skipped": {}}
  )
  monkeypatch.setattr(plan.Plan, "stages", made(tmp_path / "new", calls, failing=("one",)))
  with pytest.raises(RuntimeError, match="broken"):
    quickstart.run(parsed(tmp_path / "new"))
  assert len(finished) == 3


def test_a_quickstart_never_deletes_and_goes_on_with_its_own_settings(tmp_path):
  with pytest.raises(errors.UserError) as caught:
    quickstart.run(parsed(tmp_path, "--overwrite"))
  assert (
    str(caught.value)
    == f"quickstart never deletes: remove {tmp_path} by hand, or give another --workdir"
  )
  (tmp_path / "quickstart.json").write_text(
    json.dumps({**json.loads(config_lib.to_json(parsed(tmp_path).config)), "steps": 9})
  )
  with pytest.raises(errors.UserError) as caught:
    quickstart.run(parsed(tmp_path))
  assert (
    str(caught.value) == f"{tmp_path} was started with steps=9, now it is 3: give another --workdir"
  )


def test_what_a_task_has_written_is_read_under_the_name_that_it_gives():
  assert (products.PROBE, products.EXAM) == (probe.METRICS, exam.METRICS)
  assert products.ROLLOUT == rollout.RESULTS
