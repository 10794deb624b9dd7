"""The shared trunk: a transformer over context tokens of instruction, images and state.

Legend: B batch, T frames of history, C camera slots, N+1 tokens of an image (CLS first), L language
tokens, E their width, S = (1+L) + T*C*(n+1) + 1 context tokens, n patches left of N by pooling, D
width.

The order is language, images (oldest frame first, cameras within it), state. What is missing (an
empty camera slot, a short instruction, no state) is masked out of attention. The first language
token is learned and means "no instruction". It is visible exactly when no other language token is,
so that no example is without language.
"""

from typing import NamedTuple

import chex
import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import config_utils, specs, stacks, transformer
from como_jax.models.policy import blocks


class Context(NamedTuple):
  """An encoded observation, the input of the action head.

  Attributes:
    tokens: [B, S, D], float32.
    mask: bool [B, S].
  """

  tokens: jax.Array
  mask: jax.Array


class Trunk(nn.Module):
  """Features of an observation -> context tokens after the layers and a final LayerNorm.

  With no layers (depth 0) the tokens are only embedded.

  Attributes:
    stack: settings of the transformer.
    grid: patches along a side of an image; side = grid / pool are left.
    history: T.
    num_cameras: C.
    num_tokens: L.
    pool: patches along a side of a pooled group.
  """

  stack: specs.StackConfig
  grid: int
  history: int
  num_cameras: int
  num_tokens: int
  pool: int = 1

  @property
  def size(self) -> int:
    """S."""
    image_tokens = 1 + (self.grid // self.pool) ** 2
    return self.num_tokens + 2 + self.history * self.num_cameras * image_tokens

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
    """Embeds an observation and runs the transformer.

    Args:
      images: [B, T, C, N+1, any], tokens of the image encoder.
      images_mask: bool [B, C].
      language: [B, L, E].
      language_mask: bool [B, L].
      state: [B, D], the robot's token.
      state_mask: bool [B].
    """
    batch, width, dtype = images.shape[0], self.stack.width, self.stack.dtype
    chex.assert_shape(images, (batch, self.history, self.num_cameras, self.grid**2 + 1, None))
    chex.assert_shape(language, (batch, self.num_tokens, None))
    chex.assert_shape(state, (batch, width))
    learned = nn.initializers.truncated_normal(0.02)

    def dense(name: str) -> nn.Dense:
      return nn.Dense(
        width, dtype=dtype, kernel_init=transformer.INITIALIZERS[self.stack.initializer], name=name
      )

    def vectors(name: str, *shape: int) -> jax.Array:
      return self.param(name, learned, (*shape, width)).astype(dtype)

    patches = pool(images, self.pool)
    count = patches.shape[-2]
    images = dense("image")(patches)
    images = (
      images
      + vectors("patch", 1, 1, 1, count)
      + vectors("camera", 1, 1, self.num_cameras, 1)
      + vectors("time", 1, self.history, 1, 1)
    )
    images = einops.rearrange(images, "b t c n d -> b (t c n) d")
    patches_mask = jnp.broadcast_to(
      images_mask[:, None, :, None], (batch, self.history, self.num_cameras, count)
    ).reshape((batch, -1))

    # Text encoders differ in scale by orders of magnitude. Values beyond the mask must not reach
    # the gradient of the norm.
    language = jnp.where(language_mask[..., None], language.astype(jnp.float32), 0)
    words = transformer.LayerNorm(epsilon=self.stack.epsilon, name="norm_language")(language)
    words = dense("language")(words.astype(dtype))
    words = words + vectors("language_position", 1, self.num_tokens)
    nothing = blocks.repeat(self.param("no_language", learned, (1, width)), batch, dtype)
    state = dense("state")(state)[:, None] + vectors("state_position", 1, 1)

    x = jnp.concatenate([nothing, words, images, state], axis=1)
    x = transformer.constrain_tokens(x)
    mask = jnp.concatenate(
      [~language_mask.any(axis=1, keepdims=True), language_mask, patches_mask, state_mask[:, None]],
      axis=1,
    )
    chex.assert_shape(x, (batch, self.size, width))
    x = stacks.add_stack(self)(x, mask[:, None, None])
    return Context(transformer.LayerNorm(epsilon=self.stack.epsilon, name="norm")(x), mask)


def pool(tokens: jax.Array, size: int) -> jax.Array:
  """CLS and the means of size x size patches.

  Args:
    tokens: [..., N+1, D].
    size: patches along a side of a group.

  Returns:
    [..., N / size^2 + 1, D].
  """
  if size == 1:
    return tokens
  side = round((tokens.shape[-2] - 1) ** 0.5)
  grid = tokens[..., 1:, :].reshape(
    (*tokens.shape[:-2], side // size, size, side // size, size, tokens.shape[-1])
  )
  grid = einops.reduce(grid, "... h p w q d -> ... (h w) d", "mean")
  return jnp.concatenate([tokens[..., :1, :], grid], axis=-2)


def check(trunk: Trunk) -> Trunk:
  """The same module, after a check of its settings.

  Args:
    trunk: as built from the config.

  Raises:
    errors.UserError: naming the setting.
  """
  config_utils.lookup(transformer.INITIALIZERS, trunk.stack.initializer, "model.trunk.initializer")
  if trunk.pool < 1 or trunk.grid % trunk.pool:
    raise errors.UserError(
      f"model.pool {trunk.pool} does not divide the {trunk.grid} patches along a side of an image"
    )
  for name, value in (
    ("history", trunk.history),
    ("num_cameras", trunk.num_cameras),
    ("language.num_tokens", trunk.num_tokens),
  ):
    if value < 1:
      raise errors.UserError(f"model.{name} {value} must be at least 1")
  if trunk.stack.width % trunk.stack.num_heads:
    raise errors.UserError(
      f"model.trunk.width {trunk.stack.width} is not a multiple of num_heads "
      f"{trunk.stack.num_heads}"
    )
  return trunk


def drop_language(key: jax.Array, mask: jax.Array, rate: float) -> jax.Array:
  """Drops instructions in training, for classifier-free guidance.

  Args:
    key: chooses the examples.
    mask: bool [B, L].
    rate: probability that all tokens of an example are dropped.

  Returns:
    bool [B, L].
  """
  if not rate:
    return mask
  keep = jax.random.bernoulli(key, 1 - rate, (mask.shape[0], 1))
  return mask & keep
