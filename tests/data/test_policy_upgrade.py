"""The record of a policy from the config of its run."""

from como_jax.data import policy_upgrade
from tests.data.policy_configs import config


def test_what_it_says_of_a_robot():
  spec = policy_upgrade.from_config(config())
  robot = spec.robots["arm"]
  assert (spec.guidance_scale, spec.resize) == (2.0, "crop")
  assert (spec.latent.latent_model, spec.latent.latent_offset_seconds) == ("aa", 0.0)
  assert robot.two_valued == (2,)
  assert [one.name for one in robot.transforms["action"]] == ["affine", "constant", "two_valued"]
  assert [one.name for one in robot.transforms["state"]] == ["affine", "constant"]
