"""A policy to start from."""

import dataclasses

from como_jax.assembly import policy_start
from como_jax.data import policy_facts, policy_spec
from tests.tasks.columns import ROWS, units

ARM = policy_facts.RobotFacts(
  action=3,
  state=3,
  action_names=("x", "grip", "y"),
  state_names=(),
  step_seconds=0.1,
  cameras=("front",),
  unused_cameras=("top",),
  instructions={"count": 1, "empty": False, "examples": ["go"]},
)


def started(**changes):
  """A policy that knows the arm, in units of its own, and another robot."""
  numbers = units(arm=ROWS * 2, old=ROWS[:, :2]).normalization("standard")
  arm = policy_spec.RobotSpec(
    action=3,
    state=3,
    action_names=ARM.action_names,
    cameras=("other",),
    unused_cameras=(),
    step_seconds=0.1,
    reduce="mean",
    instructions={"count": 0, "empty": True, "examples": []},
    transforms=numbers.robots["arm"],
  )
  old = dataclasses.replace(
    arm, action=2, state=2, action_names=("x", "grip"), transforms=numbers.robots["old"]
  )
  latent = {"num_queries": 3, "latent_dim": 2, "motion_horizon": 99}
  values = dict(
    model={"policy": "dit", "latent": latent},
    language={},
    robots={"arm": arm, "old": old},
    latent=policy_spec.LatentMotionSpec("aa", 0.5, ("UNITS",)),
    resize="squash",
    guidance_scale=1.0,
  )
  spec = policy_spec.PolicySpec(**{**values, **changes})
  return policy_start.StartingPolicy("the policy 'INIT' to start from", spec, {})
