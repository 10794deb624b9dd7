"""The policy model: frozen image encoder, shared trunk, a body (DiT or GPT) and light heads, as one
record of functions.

Legend: B batch, T frames of history, C camera slots, H W image, L language tokens, E their width, S
state dims, A action
dims (of the widest robot), K chunk elements, M future motions, Z numbers of a motion.
Source: CoMo, arXiv 2505.17006: one policy is trained on robots' actions and on the latent motion of
videos together.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import config_utils, pixels
from como_jax.models.backbones import mae_vit
from como_jax.models.policy import dit, gpt, heads, trunk
from como_jax.models.policy.heads import LATENT

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
BODIES = {"dit": dit.build, "gpt": gpt.build}
KEYS = (
  "policy",
  "history",
  "cameras",
  "pool",
  "language",
  "robots",
  "chunk",
  "latent",
  "language_dropout",
  "trunk",
)


@dataclasses.dataclass(frozen=True, eq=False)
class PolicyModel:
  """The record a task works with; see `models.build`. Actions, states and latents are normalized.

  Attributes:
    config: the model section it was built from.
    kind: "dit" or "gpt", the name of the body's parameters.
    chunk: K. motions: M. latent_size: Z. state_size: S. action_size: A. language_width: E.
    frozen: patterns of parameter names that are not trained unless the config says otherwise.
  """

  config: dict[str, Any]
  encoder: mae_vit.Encoder
  trunk: trunk.Trunk
  kind: str
  body: Any
  chunk: int
  motions: int
  latent_size: int
  state_size: int
  action_size: int
  language_width: int
  language_dropout: float
  frozen: tuple[str, ...] = (r"encoder/.*",)

  @property
  def robots(self) -> tuple[str, ...]:
    """Names of the robots; `batch["robot"]` counts in them."""
    return self.body.heads.robots

  @property
  def image_size(self) -> int:
    return self.encoder.image_size

  @property
  def terms(self) -> tuple[str, ...]:
    """Names of what `losses` returns."""
    return ("action", "latent", *(("gripper",) if getattr(self.body, "gripper", None) else ()))

  def inputs_spec(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What `losses` reads. Sampling needs neither "actions", "latents" nor their masks."""
    size, views = self.image_size, (self.trunk.history, self.trunk.cameras)
    spec = {
      "images": ((*views, size, size, 3), jnp.uint8),
      "images_mask": (views[1:], bool),
      "state": ((self.state_size,), jnp.float32),
      "state_mask": ((), bool),
      "robot": ((), jnp.int32),
      "language": ((self.trunk.tokens, self.language_width), jnp.float32),
      "language_mask": ((self.trunk.tokens,), bool),
      "actions": ((self.chunk, self.action_size), jnp.float32),
      "actions_mask": ((self.chunk, self.action_size), bool),
      "latents": ((self.motions, self.latent_size), jnp.float32),
      "latents_mask": ((self.motions,), bool),
    }
    return {
      name: jax.ShapeDtypeStruct((batch_size, *shape), dtype)
      for name, (shape, dtype) in spec.items()
    }

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh float32 parameters: {"encoder", "trunk", "dit" or "gpt", "heads": {robot: {...},
    "latent": {...}}}.
    """
    keys, mixer = jax.random.split(key, 4), self.trunk
    # Zeros of the right shapes throughout: initializing runs no part on another one's output.
    images = jnp.zeros(
      (1, mixer.history, mixer.cameras, mixer.grid**2 + 1, self.encoder.size.width)
    )
    inputs = (
      images,
      jnp.ones((1, mixer.cameras), bool),
      jnp.zeros((1, mixer.tokens, self.language_width)),
      jnp.ones((1, mixer.tokens), bool),
      jnp.zeros((1, mixer.width)),
      jnp.ones((1,), bool),
    )
    context = trunk.Context(
      jnp.zeros((1, mixer.size, mixer.width)), jnp.ones((1, mixer.size), bool)
    )
    return {
      "encoder": self.encoder.init(keys[0], jnp.zeros((1, self.image_size, self.image_size, 3)))[
        "params"
      ],
      "trunk": mixer.init(keys[1], *inputs)["params"],
      self.kind: self.body.init(keys[2], context),
      "heads": self.body.heads.init(keys[3]),
    }

  def losses(
    self, params: Params, batch: Batch, key: jax.Array
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The terms to train on, each (sum over valid elements, number of them), float32 scalars.

    Args:
      params: as from `init`.
      batch: as `inputs_spec`; what lies beyond a mask does not matter. "tokens", as from `tokens`,
        may stand in for "images".
      key: drops instructions, and draws the body's noise.

    Returns:
      One for each of `terms`: "action" and "latent", and "gripper" where GPT classifies it.
    """
    chex.assert_shape(batch["actions"], (None, self.chunk, self.action_size))
    chex.assert_shape(batch["latents"], (None, self.motions, self.latent_size))
    drop_key, body_key = jax.random.split(key)
    batch = {
      **batch,
      "language_mask": trunk.drop_language(drop_key, batch["language_mask"], self.language_dropout),
    }
    context = self._context(params, batch, self._images(params, batch), batch["robot"])
    return self.body.losses(params[self.kind], params["heads"], context, batch, body_key)

  def sample(
    self,
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    robot: str,
    steps: int | None = None,
    guidance: float = 1.0,
  ) -> jax.Array:
    """Chunks of actions of one robot.

    Args:
      params: as from `init`.
      batch: an observation for each example; "robot" is not read.
      key: of the sampler's noise; the same key gives the same actions.
      robot: whose head speaks.
      steps: of the sampler; None for the configured number. GPT needs it only for diffusion heads.
      guidance: weight of the instruction; 1 = none, which also halves the work.

    Returns:
      float32 [B, K, A of the robot].

    Raises:
      errors.UserError: no such robot; fewer than one step; guidance of a policy that has none.
    """
    if robot not in self.robots:
      raise errors.UserError(
        f"the policy knows no robot {robot!r}: {errors.nearest(robot, self.robots)}"
      )
    return self._sample(params, batch, key, "action", robot, steps, guidance)

  def sample_latents(
    self,
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    steps: int | None = None,
    guidance: float = 1.0,
  ) -> jax.Array:
    """Future motions float32 [B, M, Z]; arguments as for `sample`, but "robot" is read (it says
    whose state is given).
    """
    return self._sample(params, batch, key, "latent", LATENT, steps, guidance)

  def _sample(
    self,
    params: Params,
    batch: Batch,
    key: jax.Array,
    group: str,
    robot: str,
    steps: int | None,
    guidance: float,
  ) -> jax.Array:
    if steps is not None and steps < 1:
      raise errors.UserError(f"steps {steps} must be at least 1")
    if guidance != 1 and not self.body.guides:
      raise errors.UserError(
        f"guidance {guidance}: only a diffusion policy (model.policy 'dit') can be guided, "
        f"{self.kind!r} takes 1"
      )
    images, whose = self._images(params, batch), batch["robot"] if robot == LATENT else robot
    contexts = [self._context(params, batch, images, whose)]
    if guidance != 1:
      silent = {**batch, "language_mask": jnp.zeros(batch["language_mask"].shape, bool)}
      contexts.append(self._context(params, silent, images, whose))
    return self.body.sample(
      params[self.kind],
      params["heads"],
      contexts,
      key,
      group=group,
      robot=robot,
      steps=steps,
      guidance=guidance,
    )

  def tokens(self, params: Params, images: jax.Array) -> jax.Array:
    """All tokens of uint8 images [B, T, C, H, W, 3], each encoded once: float32 [B, T, C, N+1,
    width of the encoder].
    """
    side = self.image_size
    chex.assert_shape(images, (None, None, None, side, side, 3))
    frames = pixels.normalize(images)
    flat = nn.with_logical_constraint(
      frames.reshape((-1, side, side, 3)), ("batch", None, None, None)
    )
    tokens = self.encoder.apply({"params": params["encoder"]}, flat)
    return tokens.reshape((*frames.shape[:3], *tokens.shape[1:]))

  def _images(self, params: Params, batch: Batch) -> jax.Array:
    """The tokens of a batch's images."""
    tokens = batch["tokens"] if "tokens" in batch else self.tokens(params, batch["images"])
    chex.assert_shape(
      tokens, (None, self.trunk.history, self.trunk.cameras, self.trunk.grid**2 + 1, None)
    )
    return tokens

  def _inputs(
    self, params: Params, batch: Batch, images: jax.Array, robot: jax.Array | str
  ) -> tuple[jax.Array, ...]:
    """The trunk's arguments."""
    state = jnp.where(batch["state_mask"][:, None], batch["state"].astype(jnp.float32), 0)
    shapes = self.body.heads.shapes
    names = self.robots if not isinstance(robot, str) else (robot,)
    has = [name for name in names if "state" in shapes[name]]
    if has:
      token = self.body.heads.apply(params["heads"], "state", state, robot)
      stated = batch["state_mask"]
      if not isinstance(robot, str) and len(has) < len(names):
        stated = stated & jnp.isin(robot, jnp.array([self.robots.index(name) for name in has]))
    else:
      token, stated = (
        jnp.zeros((state.shape[0], self.trunk.width)),
        jnp.zeros(state.shape[:1], bool),
      )
    return images, batch["images_mask"], batch["language"], batch["language_mask"], token, stated

  def _context(
    self, params: Params, batch: Batch, images: jax.Array, robot: jax.Array | str
  ) -> trunk.Context:
    return self.trunk.apply(
      {"params": params["trunk"]}, *self._inputs(params, batch, images, robot)
    )


def build(config: dict[str, Any], encoder: mae_vit.Encoder, common: dict[str, Any]) -> PolicyModel:
  """The record from a model section whose keys were checked (see `models.build`).

  Raises:
    errors.UserError: naming the first key or value that cannot be.
  """
  kind = config["policy"]
  body = config_utils.lookup(BODIES, kind, "model.policy")
  config_utils.check(config["language"], "model.language", required=("width", "tokens"))
  config_utils.check(config["latent"], "model.latent", required=("queries", "dims", "chunk"))
  robots, latent = heads.check(config["robots"]), config["latent"]
  for name, value in (
    ("chunk", config["chunk"]),
    *((f"latent.{key}", value) for key, value in latent.items()),
    ("language.width", config["language"]["width"]),
  ):
    if value < 1:
      raise errors.UserError(f"model.{name} {value} must be at least 1")
  if not 0 <= config["language_dropout"] < 1:
    raise errors.UserError(
      f"model.language_dropout {config['language_dropout']} must be at least 0 and below 1"
    )
  mixer = trunk.check(
    config_utils.instantiate(
      trunk.Trunk,
      config["trunk"],
      "model.trunk",
      grid=encoder.size.grid(encoder.image_size),
      history=config["history"],
      cameras=config["cameras"],
      tokens=config["language"]["tokens"],
      pool=config["pool"],
      **common,
    )
  )
  made = body(
    config[kind],
    robots=robots,
    chunk=config["chunk"],
    motions=latent["chunk"],
    latent=(latent["queries"], latent["dims"]),
    trunk_width=mixer.width,
    common=common,
  )
  return PolicyModel(
    config,
    encoder,
    mixer,
    kind,
    made,
    chunk=config["chunk"],
    motions=latent["chunk"],
    latent_size=latent["queries"] * latent["dims"],
    state_size=max(sizes["state"] for sizes in robots.values()),
    action_size=max(sizes["action"] for sizes in robots.values()),
    language_width=config["language"]["width"],
    language_dropout=config["language_dropout"],
  )
