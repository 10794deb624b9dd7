"""Which stages of a quickstart run again on the next start. The whole way: tests/end_to_end/test_readme.py."""

import json
import pathlib

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.tasks import quickstart

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def ready(tmp_path, monkeypatch):
  """A quickstart whose stages all left something: (command, commands that were run, arguments of the report)."""
  started, finished = [], []
  monkeypatch.setattr(quickstart.tasks, "run", lambda command: started.append(command) or 0)
  monkeypatch.setattr(quickstart.sim, "load", lambda name: None)
  monkeypatch.setattr(quickstart.rendering, "choose_backend", lambda: None)
  monkeypatch.setattr(quickstart.quickstart_report, "finish", lambda workdir, **rest: finished.append(rest))
  command = config_lib.parse(["main", f"--config={ROOT}/configs/quickstart.py:debug", f"--workdir={tmp_path}"])
  for stage in quickstart.stages(command.config, tmp_path):
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


@pytest.mark.parametrize("failing, code", [(lambda command: 1, 1), (raise_a_user_error, 2), (lambda command: 1 / 0, 1)])
def test_a_simulator_that_fails_costs_neither_the_server_nor_the_report(ready, tmp_path, monkeypatch, failing, code):
  command, _, finished = ready
  results(tmp_path, BROKEN)
  monkeypatch.setattr(quickstart.tasks, "run", failing)
  assert quickstart.run(command) == code
  assert f"exit code {code}" in finished[0]["skipped"]["rollout"] and "serve" in finished[0]["seconds"]
  (tmp_path / "motion" / "weights").unlink()
  monkeypatch.setattr(quickstart.tasks, "run", lambda command: 3)
  assert quickstart.run(command) == 3 and len(finished) == 1  # without a motion model there is nothing to report


@pytest.mark.parametrize("variant, source, cached", [("", "bundled", True), (":debug", "bundled", False), ("", "elsewhere", False)])
def test_tokens_are_kept_where_they_are_few_and_come_again(tmp_path, monkeypatch, variant, source, cached):
  monkeypatch.setattr(quickstart, "camera", lambda config, data: "front")
  config = config_lib.parse(["main", f"--config={ROOT}/configs/quickstart.py{variant}", f"--config.source={source}", f"--workdir={tmp_path}"]).config
  words = quickstart.policy_words(config, *(tmp_path / name for name in ("shards", "motion", "labels")))
  assert ("--config.policy.cache_tokens=True" in words) == ("--config.data.augment.shift.on=False" in words) == cached
