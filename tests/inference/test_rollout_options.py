"""The options of a rollout, as a config gives them."""

import dataclasses

import pytest

from como_jax.inference import rollout_options
from tests.refusals import text_of
from tests.tasks.toy_rollout import command


def test_every_option_is_that_of_the_config():
  config = command("w", cameras=("side",), num_sampling_steps=7, step_seconds=0.2).config
  options = rollout_options.from_config(config)
  values = config.to_dict()
  del values["task"]
  assert dataclasses.asdict(options) == values
  assert (options.tasks, options.cameras, options.guidance_scale) == (("line",), ("side",), None)
  with pytest.raises(dataclasses.FrozenInstanceError):
    options.seed = 3


def test_what_the_config_alone_shows_to_be_wrong():
  config = command("w", policy="expert").config
  rollout_options.from_config(config)
  config.checkpoint = "C"
  assert (
    text_of(lambda: rollout_options.from_config(config))
    == "config.policy='expert' does not use config.checkpoint: leave one of them out"
  )
  config.policy = "checkpoint"
  rollout_options.from_config(config)
  config.policy = "checkpont"
  assert text_of(lambda: rollout_options.from_config(config)) == (
    "config.policy='checkpont' is unknown: did you mean 'checkpoint'? (valid: checkpoint, "
    "expert, random, zero)"
  )
