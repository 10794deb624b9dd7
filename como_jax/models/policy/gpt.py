"""The autoregressive policy: context, then the tokens of future motions one after the other, then
all actions at once.

Legend: B batch, P context tokens, M future motions, q tokens of a motion, d numbers of such a
token, K chunk elements,
A action dims, Z numbers of a motion (q*d), D width, R = M*(1+q) motion positions.
Source: Moto-GPT of TencentARC/Moto (arXiv 2412.04445), which CoMo's policy on CALVIN follows;
motions are continuous here.

[context (P)] [start, q tokens] x M [action queries (K)]
A start's output predicts its motion's first token and a token's output the next one (teacher
forcing in training). All attention is causal, or bidirectional within the context; nobody attends
to an action query, not even itself, so cached decoding ends in one pass that writes nothing. Motion
is hidden from the action queries of a part of the examples, and of every example without labels;
unlabeled motions are seen by nobody.
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
from como_jax.models.policy import blocks, diffusion, masks, outputs
from como_jax.models.policy.heads import LATENT, Heads
from como_jax.models.policy.network import Network
from como_jax.models.policy.trunk import Context

Params = Mapping[str, Any]
PREFIXES = ("causal", "bidirectional")
TOKENS = ("query", "motion")
INFERENCES = ("hidden", "decoded")
POSITIONS = ("learned", "none")
SETTINGS = {
  "tokens": "query",
  "prefix": "causal",
  "position": "learned",
  "hide_motion": 0.5,
  "inference": "hidden",
  "action_weight": 1.0,
  "gripper": {},
}


@dataclasses.dataclass(frozen=True, eq=False)
class GPT:
  """The policy's body: parameters {"network", "start", "action", "position", "motion_output",
  "action_output"}.

  See `policy.PolicyModel` for what the functions return.

  Attributes:
    motion: how motion tokens come of hidden vectors; action: actions.
    chunk: K. motions: M. tokens: q. dims: d.
    prefix: "causal" (Moto) or "bidirectional" attention within the context.
    position: "learned" vectors for the motion positions, or "none" (Moto as published).
    hide_motion: probability that an example's action queries see no motion in training.
    inference: "hidden" acts without decoding motion (Moto on CALVIN), "decoded" decodes it first.
    action_weight: multiplies the term "action".
    gripper: {robot: dims that are two-valued}: trained as logits (term "gripper") of the value
      being above 0, sampled as -1 or 1, which is what normalization makes of the two values
      (data/normalization.py).
    steps: of diffusion outputs, unless asked otherwise.
    guides: no guidance.
  """

  network: Network
  heads: Heads
  motion: Any
  action: Any
  chunk: int
  motions: int
  tokens: int
  dims: int
  prefix: str
  position: str
  hide_motion: float
  inference: str
  action_weight: float
  gripper: dict[str, tuple[int, ...]]
  steps: int
  guides: bool = False

  @property
  def length(self) -> int:
    """R."""
    return self.motions * (1 + self.tokens)

  def init(self, key: jax.Array, context: Context) -> dict[str, Any]:
    keys, learned = jax.random.split(key, 6), nn.initializers.truncated_normal(0.02)
    width = self.network.width
    params = {
      "network": self.network.init(keys[0], context.tokens, jnp.ones((1, 1, 1, 1), bool))["params"],
      "start": learned(keys[1], (self.motions, width)),
      "action": learned(keys[2], (self.chunk, width)),
    }
    if self.position == "learned":
      params["position"] = learned(keys[3], (self.length, width))
    for name, output, output_key in (
      ("motion_output", self.motion, keys[4]),
      ("action_output", self.action, keys[5]),
    ):
      made = output.init(output_key, width)
      params |= {name: made} if made else {}
    return params

  def losses(
    self,
    params: Params,
    heads: Params,
    context: Context,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The terms of the loss, each as (sum over valid elements, number of them).

    They are "action" (times its weight), "latent", and "gripper" if configured.
    """
    hide_key, motion_key, action_key = jax.random.split(key, 3)
    size, prefix = context.tokens.shape[:2]
    target = jnp.where(batch["latents_mask"][..., None], batch["latents"].astype(jnp.float32), 0)
    target = target.reshape((size, self.motions, self.tokens, self.dims))
    hidden = jax.random.bernoulli(hide_key, self.hide_motion, (size,))
    allowed = masks.layout(
      prefix, self.motions, self.tokens, self.chunk, causal=self.prefix == "causal"
    )
    x = jnp.concatenate(
      [context.tokens, self._motion(params, heads, target), self._queries(params, size)], axis=1
    )
    mask = masks.attention_mask(allowed, context.mask, batch["latents_mask"], hidden, self.tokens)
    x = self.network.apply({"params": params["network"]}, x, mask)[0]
    motion = x[:, prefix : prefix + self.length].reshape((size, self.motions, 1 + self.tokens, -1))[
      :, :, :-1
    ]

    error = self.motion.loss(
      params.get("motion_output"), self._linear(heads, LATENT), motion, target, motion_key
    )
    mask = jnp.broadcast_to(batch["latents_mask"][..., None, None], error.shape)
    terms = {"latent": _sum(error, mask)}
    return terms | self._action_terms(
      params, heads, x[:, prefix + self.length :], batch, action_key
    )

  def _action_terms(
    self,
    params: Params,
    heads: Params,
    queries: jax.Array,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
  ) -> dict[str, tuple[jax.Array, jax.Array]]:
    mask = batch["actions_mask"]
    target = jnp.where(mask, batch["actions"].astype(jnp.float32), 0)
    linear = self._linear(heads, batch["robot"])
    error = self.action.loss(params.get("action_output"), linear, queries, target, key)
    if not self.gripper:
      total, count = _sum(error, mask)
      return {"action": (self.action_weight * total, count)}
    table = np.array(
      [
        [dim in self.gripper.get(name, ()) for dim in range(target.shape[-1])]
        for name in self.heads.robots
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
    heads: Params,
    contexts: list[Context],
    key: jax.Array,
    *,
    group: str,
    robot: str,
    steps: int | None,
    guidance: float,
  ) -> jax.Array:
    """Acts or foresees; arguments as for `dit.DiT.sample`."""
    del guidance
    (context,), steps = contexts, self.steps if steps is None else steps
    size, prefix = context.tokens.shape[:2]
    decodes = group == "latent" or self.inference == "decoded"
    allowed = masks.layout(
      prefix, self.motions, self.tokens, self.chunk, causal=self.prefix == "causal"
    )
    shown = jnp.ones((size, self.motions), bool)
    length = prefix + (self.length if decodes else 0)
    mask = masks.attention_mask(
      allowed, context.mask, shown, jnp.zeros((size,), bool), self.tokens
    )[..., :length]
    motion_key, action_key = jax.random.split(key)

    memory = self.network.empty(size, length)
    _, memory = self.network.apply(
      {"params": params["network"]}, context.tokens, mask[:, :, :prefix], 0, memory
    )
    if decodes:
      z, memory = self._decode(params, heads, mask, memory, motion_key, steps, prefix)
      if group == "latent":
        return z
    rows = mask[:, :, prefix + self.length :]
    queries = self.network.apply(
      {"params": params["network"]}, self._queries(params, size), rows, None, memory
    )[0]
    dims = self.heads.shapes[robot]["decode"][1]
    actions = self.action.sample(
      params.get("action_output"),
      self._linear(heads, robot),
      queries,
      action_key,
      dims=dims,
      steps=steps,
    )
    binary = np.isin(np.arange(dims), self.gripper.get(robot, ()))
    return jnp.where(jnp.asarray(binary)[None, None], jnp.where(actions > 0, 1.0, -1.0), actions)

  def _decode(
    self,
    params: Params,
    heads: Params,
    mask: jax.Array,
    memory: transformer.Memory,
    key: jax.Array,
    steps: int,
    prefix: int,
  ) -> tuple[jax.Array, transformer.Memory]:
    """(motions [B, M, Z], the memory with them in it): one position at a time, each fed what the
    one before it gave.
    """
    size, linear = mask.shape[0], self._linear(heads, LATENT)

    def step(carry: tuple, position: jax.Array) -> tuple[tuple, jax.Array]:
      memory, token = carry
      motion, slot = position // (1 + self.tokens), position % (1 + self.tokens)
      x = jnp.where(slot == 0, params["start"][motion][None], linear("encode", token))
      if self.position == "learned":
        x = x + params["position"][position][None]
      row = jax.lax.dynamic_slice_in_dim(mask, prefix + position, 1, axis=2)
      x, memory = self.network.apply(
        {"params": params["network"]}, x[:, None], row, prefix + position, memory
      )
      token = self.motion.sample(
        params.get("motion_output"),
        linear,
        x[:, 0],
        jax.random.fold_in(key, position),
        dims=self.dims,
        steps=steps,
      )
      return (memory, token), token

    first = jnp.zeros((size, self.dims))
    (memory, _), tokens = jax.lax.scan(step, (memory, first), jnp.arange(self.length))
    tokens = tokens.reshape((self.motions, 1 + self.tokens, size, self.dims))[:, :-1]
    return tokens.transpose((2, 0, 1, 3)).reshape(
      (size, self.motions, self.tokens * self.dims)
    ), memory

  def _motion(self, params: Params, heads: Params, tokens: jax.Array) -> jax.Array:
    """Given motions [B, M, q, d] -> the embedded motion positions [B, R, D]."""
    size, width = tokens.shape[0], self.network.width
    start = jnp.broadcast_to(params["start"][None, :, None], (size, self.motions, 1, width))
    given = self.heads.apply(heads, "encode", tokens, LATENT).astype(jnp.float32)
    x = jnp.concatenate([start, given], axis=2).reshape((size, self.length, width))
    return x + params["position"][None] if self.position == "learned" else x

  def _queries(self, params: Params, size: int) -> jax.Array:
    return blocks.repeat(params["action"], size, jnp.float32)

  def _linear(self, heads: Params, robot: jax.Array | str) -> outputs.Linear:
    return lambda layer, x: self.heads.apply(heads, layer, x, robot)


def _sum(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  return jnp.sum(jnp.where(mask, values, 0)), jnp.sum(mask.astype(jnp.float32))


def build(
  section: dict[str, Any],
  *,
  robots: dict[str, dict[str, int]],
  chunk: int,
  motions: int,
  latent: tuple[int, int],
  trunk_width: int,
  common: dict[str, Any],
) -> GPT:
  """The body from the section model.gpt: fields of Network, the settings of GPT, and those that
  `outputs.build` takes.

  Raises:
    errors.UserError: an unknown or missing key, or a value that cannot be.
  """
  where, section = "model.gpt", dict(section)
  settings = {name: section.pop(name, default) for name, default in SETTINGS.items()}
  for name, valid in (
    ("prefix", PREFIXES),
    ("position", POSITIONS),
    ("inference", INFERENCES),
    ("tokens", TOKENS),
  ):
    config_utils.lookup(dict.fromkeys(valid), settings[name], f"{where}.{name}")
  objective, steps = diffusion.build(section, where)
  motion, action = outputs.build(section, where, objective)
  network = config_utils.instantiate(Network, section, where, **common)
  config_utils.lookup(transformer.ACTIVATIONS, network.activation, f"{where}.activation")
  config_utils.lookup(transformer.INITIALISERS, network.initializer, f"{where}.initializer")
  if network.width != trunk_width or network.width % network.heads:
    raise errors.UserError(
      f"{where}.width {network.width} must be model.trunk.width {trunk_width} and a multiple of "
      f"heads {network.heads}"
    )
  if not 0 <= settings["hide_motion"] <= 1 or settings["action_weight"] < 0 or network.depth < 1:
    raise errors.UserError(
      f"{where}: depth must be at least 1, hide_motion between 0 and 1, action_weight not negative"
    )
  tokens, dims = latent if settings.pop("tokens") == "query" else (1, latent[0] * latent[1])
  shapes = {name: action.layers(network.width, sizes["action"]) for name, sizes in robots.items()}
  for name, sizes in robots.items():
    shapes[name] |= {"state": (sizes["state"], trunk_width)} if sizes["state"] else {}
  shapes[LATENT] = {"encode": (dims, network.width), **motion.layers(network.width, dims)}
  zero = (*(robots if action.zero else ()), *((LATENT,) if motion.zero else ()))
  settings["gripper"] = _gripper(settings["gripper"], robots, action)
  return GPT(
    network,
    Heads(shapes, zero, network.dtype),
    motion,
    action,
    chunk,
    motions,
    tokens,
    dims,
    steps=steps,
    **settings,
  )


def _gripper(
  section: Mapping[str, Any], robots: Mapping[str, Any], action: Any
) -> dict[str, tuple[int, ...]]:
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
