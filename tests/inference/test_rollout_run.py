"""What a rollout is made of: the simulator as it is asked for, and the policy of a checkpoint."""

import dataclasses

import pytest

from como_jax import config as config_lib
from como_jax import errors, sim
from como_jax.inference import rollout_options, rollout_run
from tests.refusals import text_of
from tests.sim import toys
from tests.sim.toy_policy import Fake
from tests.tasks.toy_rollout import ROOT, command


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  monkeypatch.setitem(sim.SIMULATORS, "toy", lambda: toys)


def options_of(**changes):
  return dataclasses.replace(rollout_options.from_config(command("w").config), **changes)


def test_further_arguments_of_a_simulator():
  words = [
    f"--config={ROOT}/configs/rollout.py:libero",
    "--config.simulator=toy",
    "--config.build.limits=openpi",
  ]
  config = config_lib.parse(["main", *words]).config
  config.tasks = ()
  with pytest.raises(errors.UserError, match="config.build: toy has no 'initial'"):
    rollout_run.prepare(rollout_options.from_config(config), policy=Fake())
  with config.ignore_type(), config.unlocked():
    config.build, config.tasks, config.cameras = {"speed": 2.0}, ("line",), ("side",)
  rollout = rollout_run.prepare(rollout_options.from_config(config), policy=Fake())
  assert rollout.build.keywords == {"speed": 2.0}


def test_a_checkpoint_is_loaded_as_the_config_says(monkeypatch):
  from como_jax.serve import policy as serving

  asked = []
  monkeypatch.setattr(
    serving.Policy, "load", lambda path, **settings: asked.append((path, settings)) or "POLICY"
  )
  options = dict(robot="arm", num_sampling_steps=7, guidance_scale=2.0)
  asked_for = options_of(checkpoint="C", workers=3, **options)
  assert rollout_run.load_policy(asked_for) == "POLICY" and asked == [
    ("C", {**options, "batch_size": 3})
  ]
  assert text_of(lambda: rollout_run.load_policy(options_of())) == (
    "config.checkpoint is empty: give the run directory or weights folder of a policy, or another "
    "config.policy (expert, random, zero)"
  )
