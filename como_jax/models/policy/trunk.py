"""The shared trunk: instruction, images and state as one sequence of context tokens, and a
transformer over it.

Legend: B batch, T frames of history, C camera slots, N+1 tokens of an image (CLS first), L language
tokens, E their width, S = (1+L) + T*C*(n+1) + 1 context tokens, n patches left of N by pooling, D
width.

The order is language, images (oldest frame first, cameras within it), state. What is not there (an
empty camera slot, a short instruction, no state) is masked out of attention. The first language
token is a learned one that stands for "no instruction" and is there exactly when no other language
token is, so that no example is without language.
"""

from typing import Any, NamedTuple

import chex
import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import config_utils, transformer
from como_jax.models.policy import blocks


class Context(NamedTuple):
  """What policies read of an observation.

  Attributes:
    tokens: [B, S, D], float32.
    mask: bool [B, S].
  """

  tokens: jax.Array
  mask: jax.Array


class Trunk(nn.Module):
  """Features of an observation -> context tokens after `depth` layers (0: only embedded) and a
  final LayerNorm.

  Attributes:
    grid: patches along a side of an image; side = grid / pool are left.
    history: T. cameras: C. tokens: L.
  """

  width: int
  depth: int
  heads: int
  mlp: int
  grid: int
  history: int
  cameras: int
  tokens: int
  pool: int = 1
  epsilon: float = 1e-6
  initializer: str = "mae"
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"

  @property
  def size(self) -> int:
    """S."""
    return self.tokens + 2 + self.history * self.cameras * (1 + (self.grid // self.pool) ** 2)

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    images_mask: jax.Array,
    language: jax.Array,
    language_mask: jax.Array,
    state: jax.Array,
    state_mask: jax.Array,
  ) -> Context:
    """Embeds and mixes.

    Args:
      images: [B, T, C, N+1, any], tokens of the image encoder.
      images_mask: bool [B, C].
      language: [B, L, E]. language_mask: bool [B, L].
      state: [B, D], the robot's token. state_mask: bool [B].
    """
    batch = images.shape[0]
    chex.assert_shape(images, (batch, self.history, self.cameras, self.grid**2 + 1, None))
    chex.assert_shape(language, (batch, self.tokens, None))
    chex.assert_shape(state, (batch, self.width))
    learned = nn.initializers.truncated_normal(0.02)

    def dense(name: str) -> nn.Dense:
      return nn.Dense(
        self.width,
        dtype=self.dtype,
        kernel_init=transformer.INITIALISERS[self.initializer],
        name=name,
      )

    def vectors(name: str, *shape: int) -> jax.Array:
      return self.param(name, learned, (*shape, self.width)).astype(self.dtype)

    patches = pool(images, self.pool)
    count = patches.shape[-2]
    seen = dense("image")(patches)
    seen = (
      seen
      + vectors("patch", 1, 1, 1, count)
      + vectors("camera", 1, 1, self.cameras, 1)
      + vectors("time", 1, self.history, 1, 1)
    )
    seen = einops.rearrange(seen, "b t c n d -> b (t c n) d")
    seen_mask = jnp.broadcast_to(
      images_mask[:, None, :, None], (batch, self.history, self.cameras, count)
    ).reshape((batch, -1))

    # Encoders of text differ in scale by orders of magnitude; junk beyond the mask must not reach
    # the norm's gradient.
    language = jnp.where(language_mask[..., None], language.astype(jnp.float32), 0)
    words = transformer.LayerNorm(epsilon=self.epsilon, name="norm_language")(language).astype(
      self.dtype
    )
    words = dense("language")(words) + vectors("language_position", 1, self.tokens)
    nothing = blocks.repeat(self.param("no_language", learned, (1, self.width)), batch, self.dtype)
    state = dense("state")(state)[:, None] + vectors("state_position", 1, 1)

    x = jnp.concatenate([nothing, words, seen, state], axis=1)
    x = nn.with_logical_constraint(x, ("batch", "token", "embed"))
    mask = jnp.concatenate(
      [~language_mask.any(axis=1, keepdims=True), language_mask, seen_mask, state_mask[:, None]],
      axis=1,
    )
    chex.assert_shape(x, (batch, self.size, self.width))
    x = transformer.add_stack(self)(x, mask[:, None, None])
    return Context(transformer.LayerNorm(epsilon=self.epsilon, name="norm")(x), mask)


def pool(tokens: jax.Array, size: int) -> jax.Array:
  """CLS and the means of size x size patches: [..., N+1, D] -> [..., N/size^2 + 1, D]."""
  if size == 1:
    return tokens
  side = round((tokens.shape[-2] - 1) ** 0.5)
  grid = tokens[..., 1:, :].reshape(
    (*tokens.shape[:-2], side // size, size, side // size, size, tokens.shape[-1])
  )
  grid = einops.reduce(grid, "... h p w q d -> ... (h w) d", "mean")
  return jnp.concatenate([tokens[..., :1, :], grid], axis=-2)


def check(trunk: Trunk) -> Trunk:
  """The same module, once its settings are known to fit.

  Raises:
    errors.UserError: naming the setting.
  """
  config_utils.lookup(transformer.INITIALISERS, trunk.initializer, "model.trunk.initializer")
  if trunk.pool < 1 or trunk.grid % trunk.pool:
    raise errors.UserError(
      f"model.pool {trunk.pool} does not divide the {trunk.grid} patches along a side of an image"
    )
  for name, value in (
    ("history", trunk.history),
    ("cameras", trunk.cameras),
    ("language.tokens", trunk.tokens),
  ):
    if value < 1:
      raise errors.UserError(f"model.{name} {value} must be at least 1")
  if trunk.width % trunk.heads:
    raise errors.UserError(
      f"model.trunk.width {trunk.width} is not a multiple of heads {trunk.heads}"
    )
  return trunk


def drop_language(key: jax.Array, mask: jax.Array, rate: float) -> jax.Array:
  """Bool [B, L] with all of an example's tokens off with probability `rate` (training, for
  classifier-free guidance).
  """
  if not rate:
    return mask
  keep = jax.random.bernoulli(key, 1 - rate, (mask.shape[0], 1))
  return mask & keep
