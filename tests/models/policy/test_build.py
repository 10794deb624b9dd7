"""Settings of policies that cannot be are named; those at their limits are built."""

import pytest

from como_jax import errors, models
from tests.models.policy import small

DDPM = {"dit.objective": "ddpm", "dit.ddpm": {"num_train_timesteps": 10}}


@pytest.mark.parametrize(
  "base, changes, message",
  [
    (small.DIT, {"pool": 0}, "^model.pool 0 does not divide the 2 patches"),
    (small.DIT, {"pool": 1}, None),
    (small.DIT, {"trunk.num_heads": 16}, None),
    (small.DIT, {"history": 0}, "^model.history 0 must be at least 1$"),
    (small.DIT, {"num_cameras": 0}, "^model.num_cameras 0 must"),
    (small.DIT, {"num_cameras": 1}, None),
    (small.DIT, {"language.num_tokens": 0}, "^model.language.num_tokens 0 must"),
    (small.DIT, {"language.width": 0}, "^model.language.width 0 must"),
    (small.DIT, {"latent.num_queries": 0}, "^model.latent.num_queries 0 must"),
    (small.DIT, {"latent.motion_horizon": 0}, "^model.latent.motion_horizon 0 must"),
    (small.DIT, {"action_horizon": 1}, None),
    (small.DIT, {"latent.latent_dim": 1}, None),
    (
      small.DIT,
      {"language_dropout": -0.1},
      "^model.language_dropout -0.1 must be at least 0 and below 1$",
    ),
    (small.DIT, {"language_dropout": 0.99}, None),
    (small.DIT, {"trunk.initializer": "mea"}, "^model.trunk.initializer is 'mea'"),
    (small.DIT, {"dit.initializer": "mea"}, "^model.dit.initializer is 'mea'"),
    (small.DIT, {"dit.num_heads": 5}, "^model.dit.width 24 is not a multiple of num_heads 5$"),
    (
      small.DIT,
      {"robots": {"a/b": {"action": 1, "state": 0}}},
      "^model.robots.a/b: a robot's name cannot be empty, contain '/' or be 'latent'$",
    ),
    (small.DIT, {"robots": {"": {"action": 1, "state": 0}}}, "^model.robots.: a robot's name"),
    (
      small.DIT,
      {"robots": {"a": {"action": 0, "state": 0}}},
      "^model.robots.a: action 0 must be at least 1 and state 0 at least 0$",
    ),
    (
      small.DIT,
      {"robots": {"a": {"action": 1, "state": -1}}},
      "^model.robots.a: action 1 must be at least 1 and state -1",
    ),
    (small.DIT, {"robots": {"a": {"action": 1, "state": 0}}}, None),
    (small.DIT, {"dit.num_sampling_steps": 1}, None),
    (small.DIT, {"dit.num_sampling_steps": 10, **DDPM}, None),
    (small.DIT, {"gpt": {"anything": 1}}, None),
    (
      small.DIT,
      {"dit.objective": "ddpm", "dit.num_sampling_steps": 0},
      "^model.dit.num_sampling_steps 0 must be at least 1$",
    ),
    *(
      (small.GPT, {f"gpt.{name}": "other"}, f"^model.gpt.{name} is 'other'")
      for name in (
        "prefix",
        "position",
        "inference",
        "tokens",
        "loss",
        "motion_head",
        "action_head",
        "objective",
        "activation",
        "initializer",
      )
    ),
    (
      small.GPT,
      {"gpt.num_heads": 3},
      "^model.gpt.width 16 must be model.trunk.width 16 and a multiple of num_heads 3$",
    ),
    (small.GPT, {"gpt.motion_dropout": 1.1}, "motion_dropout between 0 and 1"),
    (small.GPT, {"gpt.motion_dropout": -0.1}, "motion_dropout between"),
    (small.GPT, {"gpt.motion_dropout": 1}, None),
    (small.GPT, {"gpt.motion_dropout": 0}, None),
    (small.GPT, {"gpt.action_weight": -1}, "action_weight not negative$"),
    (small.GPT, {"gpt.action_weight": 0}, None),
    (small.GPT, {"gpt.depth": 0}, "^model.gpt: depth must be at least 1"),
    (small.GPT, {"gpt.depth": 1}, None),
    (small.GPT, {"gpt.action_head": "gmm"}, "^model.gpt.action_head is 'gmm'"),
    (
      small.GPT,
      {"gpt.gripper": {"arm": [-1]}},
      "^model.gpt.gripper.arm .-1.: dims must be below 3",
    ),
    (small.GPT, {"gpt.gripper": {"arm": [0, 2]}}, None),
    (
      small.GPT,
      {"gpt.gripper": {"arm": [0]}, "gpt.action_head": "diffusion"},
      "and action_head 'regression'$",
    ),
    (
      small.GPT,
      {"gpt.mixture": {"components": 0}},
      "mixture.components and denoiser's width and depth must be at least 1",
    ),
    (small.GPT, {"gpt.mixture": {"components": 1}}, None),
    (small.GPT, {"gpt.mixture": {"temperature": -1}}, "temperature not negative$"),
    (small.GPT, {"gpt.mixture": {"temperature": 0}}, None),
    (small.GPT, {"gpt.denoiser": {"width": 0}}, "must be at least 1"),
    (small.GPT, {"gpt.denoiser": {"width": 1, "depth": 1}}, None),
    (small.GPT, {"gpt.denoiser": {"height": 1}}, "^unknown key model.gpt.denoiser.height"),
  ],
)
def test_configs_at_their_limits(base, changes, message):
  if message is None:
    models.build(small.section(base, **changes))
    return
  with pytest.raises(errors.UserError, match=message):
    models.build(small.section(base, **changes))


@pytest.mark.parametrize(
  "changes, text",
  [
    ({"policy": "dti"}, "'dit'"),
    ({"pool": 3}, "model.pool 3"),
    ({"robots": {}}, "model.robots is empty"),
    ({"robots": {"latent": {"action": 1, "state": 1}}}, "model.robots.latent"),
    ({"robots": {"arm": {"action": 1, "stat": 1}}}, "'state'"),
    ({"dit.objective": "flwo"}, "'flow'"),
    ({"dit.flow": {"time": "betta"}}, "'beta'"),
    ({"dit.ddpm": {"num_train_timesteps": 1}}, "model.dit.ddpm"),
    ({"dit.num_sampling_steps": 0}, "model.dit.num_sampling_steps"),
    (
      {
        "dit.objective": "ddpm",
        "dit.num_sampling_steps": 11,
        "dit.ddpm": {"num_train_timesteps": 10},
      },
      "model.dit.num_sampling_steps 11 .* at most model.dit.ddpm.num_train_timesteps 10",
    ),
    ({"dit.widht": 3}, "'width'"),
    ({"trunk.num_heads": 3}, "model.trunk.width 16"),
    ({"language_dropout": 1.0}, "language_dropout"),
    ({"action_horizon": 0}, "model.action_horizon"),
    ({"latent.latent_dimz": 3}, "'latent_dim'"),
  ],
)
def test_bad_settings_are_named(changes, text):
  with pytest.raises(errors.UserError, match=text):
    models.build(small.section(small.DIT, **changes))


@pytest.mark.parametrize(
  "changes, text",
  [
    ({"gpt.width": 32}, "model.gpt.width 32"),
    ({"gpt.motion_head": "gm"}, "'gmm'"),
    ({"gpt.prefix": "casual"}, "'causal'"),
    ({"gpt.num_sampling_steps": 0}, "model.gpt.num_sampling_steps"),
    ({"gpt.gripper": {"arm": [3]}}, "model.gpt.gripper.arm"),
    ({"gpt.gripper": {"army": [0]}}, "'arm'"),
    ({"gpt.mixture": {"component": 3}}, "'components'"),
  ],
)
def test_bad_settings_of_gpt_are_named(changes, text):
  with pytest.raises(errors.UserError, match=text):
    models.build(small.section(small.GPT, **changes))
