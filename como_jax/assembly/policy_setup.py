"""What a policy's config comes to once its data have been read: its record, `policy.json`.

The config itself is never changed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors, models
from como_jax.assembly import policy_data, policy_start
from como_jax.assembly.policy_start import StartingPolicy
from como_jax.data import policy_facts, policy_layout, policy_spec
from como_jax.data.normalization import KEYS, MixtureStatistics
from como_jax.data.policy_facts import LatentMotion, RobotFacts
from como_jax.data.policy_spec import LatentMotionSpec, PolicySpec, RobotSpec
from como_jax.data.value_transforms import TwoValued, constants

AUTO = ("auto",)  # config.policy.gripper: as the data are


@dataclasses.dataclass(frozen=True)
class PolicySetup:
  """All that a policy's config and data decide.

  Attributes:
    data: opened.
    spec: the record of the policy.
    layout: what an example holds.
    start: the policy that training goes on from, or None.
  """

  data: policy_data.PolicyData
  spec: PolicySpec
  layout: policy_layout.Layout
  start: StartingPolicy | None


def setup(config, resumed: StartingPolicy | None = None) -> PolicySetup:
  """Opens the data and the policy to start from.

  Args:
    config: of the task.
    resumed: the run that goes on; it keeps its units whatever the data are now.

  Raises:
    errors.UserError: data or labels that do not fit together, the policy to start from, or the
      model.
  """
  data = policy_data.PolicyData(config)
  mixture, encode = data.mixture, data.encode
  start = resumed or policy_start.load(config.init)
  facts, latent = data.robots(), mixture.latent_motion()
  check_gripper(facts, tuple(config.policy.gripper))
  if start:
    policy_start.check(start, facts, latent, resize=mixture.resize())
  if resumed:
    policy_start.check_cameras(resumed, facts, num_cameras=len(mixture.slots))
  robots, latent_spec = _units(config.policy, data, facts, latent, start)
  model = _model_section(config.model.to_dict(), robots, len(mixture.slots), latent, start)
  model["language"].update(width=encode.width, num_tokens=encode.num_tokens)
  spec = PolicySpec(
    model=model,
    language=config.language.to_dict(),
    robots=robots,
    latent=latent_spec,
    resize=mixture.resize(),
    guidance_scale=float(config.policy.guidance_scale),
  )
  _check_model(config, spec)
  return PolicySetup(data, spec, _layout(config, spec, data.language), start)


def _units(
  settings,
  data: policy_data.PolicyData,
  facts: Mapping[str, RobotFacts],
  latent: LatentMotion | None,
  start: StartingPolicy | None,
) -> tuple[dict[str, RobotSpec], LatentMotionSpec | None]:
  """The records of all robots, and of the latent motion.

  A robot or latent motion that the policy to start from knows keeps its units.
  """
  known = dict(start.spec.robots) if start else {}
  latent_spec = start.spec.latent if start else None
  new = {name: robot for name, robot in facts.items() if name not in known}
  if latent and latent_spec and not latent_spec.latent_model:  # an older version did not say
    latent_spec = dataclasses.replace(
      latent_spec,
      latent_model=latent.latent_model,
      latent_offset_seconds=latent.latent_offset_seconds,
    )
  if new or (latent and not latent_spec):
    statistics = data.statistics()
    if new:
      statistics = with_grippers(statistics, new, tuple(settings.gripper))
    transforms = statistics.normalization(settings.normalization)
    if latent and not latent_spec and transforms.latent:
      latent_spec = LatentMotionSpec(
        latent.latent_model, latent.latent_offset_seconds, transforms.latent
      )
    for name, robot in new.items():
      known[name] = RobotSpec(
        action=robot.action,
        state=robot.state,
        action_names=policy_spec.action_names(robot.action_names, robot.action),
        cameras=robot.cameras,
        unused_cameras=robot.unused_cameras,
        step_seconds=robot.step_seconds,
        reduce=settings.reduce,
        instructions=robot.instructions,
        transforms=transforms.robots[name],
      )
  for name, robot in facts.items():
    changed = {key: getattr(robot, key) for key in ("cameras", "unused_cameras", "instructions")}
    known[name] = dataclasses.replace(known[name], reduce=settings.reduce, **changed)
  return dict(sorted(known.items())), latent_spec  # examples number the robots by name


def check_gripper(robots: Mapping[str, RobotFacts], names: tuple[str, ...]) -> None:
  """Refuses names in config.policy.gripper that are no action of any robot.

  Args:
    robots: of the data, also those that keep the units of a policy to start from.
    names: names or numbers of actions, or ("auto",).

  Raises:
    errors.UserError: with the nearest action.
  """
  if names == AUTO:
    return
  valid = {name for robot in robots.values() for name in _dimensions(robot)}
  for name in map(str, names):
    if name not in valid:
      raise errors.UserError(
        f"config.policy.gripper: no robot has an action {name!r}: {errors.nearest(name, valid)}"
      )


def _dimensions(robot: RobotFacts) -> dict[str, int]:
  """Name or number of an action -> its dimension."""
  numbers = {str(dim): dim for dim in range(robot.action)}
  return numbers | {str(name): dim for dim, name in enumerate(robot.action_names)}


def with_grippers(
  statistics: MixtureStatistics, robots: Mapping[str, RobotFacts], names: tuple[str, ...]
) -> MixtureStatistics:
  """The statistics with no other two-valued actions than config.policy.gripper names.

  Args:
    statistics: with those that the data have.
    robots: that are new to the policy.
    names: as `check_gripper` accepts them; ("auto",) takes those that the data have.

  Raises:
    errors.UserError: an action has more than two values.
  """
  if names == AUTO:
    return statistics
  changed = dict(statistics.robots)
  for robot, facts in robots.items():
    action, of_robot = statistics.robots[robot]["action"], _dimensions(facts)
    chosen = {name: of_robot[name] for name in map(str, names) if name in of_robot}
    for name, dim in chosen.items():
      if not action.two_valued[dim]:
        raise errors.UserError(
          f"config.policy.gripper: action {name!r} of robot {robot!r} has more values than two, "
          f"from {action.min[dim]:.6g} to {action.max[dim]:.6g}: leave it out"
        )
    binary = np.isin(np.arange(len(action.mean)), list(chosen.values()))
    action = dataclasses.replace(action, binary=binary)
    changed[robot] = {**statistics.robots[robot], "action": action}
  return dataclasses.replace(statistics, robots=changed)


def _model_section(
  section: dict[str, Any],
  robots: Mapping[str, RobotSpec],
  num_cameras: int,
  latent: LatentMotion | None,
  start: StartingPolicy | None,
) -> dict[str, Any]:
  """The section `models.build` takes: that of the config with the sizes of the data."""
  sizes = {name: {"action": robot.action, "state": robot.state} for name, robot in robots.items()}
  section.update(robots=sizes, num_cameras=num_cameras)
  if latent:
    section["latent"].update(num_queries=latent.num_queries, latent_dim=latent.latent_dim)
  elif start:
    old = start.spec.model["latent"]
    section["latent"].update(num_queries=old["num_queries"], latent_dim=old["latent_dim"])
  if section["policy"] == "gpt":
    section["gpt"]["gripper"] = _classified(section["gpt"], robots)
  return section


def _classified(gpt: Mapping[str, Any], robots: Mapping[str, RobotSpec]) -> dict[str, list[int]]:
  """The action dimensions that GPT classifies; a diffusion head denoises them like the others.

  Raises:
    errors.UserError: the config names them itself.
  """
  if gpt["gripper"]:
    raise errors.UserError(
      "config.model.gpt.gripper is filled from the data: name the dimensions in "
      "config.policy.gripper"
    )
  if gpt["action_head"] != "regression":
    return {}
  return {name: list(robot.two_valued) for name, robot in robots.items() if robot.two_valued}


def _check_model(config, spec: PolicySpec) -> None:
  """Refuses images and guidance that the model cannot take."""
  if config.data.image_size != spec.model["image_size"]:
    raise errors.UserError(
      f"config.data.image_size={config.data.image_size} is not "
      f"config.model.image_size={spec.model['image_size']}"
    )
  scale = config.policy.guidance_scale
  if scale != 1 and not models.build(dict(spec.model)).action_head.supports_guidance:
    raise errors.UserError(
      f"config.policy.guidance_scale={scale}: only policy=dit can be guided, "
      f"policy={spec.model['policy']} takes 1"
    )


def _layout(config, spec: PolicySpec, texts: policy_layout.Language) -> policy_layout.Layout:
  """What an example holds."""
  latent = spec.model["latent"]
  return policy_layout.Layout(
    normalization=spec.normalization,
    language=texts,
    robots={name: (robot.action, robot.state) for name, robot in spec.robots.items()},
    num_cameras=spec.model["num_cameras"],
    history=spec.model["history"],
    action_horizon=spec.model["action_horizon"],
    reduce=config.policy.reduce,
    motion_horizon=latent["motion_horizon"],
    latent_size=models.specs.LatentSpec(latent["num_queries"], latent["latent_dim"]).size,
    image_size=config.data.image_size,
    step_seconds=config.policy.step_seconds,
  )


def loss_weights(config, model: Any) -> dict[str, float]:
  """The weight of every term of the model's loss."""
  return {name: float(config.policy.objectives[name].weight) for name in model.terms}


def remarks(setup: PolicySetup) -> list[str]:
  """What the data hold and what the policy makes of it, a line each, for logs."""
  dimensions = describe_dimensions(setup.data.robots(), setup.spec.robots)
  return [f"data: {line}" for line in setup.data.mixture.describe() + dimensions]


def describe_dimensions(
  facts: Mapping[str, policy_facts.RobotFacts], robots: Mapping[str, RobotSpec]
) -> list[str]:
  """A line for each action or state that takes two values or never moves, for logs.

  Args:
    facts: of the robots of the data.
    robots: the records of these robots.
  """
  lines = []
  for name in sorted(facts):
    actions, states = (robots[name].transforms.get(key, ()) for key in KEYS)
    names = robots[name].action_names
    for transform in actions:
      if isinstance(transform, TwoValued):
        lines += [
          f"robot {name}: action {names[dim]} takes two values, {low:.6g} and {high:.6g}: it is "
          "served as one of them"
          for dim, low, high in zip(transform.dims, transform.low, transform.high, strict=True)
        ]
    lines += [
      f"robot {name}: action {names[dim]} never moves: it is served as its constant {value:.6g}"
      for dim, value in constants(actions).items()
    ]
    if still := [_state_name(facts[name].state_names, dim) for dim in constants(states)]:
      lines.append(
        f"robot {name}: state {', '.join(still)} never moves: the policy does not see it"
      )
  return lines


def _state_name(names: Sequence[str], dim: int) -> str:
  return names[dim] if dim < len(names) else f"state {dim}"
