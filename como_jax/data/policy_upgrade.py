"""The record of a policy that has no `policy.json` of today: the config of its run has it all."""

from collections.abc import Mapping
from typing import Any

from como_jax.data import normalization, policy_spec


def from_config(config: Mapping[str, Any]) -> policy_spec.PolicySpec:
  """The record of a policy, from the config of its run.

  Args:
    config: of an older version, with today's keys, see `settings.renames.upgrade`.

  Raises:
    errors.UserError: it holds no normalization of a policy.
  """
  settings = config["policy"]
  mode, statistics = normalization.from_json(config["normalization"])
  transforms = statistics.normalization(mode)
  robots = {}
  for name, facts in config["robots"].items():
    sizes = config["model"]["robots"][name]
    robots[name] = policy_spec.RobotSpec(
      action=int(sizes["action"]),
      state=int(sizes["state"]),
      action_names=policy_spec.action_names(facts["action_names"], int(sizes["action"])),
      cameras=tuple(facts.get("cameras", settings["cameras"])),
      unused_cameras=tuple(facts.get("unused_cameras", ())),
      step_seconds=float(facts["step_seconds"]),
      reduce=settings.get("reduce", "mean"),
      instructions=dict(facts.get("instructions", {"count": 0, "empty": True, "examples": []})),
      transforms=transforms.robots[name],
    )
  latent = None
  if transforms.latent is not None:
    latent = policy_spec.LatentMotionSpec(
      settings.get("latent_model", ""),
      float(settings.get("latent_offset_seconds", 0.0)),
      transforms.latent,
    )
  return policy_spec.PolicySpec(
    model=dict(config["model"]),
    language=dict(config["language"]),
    robots=robots,
    latent=latent,
    resize=settings.get("resize", "squash"),
    guidance_scale=float(settings.get("guidance_scale", 1.0)),
  )
