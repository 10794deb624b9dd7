"""The options of a quickstart, as a config gives them."""

import dataclasses
import pathlib

import pytest

from como_jax import config as config_lib
from como_jax.quickstart import options as options_lib

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_every_option_is_that_of_the_config():
  words = ["--config.tasks=('push',)", "--config.labeled=3"]
  config = config_lib.parse(["main", f"--config={ROOT}/configs/quickstart.py", *words]).config
  options = options_lib.from_config(config)
  values = config.to_dict()
  del values["task"]
  assert dataclasses.asdict(options) == values
  assert options.tasks == ("push",) and options.labeled == 3
  with pytest.raises(dataclasses.FrozenInstanceError):
    options.steps = 3
