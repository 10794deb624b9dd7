"""The diffusion policy: one DiT denoises chunks of actions and of latent motion.

Legend: B batch, K action horizon, M motion horizon, N = K, M or K+M, A action dims, Z size of a
motion, D width, S context tokens. Source: CoMo, arXiv 2505.17006 (policy on LIBERO); GR00T N1,
arXiv 2503.14734 (the recipe that it follows).

Actions and motions are two groups of tokens that attend to the same context. Each group has a
diffusion time of its own, and they do not attend to each other: a video has no actions, an example
of a robot may have no motions, and motion need not be denoised to act. Elements beyond the end of a
clip are masked out of attention in training, so an example is a chunk of its true length. In
sampling all elements are valid.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from como_jax.models import modules, specs, stacks, transformer
from como_jax.models.modules import Params
from como_jax.models.policy import blocks, diffusion
from como_jax.models.policy.projections import LATENT, EmbodimentProjections
from como_jax.models.policy.trunk import Context


class ContextKV(nn.Module):
  """Keys and values of the context for every layer, computed once per observation."""

  stack: specs.StackConfig

  @nn.compact
  def __call__(self, tokens: jax.Array) -> transformer.KVCache:
    """`tokens` [B, S, any] -> {"key", "value"}, each [layers, B, S, H, D/H]."""
    return stacks.add_stack(self, block=blocks.ContextKVBlock)(tokens)[1]


class Denoiser(nn.Module):
  """Embedded noisy tokens -> their outputs after a modulated LayerNorm, float32.

  Attributes:
    stack: settings of the transformer.
    action_horizon: K.
    motion_horizon: M.
  """

  stack: specs.StackConfig
  action_horizon: int
  motion_horizon: int

  @nn.compact
  def __call__(
    self,
    groups: dict[str, tuple[jax.Array, jax.Array, jax.Array]],
    context_kv: transformer.KVCache,
    context_mask: jax.Array,
  ) -> dict[str, jax.Array]:
    """Runs one group or both.

    Args:
      groups: "action" and/or "latent": (tokens [B, K or M, D], times [B], valid bool [B, K or M]).
      context_kv: as from `ContextKV`.
      context_mask: bool [B, S].

    Returns:
      [B, K or M, D] for each group in `groups`.
    """
    width, dtype = self.stack.width, self.stack.dtype
    learned = nn.initializers.truncated_normal(0.02)
    lengths = {"action": self.action_horizon, "latent": self.motion_horizon}
    position = {
      name: self.param(f"{name}_position", learned, (1, length, width))
      for name, length in lengths.items()
    }
    x = jnp.concatenate(
      [
        tokens.astype(dtype) + position[name].astype(dtype)
        for name, (tokens, _, _) in groups.items()
      ],
      axis=1,
    )
    time = jnp.stack([time for _, time, _ in groups.values()], axis=1)
    valid = jnp.concatenate([valid for _, _, valid in groups.values()], axis=1)
    group = np.repeat(np.arange(len(groups)), [lengths[name] for name in groups])
    condition = blocks.TimeEmbedding(width, dtype, name="time")(time)
    stack = stacks.add_stack(self, block=blocks.DiTBlock)
    x = stack(
      x,
      group_mask(group, valid),
      context_mask[:, None, None],
      condition,
      jnp.asarray(group),
      layers=context_kv,
    )
    shift, scale = blocks.token_modulation(
      blocks.Modulation(2, dtype, name="modulation_out"), condition, group
    )
    x = blocks.modulated_norm(x, shift, scale, epsilon=self.stack.epsilon)
    ends = np.cumsum([lengths[name] for name in groups])[:-1]
    return dict(zip(groups, jnp.split(x, ends, axis=1), strict=False))


def group_mask(group: np.ndarray, valid: jax.Array) -> jax.Array:
  """Attention mask: a token attends to itself and to the valid tokens of its group.

  Args:
    group: int [N], the index of each token's group.
    valid: bool [B, N].

  Returns:
    bool [B, 1, N, N].
  """
  same = jnp.asarray(group[:, None] == group[None])
  return (same[None] & valid[:, None, :] | jnp.eye(len(group), dtype=bool)[None])[:, None]


@dataclasses.dataclass(frozen=True, eq=False)
class DiT:
  """The policy's action head: parameters {"memory", "denoiser"}.

  See `policy.PolicyModel` for the results of the functions.

  Attributes:
    context_kv: the module of the parameters "memory".
    denoiser: the module of the parameters "denoiser".
    objective: the training target and the sampler.
    projections: linear layers of the robots and of latent motion.
    num_sampling_steps: the default of `sample`.
    supports_guidance: whether a `guidance_scale` other than 1 is possible.
  """

  context_kv: ContextKV
  denoiser: Denoiser
  objective: diffusion.Flow | diffusion.DDPM
  projections: EmbodimentProjections
  num_sampling_steps: int
  supports_guidance: bool = True

  def init(self, key: jax.Array, context: Context) -> dict[str, Any]:
    """Fresh parameters, drawn with `key`, for contexts of the shape of `context`."""
    keys, denoiser, stack = jax.random.split(key), self.denoiser, self.denoiser.stack
    groups = {
      name: (jnp.zeros((1, length, stack.width)), jnp.zeros((1,)), jnp.ones((1, length), bool))
      for name, length in (("action", denoiser.action_horizon), ("latent", denoiser.motion_horizon))
    }
    shape = (stack.depth, *context.tokens.shape[:2], stack.num_heads, stack.head_dim)
    context_kv = {name: jnp.zeros(shape, stack.dtype) for name in ("key", "value")}
    return {
      "memory": self.context_kv.init(keys[0], context.tokens)["params"],
      "denoiser": denoiser.init(keys[1], groups, context_kv, context.mask)["params"],
    }

  def losses(
    self,
    params: Params,
    projection_params: Params,
    context: Context,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The terms "action" and "latent".

    Args:
      params: as from `init`.
      projection_params: as from `EmbodimentProjections.init`.
      context: of the observations.
      batch: as for `policy.PolicyModel.losses`.
      key: of the noise.

    Returns:
      For each term the squared error summed over valid elements, and their number.
    """
    keys = jax.random.split(key)
    robot = {"action": batch["robot"], "latent": LATENT}
    mask = {
      "action": batch["actions_mask"],
      "latent": jnp.broadcast_to(batch["latents_mask"][..., None], batch["latents"].shape),
    }
    noisy, groups = {}, {}
    for name, clean, noise_key in (
      ("action", batch["actions"], keys[0]),
      ("latent", batch["latents"], keys[1]),
    ):
      # where comes first: values beyond the mask may be anything, even not finite.
      noisy[name] = self.objective.add_noise(
        noise_key, jnp.where(mask[name], clean.astype(jnp.float32), 0)
      )
      tokens = self.projections.apply(projection_params, "encode", noisy[name].x, robot[name])
      groups[name] = (tokens, noisy[name].time, mask[name].any(axis=-1))
    context_kv = modules.apply(self.context_kv, params["memory"], context.tokens)
    outputs = modules.apply(self.denoiser, params["denoiser"], groups, context_kv, context.mask)
    terms = {}
    for name, output in outputs.items():
      predicted = self.projections.apply(projection_params, "decode", output, robot[name])
      error = jnp.square(predicted - noisy[name].target)
      terms[name] = (
        jnp.sum(jnp.where(mask[name], error, 0)),
        jnp.sum(mask[name].astype(jnp.float32)),
      )
    return terms

  def sample(
    self,
    params: Params,
    projection_params: Params,
    contexts: list[Context],
    key: jax.Array,
    options: specs.SampleOptions,
  ) -> jax.Array:
    """Denoises one group; the arguments are those of `protocols.ActionHead.sample`."""
    group, robot, num_sampling_steps = options.group, options.robot, options.num_sampling_steps
    if num_sampling_steps is None:
      num_sampling_steps = self.num_sampling_steps
    denoiser, batch = self.denoiser, contexts[0].tokens.shape[0]
    length = denoiser.action_horizon if group == "action" else denoiser.motion_horizon
    contexts_kv = [
      (modules.apply(self.context_kv, params["memory"], context.tokens), context.mask)
      for context in contexts
    ]

    def project(layer: str, x: jax.Array) -> jax.Array:
      return self.projections.apply(projection_params, layer, x, robot)

    def predict(x: jax.Array, time: jax.Array) -> jax.Array:
      groups = {group: (project("encode", x), time, jnp.ones((batch, length), bool))}
      predicted = [
        project("decode", modules.apply(denoiser, params["denoiser"], groups, kv, mask)[group])
        for kv, mask in contexts_kv
      ]
      if len(predicted) == 1:
        return predicted[0]
      conditional, unconditional = predicted
      return diffusion.classifier_free_guidance(conditional, unconditional, options.guidance_scale)

    noise_key, step_key = jax.random.split(key)
    size = self.projections.shapes[robot]["encode"][0]
    noise = jax.random.normal(noise_key, (batch, length, size))
    return self.objective.sample(noise, predict, step_key, num_sampling_steps)
