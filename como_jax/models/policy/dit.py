"""The diffusion policy: one DiT denoises chunks of actions and of latent motion, both reading the
same context.

Legend: B batch, K chunk elements, M future motions, N = K, M or K+M, A action dims, Z numbers of a
motion, D width, S context tokens. Source: CoMo, arXiv 2505.17006 (policy on LIBERO); GR00T N1,
arXiv 2503.14734 (what its recipe follows).

Actions and motions are two groups of tokens with diffusion times of their own, and neither sees the
other: a video has no actions, a robot's example may have no motions, and acting then costs no
motion. Elements beyond the end of a clip are masked out of attention in training, so an example is
a chunk of its true length; when sampling, all are there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from como_jax import errors
from como_jax.models import config_utils, transformer
from como_jax.models.policy import blocks, diffusion
from como_jax.models.policy.heads import LATENT, Heads
from como_jax.models.policy.trunk import Context

Params = Mapping[str, Any]


class Memory(nn.Module):
  """Keys and values of the context for every layer, computed once an observation. [B, S, any] ->
  [layers, B, S, H, D/H].
  """

  width: int
  depth: int
  heads: int
  mlp: int
  epsilon: float = 1e-6
  initializer: str = "mae"
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"

  @nn.compact
  def __call__(self, tokens: jax.Array) -> transformer.Memory:
    stack = transformer.add_stack(self, block=blocks.MemoryBlock, settings={"width": self.width})
    return stack(tokens)[1]


class Denoiser(nn.Module):
  """Embedded noisy tokens -> their outputs after a modulated LayerNorm, float32."""

  width: int
  depth: int
  heads: int
  mlp: int
  chunk: int
  motions: int
  epsilon: float = 1e-6
  initializer: str = "mae"
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"

  @nn.compact
  def __call__(
    self,
    groups: dict[str, tuple[jax.Array, jax.Array, jax.Array]],
    memory: transformer.Memory,
    context_mask: jax.Array,
  ) -> dict[str, jax.Array]:
    """Runs the groups that are given.

    Args:
      groups: "action" and/or "latent": (tokens [B, K or M, D], times [B], valid bool [B, K or M]).
      memory: as from `Memory`.
      context_mask: bool [B, S].

    Returns:
      [B, K or M, D] for each group given.
    """
    learned = nn.initializers.truncated_normal(0.02)
    lengths = {"action": self.chunk, "latent": self.motions}
    position = {
      name: self.param(f"{name}_position", learned, (1, length, self.width))
      for name, length in lengths.items()
    }
    x = jnp.concatenate(
      [
        tokens.astype(self.dtype) + position[name].astype(self.dtype)
        for name, (tokens, _, _) in groups.items()
      ],
      axis=1,
    )
    time = jnp.stack([time for _, time, _ in groups.values()], axis=1)
    valid = jnp.concatenate([valid for _, _, valid in groups.values()], axis=1)
    group = np.repeat(np.arange(len(groups)), [lengths[name] for name in groups])
    condition = blocks.TimeEmbedding(self.width, self.dtype, name="time")(time)
    stack = transformer.add_stack(self, block=blocks.DiTBlock)
    x = stack(
      x,
      group_mask(group, valid),
      context_mask[:, None, None],
      condition,
      jnp.asarray(group),
      layers=memory,
    )
    parts = blocks.Modulation(2, self.dtype, name="modulation_out")(condition)
    x = blocks.modulated_norm(
      x, *(jnp.take(part, group, axis=1) for part in parts), epsilon=self.epsilon
    )
    ends = np.cumsum([lengths[name] for name in groups])[:-1]
    return dict(zip(groups, jnp.split(x, ends, axis=1), strict=False))


def group_mask(group: np.ndarray, valid: jax.Array) -> jax.Array:
  """Who attends to whom: a token to itself and to the valid tokens of its group. int [N], bool [B,
  N] -> bool [B, 1, N, N].
  """
  same = jnp.asarray(group[:, None] == group[None])
  return (same[None] & valid[:, None, :] | jnp.eye(len(group), dtype=bool)[None])[:, None]


@dataclasses.dataclass(frozen=True, eq=False)
class DiT:
  """The policy's body: parameters {"memory", "denoiser"}; see `policy.PolicyModel` for what the
  functions return.

  Attributes:
    steps: of the sampler, unless asked otherwise.
    guides: whether `guidance` other than 1 is possible.
  """

  memory: Memory
  denoiser: Denoiser
  objective: diffusion.Flow | diffusion.DDPM
  heads: Heads
  steps: int
  guides: bool = True

  def init(self, key: jax.Array, context: Context) -> dict[str, Any]:
    keys = jax.random.split(key)
    groups = {
      name: (
        jnp.zeros((1, length, self.denoiser.width)),
        jnp.zeros((1,)),
        jnp.ones((1, length), bool),
      )
      for name, length in (("action", self.denoiser.chunk), ("latent", self.denoiser.motions))
    }
    shape = (
      self.memory.depth,
      *context.tokens.shape[:2],
      self.memory.heads,
      self.memory.width // self.memory.heads,
    )
    memory = {name: jnp.zeros(shape, self.memory.dtype) for name in ("key", "value")}
    return {
      "memory": self.memory.init(keys[0], context.tokens)["params"],
      "denoiser": self.denoiser.init(keys[1], groups, memory, context.mask)["params"],
    }

  def losses(
    self,
    params: Params,
    heads: Params,
    context: Context,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The terms "action" and "latent".

    Each is the squared error of the network's target summed over valid elements, and their number.
    """
    keys = jax.random.split(key)
    robot = {"action": batch["robot"], "latent": LATENT}
    mask = {
      "action": batch["actions_mask"],
      "latent": jnp.broadcast_to(batch["latents_mask"][..., None], batch["latents"].shape),
    }
    noised, groups = {}, {}
    for name, clean, noise_key in (
      ("action", batch["actions"], keys[0]),
      ("latent", batch["latents"], keys[1]),
    ):
      # where first: what lies beyond the mask may be anything.
      noised[name] = self.objective.corrupt(
        noise_key, jnp.where(mask[name], clean.astype(jnp.float32), 0)
      )
      tokens = self.heads.apply(heads, "encode", noised[name].x, robot[name])
      groups[name] = (tokens, noised[name].time, mask[name].any(axis=-1))
    memory = self.memory.apply({"params": params["memory"]}, context.tokens)
    outputs = self.denoiser.apply({"params": params["denoiser"]}, groups, memory, context.mask)
    terms = {}
    for name, output in outputs.items():
      error = jnp.square(
        self.heads.apply(heads, "decode", output, robot[name]) - noised[name].target
      )
      terms[name] = (
        jnp.sum(jnp.where(mask[name], error, 0)),
        jnp.sum(mask[name].astype(jnp.float32)),
      )
    return terms

  def sample(
    self,
    params: Params,
    heads: Params,
    contexts: list[Context],
    key: jax.Array,
    *,
    group: str,
    robot: str,
    steps: int | None,
    guidance: float,
  ) -> jax.Array:
    """Denoises one group.

    Args:
      params: as from `init`.
      heads: as from `Heads.init`.
      contexts: with the instruction and, for guidance, without it.
      key: of the noise.
      group: "action" or "latent".
      robot: name of the head.
      steps: None for the configured number.
      guidance: weight of the instruction.

    Returns:
      float32 [B, K, A of the robot] or [B, M, Z].
    """
    memories = [
      (self.memory.apply({"params": params["memory"]}, context.tokens), context.mask)
      for context in contexts
    ]
    batch, length = (
      contexts[0].tokens.shape[0],
      self.denoiser.chunk if group == "action" else self.denoiser.motions,
    )

    def predict(x: jax.Array, time: jax.Array) -> jax.Array:
      given = {
        group: (self.heads.apply(heads, "encode", x, robot), time, jnp.ones((batch, length), bool))
      }
      predicted = [
        self.heads.apply(
          heads,
          "decode",
          self.denoiser.apply({"params": params["denoiser"]}, given, *memory)[group],
          robot,
        )
        for memory in memories
      ]
      return predicted[0] if len(predicted) == 1 else diffusion.guided(*predicted, guidance)

    noise_key, step_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (batch, length, self.heads.shapes[robot]["encode"][0]))
    return self.objective.sample(noise, predict, step_key, self.steps if steps is None else steps)


def build(
  section: dict[str, Any],
  *,
  robots: dict[str, dict[str, int]],
  chunk: int,
  motions: int,
  latent: tuple[int, int],
  trunk_width: int,
  common: dict[str, Any],
) -> DiT:
  """The body from the section model.dit, which holds the denoiser's fields, "objective", "flow",
  "ddpm" and "steps".

  Raises:
    errors.UserError: an unknown or missing key, or a value that cannot be.
  """
  where, section = "model.dit", dict(section)
  objective, steps = diffusion.build(section, where)
  denoiser = config_utils.instantiate(
    Denoiser, section, where, chunk=chunk, motions=motions, **common
  )
  if denoiser.width % denoiser.heads:
    raise errors.UserError(
      f"{where}.width {denoiser.width} is not a multiple of heads {denoiser.heads}"
    )
  config_utils.lookup(transformer.INITIALISERS, denoiser.initializer, f"{where}.initializer")
  memory = Memory(
    **{
      field.name: getattr(denoiser, field.name)
      for field in dataclasses.fields(Memory)
      if field.name not in config_utils.LINEN_FIELDS
    }
  )
  width, latent_size = denoiser.width, latent[0] * latent[1]
  shapes = {
    name: {"encode": (sizes["action"], width), "decode": (width, sizes["action"])}
    for name, sizes in robots.items()
  }
  for name, sizes in robots.items():
    if sizes["state"]:
      shapes[name]["state"] = (sizes["state"], trunk_width)
  shapes[LATENT] = {"encode": (latent_size, width), "decode": (width, latent_size)}
  heads = Heads(shapes, tuple(shapes), denoiser.dtype)
  return DiT(memory, denoiser, objective, heads, steps)
