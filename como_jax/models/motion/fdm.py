"""The forward dynamics model: current frame and latent -> the future frame (and its features).

Legend: B batch, H W image, N patches, p patch size, Q queries, Z latent dimensions per query, W
width, D width of the encoder. Source: CoMo, arXiv 2505.17006; the released decoder is that of
TencentARC/Moto ("direct", "add").
"""

import dataclasses
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import config_utils, embed, pixels, specs, stacks, transformer

OUTPUTS = ("direct", "residual")
CONDITIONS = ("add", "concat")
FEATURES = ("none", "direct", "residual")


class FDM(nn.Module):
  """The decoder.

  Attributes:
    stack: settings of the transformer.
    latent: Q and Z.
    image_size: H = W.
    patch: p.
    features_width: D, used when `features` is not "none".
    output: "direct" predicts the whole future frame (published). "residual" adds its output, which
      starts at zero, to the current frame: it starts as the copy baseline and need not learn to
      copy first.
    condition: "add" pools all latent tokens into one vector that is added to every patch
      (published). "concat" puts the latent tokens into the sequence.
    features: also predict the future frame's patch features: "none" (published), "direct", or
      "residual" on the current ones.
  """

  stack: specs.StackConfig
  latent: specs.LatentSpec
  image_size: int
  patch: int
  features_width: int
  output: str = "direct"
  condition: str = "add"
  features: str = "none"

  @nn.compact
  def __call__(
    self, frames: jax.Array, latent: jax.Array, features: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Predicts the future frame.

    Args:
      frames: current frames [B, H, W, 3], normalized.
      latent: [B, Q, Z].
      features: the current frames' patch features [B, N, D], needed when the field `features` is
        "residual".

    Returns:
      "pixels" [B, H, W, 3], normalized; and "features" [B, N, D] unless the field is "none". All
      float32.
    """
    chex.assert_shape(frames, (None, self.image_size, self.image_size, 3))
    chex.assert_shape(latent, (frames.shape[0], *dataclasses.astuple(self.latent)))
    width, compute_dtype = self.stack.width, self.stack.dtype
    num_queries = self.latent.num_queries
    kernel_init = transformer.INITIALIZERS[self.stack.initializer]
    learned = nn.initializers.truncated_normal(0.02)
    side = self.image_size // self.patch

    def dense(
      features: int, name: str, init: Any = kernel_init, dtype: Any = compute_dtype
    ) -> nn.Dense:
      return nn.Dense(features, dtype=dtype, kernel_init=init, name=name)

    x = embed.PatchEmbedding(width, self.patch, kernel_init, compute_dtype, name="patch")(frames)
    if self.stack.initializer == "mae":
      position = self.param(
        "position", lambda key: jnp.asarray(embed.sincos_2d(width, side, cls=False))
      )
    else:
      position = self.param("position", learned, (1, side * side, width))
    motion = dense(width, "up_1")(jnp.tanh(dense(self.latent.latent_dim, "up_0")(latent)))
    if self.condition == "add":
      pooled = dense(width, "pool")(motion.reshape((motion.shape[0], num_queries * width)))
      x = x + pooled[:, None] + position.astype(compute_dtype)
    else:
      motion = motion + self.param("latent_position", learned, (1, num_queries, width)).astype(
        compute_dtype
      )
      x = jnp.concatenate([x + position.astype(compute_dtype), motion], axis=1)
    x = stacks.add_stack(self)(x)
    x = transformer.LayerNorm(epsilon=self.stack.epsilon, name="norm")(x[:, : side * side])

    zeros = nn.initializers.zeros
    # Heads in float32: a bfloat16 sum with the current frame would lose the small changes that they
    # predict.
    head = dense(
      3 * self.patch**2, "head", zeros if self.output == "residual" else kernel_init, jnp.float32
    )
    predicted = pixels.pixel_shuffle(head(x), self.patch)
    outputs = {"pixels": frames + predicted if self.output == "residual" else predicted}
    if self.features != "none":
      init = zeros if self.features == "residual" else kernel_init
      change = dense(self.features_width, "features_head", init, jnp.float32)(x)
      if self.features == "residual":
        if features is None:
          raise ValueError("features='residual' needs the features of the current frames")
        chex.assert_equal_shape([features, change])
        change = features + change
      outputs["features"] = change
    return outputs


def check(fdm: FDM) -> FDM:
  """The same module, after a check of its named settings.

  Args:
    fdm: as built from the config.

  Raises:
    errors.UserError: an unknown value, with the nearest valid one.
  """
  for field, value, valid in (
    ("output", fdm.output, OUTPUTS),
    ("condition", fdm.condition, CONDITIONS),
    ("features", fdm.features, FEATURES),
    ("initializer", fdm.stack.initializer, transformer.INITIALIZERS),
  ):
    config_utils.choice(valid, value, f"model.fdm.{field}")
  return fdm
