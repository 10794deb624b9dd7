"""The Q-former of the inverse dynamics model.

Learned queries and the tokens of two frames attend to each other in one joint self-attention.

Legend: B batch, N patches, D width of the encoder, Q queries, W width of the Q-former.
Source: CoMo, arXiv 2505.17006 ("ME-IDM"), whose released code follows the M-Former of
TencentARC/Moto.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import config_utils, specs, stacks, transformer
from como_jax.models.motion import inputs as inputs_lib

# Which of the two token types the second half gets: the released code gives both halves type 0.
TOKEN_TYPES = {"legacy": (0, 0), "distinct": (0, 1)}


class QFormer(nn.Module):
  """[queries, projection(first half), separator, projection(second half)] -> the queries' outputs.

  Attributes:
    stack: settings of the transformer.
    inputs: name of the input variant (see `inputs.INPUTS`).
    num_queries: Q.
    num_patches: N.
    token_types: "legacy" (as released, both halves type 0) or "distinct" (as described).
    patch_order: "raster", or "shuffled" as released (see `inputs.shuffle_patches`).
  """

  stack: specs.StackConfig
  inputs: str
  num_queries: int
  num_patches: int
  token_types: str = "legacy"
  patch_order: str = "raster"

  @nn.compact
  def __call__(self, first: jax.Array, second: jax.Array, key: jax.Array) -> jax.Array:
    """Encodes the motion between two frames.

    Args:
      first: [B, N+1, D], tokens of the first frame, CLS first, in raster order.
      second: [B, N+1, D], tokens of the second frame (or of the pixel difference, see
        `inputs.Input`).
      key: permutes the patches when `patch_order` is "shuffled"; unused otherwise.

    Returns:
      [B, Q, W], float32.
    """
    chex.assert_shape([first, second], (None, self.num_patches + 1, None))
    chex.assert_equal_shape([first, second])
    variant = inputs_lib.INPUTS[self.inputs]
    width, dtype = self.stack.width, self.stack.dtype
    kernel_init = transformer.INITIALIZERS[self.stack.initializer]
    if self.patch_order == "shuffled":
      keys = jax.random.split(key)
      first, second = (
        inputs_lib.shuffle_patches(keys[0], first),
        inputs_lib.shuffle_patches(keys[1], second),
      )
    halves = variant.make_halves(first, second)

    learned = nn.initializers.truncated_normal(0.02)
    length = self.num_queries + variant.num_halves * (self.num_patches + 2) - 1
    queries = self.param("queries", learned, (1, self.num_queries, width))
    types = self.param("token_type", learned, (2, width))
    position = self.param("position", learned, (1, length, width))
    project = nn.Dense(width, dtype=dtype, kernel_init=kernel_init, name="projection")

    def repeat(row: jax.Array) -> jax.Array:
      return jnp.broadcast_to(row, (first.shape[0], *row.shape[1:])).astype(dtype)

    tokens = [repeat(queries)]
    for index, (half, kind) in enumerate(zip(halves, TOKEN_TYPES[self.token_types], strict=False)):
      if index:
        tokens.append(repeat(self.param("separator", learned, (1, 1, width))))
      tokens.append(project(half) + types[kind][None, None].astype(dtype))
    x = jnp.concatenate(tokens, axis=1) + position.astype(dtype)
    x = stacks.add_stack(self)(x, num_outputs=self.num_queries)
    return transformer.LayerNorm(epsilon=self.stack.epsilon, name="norm")(x)


def check(qformer: QFormer) -> QFormer:
  """The same module, after a check of its named settings.

  Args:
    qformer: as built from the config.

  Raises:
    errors.UserError: an unknown value, with the nearest valid one.
  """
  config_utils.lookup(inputs_lib.INPUTS, qformer.inputs, "model.idm.inputs")
  config_utils.lookup(TOKEN_TYPES, qformer.token_types, "model.idm.token_types")
  config_utils.choice(inputs_lib.PATCH_ORDERS, qformer.patch_order, "model.idm.patch_order")
  config_utils.lookup(transformer.INITIALIZERS, qformer.stack.initializer, "model.idm.initializer")
  return qformer
