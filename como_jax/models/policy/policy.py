"""The policy model: frozen image encoder, shared trunk and an action head (DiT or GPT).

Legend: B batch, T frames of history, C camera slots, H W image, L language tokens, E their width, S
state dims, A action dims (of the widest robot), K action horizon, M motion horizon, Z size of a
motion.

Source: CoMo, arXiv 2505.17006: one policy is trained on robots' actions and on the latent motion of
videos together.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax.linen import spmd

from como_jax import errors
from como_jax.models import modules, pixels, protocols, specs
from como_jax.models.backbones import mae_vit
from como_jax.models.modules import Params
from como_jax.models.policy import trunk as trunk_lib
from como_jax.models.policy.projections import LATENT

Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class PolicyModel:
  """The record that a task works with; see `models.build`.

  Actions, states and latents are normalized.

  Attributes:
    config: the model section it was built from.
    encoder: of images, frozen.
    trunk: encodes an observation into context tokens.
    kind: "dit" or "gpt", the name of the action head's parameters.
    action_head: from context tokens to actions and motions.
    action_horizon: K.
    motion_horizon: M.
    latent: the shape of a motion; its `size` is Z.
    state_size: S.
    action_size: A.
    language_width: E.
    language_dropout: probability that an example's instruction is dropped in training.
    frozen: patterns of parameter names that are not trained unless the config says otherwise.
  """

  config: dict[str, Any]
  encoder: mae_vit.Encoder
  trunk: trunk_lib.Trunk
  kind: str
  action_head: protocols.ActionHead
  action_horizon: int
  motion_horizon: int
  latent: specs.LatentSpec
  state_size: int
  action_size: int
  language_width: int
  language_dropout: float
  frozen: tuple[str, ...] = (r"encoder/.*",)

  @property
  def robots(self) -> tuple[str, ...]:
    """Names of the robots; `batch["robot"]` is an index into them."""
    return self.action_head.projections.robots

  @property
  def image_size(self) -> int:
    """H = W."""
    return self.encoder.image_size

  @property
  def terms(self) -> tuple[str, ...]:
    """Names of the terms that `losses` returns."""
    gripper = ("gripper",) if getattr(self.action_head, "gripper", None) else ()
    return ("action", "latent", *gripper)

  def inputs_spec(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What `losses` reads, for `batch_size` examples.

    Sampling needs neither "actions" nor "latents" nor their masks.
    """
    size, views = self.image_size, (self.trunk.history, self.trunk.num_cameras)
    spec = {
      "images": ((*views, size, size, 3), jnp.uint8),
      "images_mask": (views[1:], bool),
      "state": ((self.state_size,), jnp.float32),
      "state_mask": ((), bool),
      "robot": ((), jnp.int32),
      "language": ((self.trunk.num_tokens, self.language_width), jnp.float32),
      "language_mask": ((self.trunk.num_tokens,), bool),
      "actions": ((self.action_horizon, self.action_size), jnp.float32),
      "actions_mask": ((self.action_horizon, self.action_size), bool),
      "latents": ((self.motion_horizon, self.latent.size), jnp.float32),
      "latents_mask": ((self.motion_horizon,), bool),
    }
    return {
      name: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
      for name, (shape, dtype) in spec.items()
    }

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh float32 parameters, drawn with `key`.

    Returns:
      {"encoder", "trunk", "dit" or "gpt", "heads": {robot: {...}, "latent": {...}}}.
    """
    keys, mixer, width = jax.random.split(key, 4), self.trunk, self.trunk.stack.width
    # Zeros of the right shapes everywhere: no part runs on the output of another part.
    images = jnp.zeros((1, mixer.history, mixer.num_cameras, mixer.grid**2 + 1, self.encoder.width))
    inputs = (
      images,
      jnp.ones((1, mixer.num_cameras), bool),
      jnp.zeros((1, mixer.num_tokens, self.language_width)),
      jnp.ones((1, mixer.num_tokens), bool),
      jnp.zeros((1, width)),
      jnp.ones((1,), bool),
    )
    context = trunk_lib.Context(jnp.zeros((1, mixer.size, width)), jnp.ones((1, mixer.size), bool))
    return {
      "encoder": self.encoder.init(keys[0], jnp.zeros((1, self.image_size, self.image_size, 3)))[
        "params"
      ],
      "trunk": mixer.init(keys[1], *inputs)["params"],
      self.kind: self.action_head.init(keys[2], context),
      "heads": self.action_head.projections.init(keys[3]),
    }

  def losses(
    self, params: Params, batch: Batch, key: jax.Array
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The terms of the loss, each (sum over valid elements, number of them), float32 scalars.

    Args:
      params: as from `init`.
      batch: as `inputs_spec`; values beyond a mask do not matter. "tokens", as from
        `encode_images`, may replace "images".
      key: drops instructions, and draws the action head's noise.

    Returns:
      One for each of `terms`: "action" and "latent", and "gripper" where GPT classifies it.
    """
    chex.assert_shape(batch["actions"], (None, self.action_horizon, self.action_size))
    chex.assert_shape(batch["latents"], (None, self.motion_horizon, self.latent.size))
    drop_key, head_key = jax.random.split(key)
    language_mask = trunk_lib.drop_language(drop_key, batch["language_mask"], self.language_dropout)
    batch = {**batch, "language_mask": language_mask}
    context = self._context(params, batch, self._images(params, batch), batch["robot"])
    return self.action_head.losses(params[self.kind], params["heads"], context, batch, head_key)

  def sample(
    self,
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    robot: str,
    num_sampling_steps: int | None = None,
    guidance_scale: float = 1.0,
  ) -> jax.Array:
    """Samples chunks of actions of one robot.

    Args:
      params: as from `init`.
      batch: an observation for each example; "robot" is not read.
      key: of the sampler's noise; the same key gives the same actions.
      robot: name of the robot.
      num_sampling_steps: of the sampler; None for the configured number. GPT needs it only for
        diffusion heads.
      guidance_scale: weight of the instruction; 1 = no guidance, which also halves the work.

    Returns:
      float32 [B, K, A of the robot].

    Raises:
      errors.UserError: no such robot; fewer than one step; guidance of a policy that does not
        support it.
    """
    if robot not in self.robots:
      raise errors.UserError(
        f"the policy knows no robot {robot!r}: {errors.nearest(robot, self.robots)}"
      )
    options = specs.SampleOptions("action", robot, num_sampling_steps, guidance_scale)
    return self._sample(params, batch, key, options)

  def sample_latents(
    self,
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    num_sampling_steps: int | None = None,
    guidance_scale: float = 1.0,
  ) -> jax.Array:
    """Samples future motions, float32 [B, M, Z].

    The arguments are those of `sample`, but `batch["robot"]` is read: the state is that robot's.
    """
    options = specs.SampleOptions("latent", LATENT, num_sampling_steps, guidance_scale)
    return self._sample(params, batch, key, options)

  def _sample(
    self, params: Params, batch: Batch, key: jax.Array, options: specs.SampleOptions
  ) -> jax.Array:
    """`sample`, or `sample_latents`, by the options."""
    robot, num_sampling_steps = options.robot, options.num_sampling_steps
    guidance_scale = options.guidance_scale
    if num_sampling_steps is not None and num_sampling_steps < 1:
      raise errors.UserError(f"num_sampling_steps {num_sampling_steps} must be at least 1")
    if guidance_scale != 1 and not self.action_head.supports_guidance:
      raise errors.UserError(
        f"guidance_scale {guidance_scale}: only a diffusion policy (model.policy 'dit') can be "
        f"guided, {self.kind!r} takes 1"
      )
    images = self._images(params, batch)
    state_robot = batch["robot"] if robot == LATENT else robot
    contexts = [self._context(params, batch, images, state_robot)]
    if guidance_scale != 1:
      unconditional = {**batch, "language_mask": jnp.zeros(batch["language_mask"].shape, bool)}
      contexts.append(self._context(params, unconditional, images, state_robot))
    return self.action_head.sample(params[self.kind], params["heads"], contexts, key, options)

  def encode_images(self, params: Params, images: jax.Array) -> jax.Array:
    """All tokens of images, each encoded once.

    Args:
      params: as from `init`.
      images: uint8 [B, T, C, H, W, 3].

    Returns:
      float32 [B, T, C, N+1, width of the encoder].
    """
    side = self.image_size
    chex.assert_shape(images, (None, None, None, side, side, 3))
    frames = pixels.normalize(images)
    flat = spmd.with_logical_constraint(
      frames.reshape((-1, side, side, 3)), ("batch", None, None, None)
    )
    tokens = modules.apply(self.encoder, params["encoder"], flat)
    return tokens.reshape((*frames.shape[:3], *tokens.shape[1:]))

  def _images(self, params: Params, batch: Batch) -> jax.Array:
    """The tokens of a batch's images."""
    tokens = batch["tokens"] if "tokens" in batch else self.encode_images(params, batch["images"])
    chex.assert_shape(
      tokens, (None, self.trunk.history, self.trunk.num_cameras, self.trunk.grid**2 + 1, None)
    )
    return tokens

  def _inputs(
    self, params: Params, batch: Batch, images: jax.Array, robot: jax.Array | str
  ) -> tuple[jax.Array, ...]:
    """The trunk's arguments."""
    state = jnp.where(batch["state_mask"][:, None], batch["state"].astype(jnp.float32), 0)
    projections = self.action_head.projections
    names = self.robots if not isinstance(robot, str) else (robot,)
    with_state = [name for name in names if "state" in projections.shapes[name]]
    if with_state:
      token = projections.apply(params["heads"], "state", state, robot)
      mask = batch["state_mask"]
      if not isinstance(robot, str) and len(with_state) < len(names):
        mask = mask & jnp.isin(robot, jnp.array([self.robots.index(name) for name in with_state]))
    else:
      token = jnp.zeros((state.shape[0], self.trunk.stack.width))
      mask = jnp.zeros(state.shape[:1], bool)
    return images, batch["images_mask"], batch["language"], batch["language_mask"], token, mask

  def _context(
    self, params: Params, batch: Batch, images: jax.Array, robot: jax.Array | str
  ) -> trunk_lib.Context:
    inputs = self._inputs(params, batch, images, robot)
    return modules.apply(self.trunk, params["trunk"], *inputs)
