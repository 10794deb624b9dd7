"""The autoregressive policy: future motions token by token after the context, then all actions.

Legend: B batch, P context tokens, M motion horizon, q tokens of a motion, d dims of such a token, K
action horizon, A action dims, Z size of a motion (q*d), D width, R = M*(1+q) motion positions.

Source: Moto-GPT of TencentARC/Moto (arXiv 2412.04445), which CoMo's policy on CALVIN follows;
motions are continuous here.

The sequence is [context (P)] [start, q tokens] x M [action queries (K)].

The output of a start predicts the first token of its motion, and the output of a token the next one
(teacher forcing in training). All attention is causal, or bidirectional within the context. No
token attends to an action query, not even the query itself, so cached decoding ends in one pass
that writes nothing. Motion is hidden from the action queries of a part of the examples, and of
every example without labels. No token attends to an unlabeled motion.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from como_jax.models import protocols, specs, transformer
from como_jax.models.modules import Params
from como_jax.models.policy import blocks, masks
from como_jax.models.policy import network as network_lib
from como_jax.models.policy.projections import LATENT, EmbodimentProjections
from como_jax.models.policy.trunk import Context


@dataclasses.dataclass(frozen=True, eq=False)
class GPT:
  """The policy's action head.

  Its parameters are {"network", "start", "action", "position", "motion_output", "action_output"}.
  See `policy.PolicyModel` for the results of the functions.

  Attributes:
    network: the transformer.
    projections: linear layers of the robots and of latent motion.
    motion: output head of motion tokens.
    action: output head of actions.
    action_horizon: K.
    motion_horizon: M.
    latent: q and d.
    prefix: "causal" (Moto) or "bidirectional" attention within the context.
    position: "learned" vectors for the motion positions, or "none" (Moto as published).
    motion_dropout: probability that motion is hidden from an example's action queries in training.
    inference: "hidden" acts without decoding motion (Moto on CALVIN), "decoded" decodes it first.
    action_weight: multiplies the term "action".
    gripper: {robot: dims that are two-valued}. They are trained as logits (term "gripper") of the
      value being above 0, and sampled as -1 or 1, the two values after normalization
      (data/normalization.py).
    num_sampling_steps: of diffusion outputs, the default of `sample`.
    supports_guidance: False.
  """

  network: network_lib.Network
  projections: EmbodimentProjections
  motion: protocols.OutputHead
  action: protocols.OutputHead
  action_horizon: int
  motion_horizon: int
  latent: specs.LatentSpec
  prefix: str
  position: str
  motion_dropout: float
  inference: str
  action_weight: float
  gripper: dict[str, tuple[int, ...]]
  num_sampling_steps: int
  supports_guidance: bool = False

  @property
  def length(self) -> int:
    """R."""
    return self.motion_horizon * (1 + self.latent.num_queries)

  def init(self, key: jax.Array, context: Context) -> dict[str, Any]:
    """Fresh parameters, drawn with `key`, for contexts of the shape of `context`."""
    keys, learned = jax.random.split(key, 6), nn.initializers.truncated_normal(0.02)
    width = self.network.stack.width
    params = {
      "network": self.network.init(keys[0], context.tokens, jnp.ones((1, 1, 1, 1), bool))["params"],
      "start": learned(keys[1], (self.motion_horizon, width)),
      "action": learned(keys[2], (self.action_horizon, width)),
    }
    if self.position == "learned":
      params["position"] = learned(keys[3], (self.length, width))
    for name, output, output_key in (
      ("motion_output", self.motion, keys[4]),
      ("action_output", self.action, keys[5]),
    ):
      output_params = output.init(output_key, width)
      params |= {name: output_params} if output_params else {}
    return params

  def losses(
    self,
    params: Params,
    projection_params: Params,
    context: Context,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The terms of the loss.

    Args:
      params: as from `init`.
      projection_params: as from `EmbodimentProjections.init`.
      context: of the observations.
      batch: as for `policy.PolicyModel.losses`.
      key: of motion dropout and of noise.

    Returns:
      "action" (times its weight), "latent", and "gripper" if configured, each as (sum over valid
      elements, number of them).
    """
    hide_key, motion_key, action_key = jax.random.split(key, 3)
    size, prefix = context.tokens.shape[:2]
    target = jnp.where(batch["latents_mask"][..., None], batch["latents"].astype(jnp.float32), 0)
    tokens, motions = self.latent.num_queries, self.motion_horizon
    target = target.reshape((size, motions, tokens, self.latent.latent_dim))
    hidden = jax.random.bernoulli(hide_key, self.motion_dropout, (size,))
    motion = self._motion(params, projection_params, target)
    x = jnp.concatenate([context.tokens, motion, self._queries(params, size)], axis=1)
    mask = masks.attention_mask(
      self._layout(prefix), context.mask, batch["latents_mask"], hidden, tokens
    )
    x = network_lib.run(self.network, params["network"], x, mask)
    motion = x[:, prefix : prefix + self.length]
    motion = motion.reshape((size, motions, 1 + tokens, -1))[:, :, :-1]

    linear = self._linear(projection_params, LATENT)
    error = self.motion.loss(params.get("motion_output", {}), linear, motion, target, motion_key)
    mask = jnp.broadcast_to(batch["latents_mask"][..., None, None], error.shape)
    terms = {"latent": _sum(error, mask)}
    return terms | self._action_terms(
      params, projection_params, x[:, prefix + self.length :], batch, action_key
    )

  def _layout(self, prefix: int) -> np.ndarray:
    return masks.layout(
      prefix,
      self.motion_horizon,
      self.latent.num_queries,
      self.action_horizon,
      causal=self.prefix == "causal",
    )

  def _action_terms(
    self,
    params: Params,
    projection_params: Params,
    queries: jax.Array,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    mask = batch["actions_mask"]
    target = jnp.where(mask, batch["actions"].astype(jnp.float32), 0)
    linear = self._linear(projection_params, batch["robot"])
    error = self.action.loss(params.get("action_output", {}), linear, queries, target, key)
    if not self.gripper:
      total, count = _sum(error, mask)
      return {"action": (self.action_weight * total, count)}
    table = np.array(
      [
        [dim in self.gripper.get(name, ()) for dim in range(target.shape[-1])]
        for name in self.projections.robots
      ]
    )
    binary = jnp.asarray(table)[batch["robot"]][:, None]
    logits = linear("decode", queries)
    entropy = jax.nn.softplus(logits) - logits * (target > 0)
    total, count = _sum(error, mask & ~binary)
    return {"action": (self.action_weight * total, count), "gripper": _sum(entropy, mask & binary)}

  def sample(
    self,
    params: Params,
    projection_params: Params,
    contexts: list[Context],
    key: jax.Array,
    options: specs.SampleOptions,
  ) -> jax.Array:
    """Samples actions or future motions, without guidance.

    The arguments are those of `protocols.ActionHead.sample`.
    """
    group, robot, num_sampling_steps = options.group, options.robot, options.num_sampling_steps
    if num_sampling_steps is None:
      num_sampling_steps = self.num_sampling_steps
    (context,) = contexts
    size, prefix = context.tokens.shape[:2]
    decodes = group == "latent" or self.inference == "decoded"
    visible = jnp.ones((size, self.motion_horizon), bool)
    length = prefix + (self.length if decodes else 0)
    mask = masks.attention_mask(
      self._layout(prefix), context.mask, visible, jnp.zeros((size,), bool), self.latent.num_queries
    )[..., :length]
    motion_key, action_key = jax.random.split(key)

    cache = self.network.empty_cache(size, length)
    _, cache = network_lib.extend(
      self.network, params["network"], context.tokens, mask[:, :, :prefix], 0, cache
    )
    if decodes:
      z, cache = self._decode(
        params, self._linear(projection_params, LATENT), mask, cache, motion_key, num_sampling_steps
      )
      if group == "latent":
        return z
    rows = mask[:, :, prefix + self.length :]
    queries = network_lib.run(
      self.network, params["network"], self._queries(params, size), rows, cache
    )
    dims = self.projections.shapes[robot]["decode"][1]
    actions = self.action.sample(
      params.get("action_output", {}),
      self._linear(projection_params, robot),
      queries,
      action_key,
      dims=dims,
      num_sampling_steps=num_sampling_steps,
    )
    binary = np.isin(np.arange(dims), self.gripper.get(robot, ()))
    return jnp.where(jnp.asarray(binary)[None, None], jnp.where(actions > 0, 1.0, -1.0), actions)

  def _decode(
    self,
    params: Params,
    linear: protocols.Linear,
    mask: jax.Array,
    cache: transformer.KVCache,
    key: jax.Array,
    num_sampling_steps: int,
  ) -> tuple[jax.Array, transformer.KVCache]:
    """(motions [B, M, Z], the cache with their tokens), decoded one position at a time.

    The input of a position is the output of the position before it.
    """
    size, prefix = mask.shape[0], mask.shape[-1] - self.length
    stride = 1 + self.latent.num_queries

    def step(carry: tuple, position: jax.Array) -> tuple[tuple, jax.Array]:
      cache, token = carry
      motion, slot = position // stride, position % stride
      x = jnp.where(slot == 0, params["start"][motion][None], linear("encode", token))
      if self.position == "learned":
        x = x + params["position"][position][None]
      row = jax.lax.dynamic_slice_in_dim(mask, prefix + position, 1, axis=2)
      x, cache = network_lib.extend(
        self.network, params["network"], x[:, None], row, prefix + position, cache
      )
      token = self.motion.sample(
        params.get("motion_output", {}),
        linear,
        x[:, 0],
        jax.random.fold_in(key, position),
        dims=self.latent.latent_dim,
        num_sampling_steps=num_sampling_steps,
      )
      return (cache, token), token

    first = jnp.zeros((size, self.latent.latent_dim))
    (cache, _), tokens = jax.lax.scan(step, (cache, first), jnp.arange(self.length))
    tokens = tokens.reshape((self.motion_horizon, stride, size, self.latent.latent_dim))[:, :-1]
    motions = tokens.transpose((2, 0, 1, 3))
    return motions.reshape((size, self.motion_horizon, self.latent.size)), cache

  def _motion(self, params: Params, projection_params: Params, tokens: jax.Array) -> jax.Array:
    """Embedded motion positions [B, R, D] of motions [B, M, q, d]."""
    size, width = tokens.shape[0], self.network.stack.width
    start = jnp.broadcast_to(params["start"][None, :, None], (size, self.motion_horizon, 1, width))
    encoded = self.projections.apply(projection_params, "encode", tokens, LATENT)
    x = jnp.concatenate([start, encoded.astype(jnp.float32)], axis=2)
    x = x.reshape((size, self.length, width))
    return x + params["position"][None] if self.position == "learned" else x

  def _queries(self, params: Params, size: int) -> jax.Array:
    return blocks.repeat(params["action"], size, jnp.float32)

  def _linear(self, projection_params: Params, robot: jax.Array | str) -> protocols.Linear:
    return lambda layer, x: self.projections.apply(projection_params, layer, x, robot)


def _sum(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  return jnp.sum(jnp.where(mask, values, 0)), jnp.sum(mask.astype(jnp.float32))
