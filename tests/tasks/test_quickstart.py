"""Which stages of a quickstart run again on the next start. The whole way: tests/end_to_end/test_readme.py."""

import json
import pathlib

import pytest

from como_jax import config as config_lib
from como_jax.tasks import quickstart

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.mark.parametrize("errors, again", [([], False), ([{"task": "reach", "episode": 0, "seed": 0, "error": "unstable"}], True)])
def test_a_rollout_is_finished_when_all_its_episodes_were_played(tmp_path, monkeypatch, errors, again):
  started, finished = [], []
  monkeypatch.setattr(quickstart.tasks, "run", lambda command: started.append(command) or 0)
  monkeypatch.setattr(quickstart.sim, "load", lambda name: None)
  monkeypatch.setattr(quickstart.rendering, "choose_backend", lambda: None)
  monkeypatch.setattr(quickstart.quickstart_report, "finish", lambda workdir, **unused: finished.append(workdir))
  command = config_lib.parse(["main", f"--config={ROOT}/configs/quickstart.py:debug", f"--workdir={tmp_path}"])
  for stage in quickstart.stages(command.config, tmp_path):
    stage.product.parent.mkdir(exist_ok=True)
    stage.product.write_text("{}")
  (tmp_path / "rollout" / "config.json").write_text("{}")
  (tmp_path / "rollout" / "results.json").write_text(json.dumps({"errors": errors}))
  assert quickstart.run(command) == 0 and finished == [tmp_path]
  assert [(one.workdir.name, one.resume) for one in started] == [("rollout", True)] * again
