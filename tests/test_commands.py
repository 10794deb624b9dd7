"""The table of commands."""

import pathlib

from como_jax import commands, tasks
from como_jax import config as config_lib


def test_every_task_has_a_module_and_a_config():
  configs = {path.stem for path in config_lib.CONFIGS.glob("*.py")}
  assert set(commands.named("task")) == configs == set(tasks.TASKS)
  folder = pathlib.Path(tasks.__file__).parent
  assert all((folder / f"{name}.py").is_file() for name in tasks.TASKS)
  assert tasks.MULTI_PROCESS_TASKS == ("mae", "motion", "policy", "extract")
