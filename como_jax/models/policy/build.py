"""Builds a policy from its section of a config.

Legend: K action horizon, M motion horizon.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from como_jax import errors
from como_jax.models import config_utils, protocols, specs, transformer
from como_jax.models.backbones import mae_vit
from como_jax.models.policy import diffusion, dit, gpt, network, outputs, policy, projections, trunk
from como_jax.models.policy.projections import LATENT

KEYS = (
  "policy",
  "history",
  "num_cameras",
  "pool",
  "language",
  "robots",
  "action_horizon",
  "latent",
  "language_dropout",
  "trunk",
)
# settings of `gpt.GPT`: their values where the section does not say, and the names of those that
# are names
GPT_SETTINGS = {
  "tokens": "query",
  "prefix": "causal",
  "position": "learned",
  "motion_dropout": 0.5,
  "inference": "hidden",
  "action_weight": 1.0,
  "gripper": {},
}
GPT_CHOICES = {
  "prefix": ("causal", "bidirectional"),
  "position": ("learned", "none"),
  "inference": ("hidden", "decoded"),
  "tokens": ("query", "motion"),
}


@dataclasses.dataclass(frozen=True)
class HeadSpec:
  """What an action head is built for, whatever its kind is.

  Attributes:
    robots: {name: {"action": dims, "state": dims}}.
    action_horizon: K.
    motion_horizon: M.
    latent: the shape of a motion.
    trunk_width: of the context tokens, and of the tokens of states.
    stack: fields of `StackConfig` that the head's section does not hold.
  """

  robots: Mapping[str, Mapping[str, int]]
  action_horizon: int
  motion_horizon: int
  latent: specs.LatentSpec
  trunk_width: int
  stack: config_utils.StackFields


def policy_model(
  config: dict[str, Any], encoder: mae_vit.Encoder, common: dict[str, Any]
) -> policy.PolicyModel:
  """The record from a model section whose keys were checked (see `models.build`).

  Args:
    config: the model section.
    encoder: of images.
    common: the fields that every transformer of the model shares.

  Raises:
    errors.UserError: naming the first key or value that is invalid.
  """
  kind = config["policy"]
  build_head = config_utils.lookup(ACTION_HEADS, kind, "model.policy")
  config_utils.check(config["language"], "model.language", required=("width", "num_tokens"))
  config_utils.check(
    config["latent"], "model.latent", required=("num_queries", "latent_dim", "motion_horizon")
  )
  robots, section = projections.check(config["robots"]), config["latent"]
  _check_sizes(config)
  stack = config_utils.StackFields(common, {"epsilon": 1e-6, "initializer": "mae"})
  mixer = trunk.check(
    config_utils.instantiate(
      trunk.Trunk,
      config["trunk"],
      "model.trunk",
      stack=stack,
      grid=encoder.grid,
      history=config["history"],
      num_cameras=config["num_cameras"],
      num_tokens=config["language"]["num_tokens"],
      pool=config["pool"],
    )
  )
  spec = HeadSpec(
    robots=robots,
    action_horizon=config["action_horizon"],
    motion_horizon=section["motion_horizon"],
    latent=specs.LatentSpec(section["num_queries"], section["latent_dim"]),
    trunk_width=mixer.stack.width,
    stack=stack,
  )
  return policy.PolicyModel(
    config,
    encoder,
    mixer,
    kind,
    build_head(config[kind], spec),
    action_horizon=spec.action_horizon,
    motion_horizon=spec.motion_horizon,
    latent=spec.latent,
    state_size=max(sizes["state"] for sizes in robots.values()),
    action_size=max(sizes["action"] for sizes in robots.values()),
    language_width=config["language"]["width"],
    language_dropout=config["language_dropout"],
  )


def _check_sizes(config: dict[str, Any]) -> None:
  """Refuses sizes below 1, and a dropout of all instructions."""
  for name, value in (
    ("action_horizon", config["action_horizon"]),
    *((f"latent.{key}", value) for key, value in config["latent"].items()),
    ("language.width", config["language"]["width"]),
  ):
    if value < 1:
      raise errors.UserError(f"model.{name} {value} must be at least 1")
  if not 0 <= config["language_dropout"] < 1:
    raise errors.UserError(
      f"model.language_dropout {config['language_dropout']} must be at least 0 and below 1"
    )


def dit_head(section: dict[str, Any], spec: HeadSpec) -> dit.DiT:
  """The action head from the section model.dit.

  Args:
    section: the denoiser's settings, "objective", "flow", "ddpm" and "num_sampling_steps".
    spec: what the head is built for.

  Raises:
    errors.UserError: an unknown or missing key, or a value that cannot be.
  """
  where, section = "model.dit", dict(section)
  objective, num_sampling_steps = diffusion.build(section, where)
  denoiser = config_utils.instantiate(
    dit.Denoiser,
    section,
    where,
    stack=spec.stack,
    action_horizon=spec.action_horizon,
    motion_horizon=spec.motion_horizon,
  )
  width, num_heads = denoiser.stack.width, denoiser.stack.num_heads
  if width % num_heads:
    raise errors.UserError(f"{where}.width {width} is not a multiple of num_heads {num_heads}")
  config_utils.lookup(transformer.INITIALIZERS, denoiser.stack.initializer, f"{where}.initializer")
  shapes = {
    name: {"encode": (sizes["action"], width), "decode": (width, sizes["action"])}
    for name, sizes in spec.robots.items()
  }
  shapes = _with_states(shapes, spec)
  shapes[LATENT] = {"encode": (spec.latent.size, width), "decode": (width, spec.latent.size)}
  layers = projections.EmbodimentProjections(shapes, tuple(shapes), denoiser.stack.dtype)
  return dit.DiT(dit.ContextKV(denoiser.stack), denoiser, objective, layers, num_sampling_steps)


def gpt_head(section: dict[str, Any], spec: HeadSpec) -> gpt.GPT:
  """The action head from the section model.gpt.

  Args:
    section: fields of `Network`, the settings of `gpt.GPT`, and those that `outputs.build` takes.
    spec: what the head is built for.

  Raises:
    errors.UserError: an unknown or missing key, or a value that cannot be.
  """
  where, section = "model.gpt", dict(section)
  settings = {name: section.pop(name, default) for name, default in GPT_SETTINGS.items()}
  for name, valid in GPT_CHOICES.items():
    config_utils.choice(valid, settings[name], f"{where}.{name}")
  objective, num_sampling_steps = diffusion.build(section, where)
  motion, action = outputs.build(section, where, objective)
  body = config_utils.instantiate(network.Network, section, where, stack=spec.stack)
  width, num_heads = body.stack.width, body.stack.num_heads
  config_utils.lookup(transformer.ACTIVATIONS, body.activation, f"{where}.activation")
  config_utils.lookup(transformer.INITIALIZERS, body.stack.initializer, f"{where}.initializer")
  if width != spec.trunk_width or width % num_heads:
    raise errors.UserError(
      f"{where}.width {width} must be model.trunk.width {spec.trunk_width} and a multiple of "
      f"num_heads {num_heads}"
    )
  valid_dropout = 0 <= settings["motion_dropout"] <= 1
  if not valid_dropout or settings["action_weight"] < 0 or body.stack.depth < 1:
    raise errors.UserError(
      f"{where}: depth must be at least 1, motion_dropout between 0 and 1, action_weight not "
      "negative"
    )
  as_one_token = settings.pop("tokens") == "motion"
  latent = specs.LatentSpec(1, spec.latent.size) if as_one_token else spec.latent
  dims, robots = latent.latent_dim, spec.robots
  shapes = {name: action.layers(width, sizes["action"]) for name, sizes in robots.items()}
  shapes = _with_states(shapes, spec)
  shapes[LATENT] = {"encode": (dims, width), **motion.layers(width, dims)}
  zero = (*(robots if action.zero else ()), *((LATENT,) if motion.zero else ()))
  settings["gripper"] = _gripper(settings["gripper"], robots, action)
  return gpt.GPT(
    body,
    projections.EmbodimentProjections(shapes, zero, body.stack.dtype),
    motion,
    action,
    spec.action_horizon,
    spec.motion_horizon,
    latent,
    num_sampling_steps=num_sampling_steps,
    **settings,
  )


def _with_states(
  shapes: Mapping[str, dict[str, tuple[int, int]]], spec: HeadSpec
) -> dict[str, dict[str, tuple[int, int]]]:
  """The shapes of the robots' layers, with the layer "state" of those that have a state."""
  complete = {name: dict(layers) for name, layers in shapes.items()}
  for name, sizes in spec.robots.items():
    if sizes["state"]:
      complete[name]["state"] = (sizes["state"], spec.trunk_width)
  return complete


def _gripper(
  section: Mapping[str, Any], robots: Mapping[str, Any], action: protocols.OutputHead
) -> dict[str, tuple[int, ...]]:
  """`GPT.gripper` from the section model.gpt.gripper."""
  for name, dims in section.items():
    where = f"model.gpt.gripper.{name}"
    if name not in robots:
      raise errors.UserError(f"{where}: no such robot; {errors.nearest(name, robots)}")
    if any(not 0 <= dim < robots[name]["action"] for dim in dims) or not isinstance(
      action, outputs.Regression
    ):
      raise errors.UserError(
        f"{where} {list(dims)}: dims must be below {robots[name]['action']}, and action_head "
        "'regression'"
      )
  return {name: tuple(dims) for name, dims in section.items()}


ACTION_HEADS: dict[str, Callable[[dict[str, Any], HeadSpec], protocols.ActionHead]] = {
  "dit": dit_head,
  "gpt": gpt_head,
}
