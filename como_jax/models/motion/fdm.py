"""The forward dynamics model: current frame and latent -> the future frame (and, if asked, its
features).

Legend: B batch, H W image, N patches, p patch size, Q queries, Z numbers a query, W width, D width
of the encoder. Source: CoMo, arXiv 2505.17006; the released decoder is that of TencentARC/Moto
("direct", "add").
"""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import config_utils, embed, pixels, transformer

OUTPUTS = ("direct", "residual")
CONDITIONS = ("add", "concat")
FEATURES = ("none", "direct", "residual")


class FDM(nn.Module):
  """The decoder.

  Attributes:
    dims: Z.
    features_width: D, used when `features` is not "none".
    output: "direct" predicts the whole future frame (published); "residual" adds its output, which
      starts at zero, to the current frame, so that it begins as the copy baseline instead of
      spending its first minutes on learning to copy.
    condition: "add" pools all latent tokens into one vector that is added to every patch
      (published); "concat" puts the latent tokens into the sequence.
    features: also predict the future frame's patch features: "none" (published), "direct", or
      "residual" on the current ones.
  """

  width: int
  depth: int
  heads: int
  mlp: int
  image_size: int
  patch: int
  queries: int
  dims: int
  features_width: int
  output: str = "direct"
  condition: str = "add"
  features: str = "none"
  initializer: str = "vit"
  epsilon: float = 1e-12
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"

  @nn.compact
  def __call__(
    self, frames: jax.Array, latent: jax.Array, features: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Predicts.

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
    chex.assert_shape(latent, (frames.shape[0], self.queries, self.dims))
    kernel_init = transformer.INITIALISERS[self.initializer]
    learned = nn.initializers.truncated_normal(0.02)
    side = self.image_size // self.patch

    def dense(width: int, name: str, init: Any = kernel_init, dtype: Any = self.dtype) -> nn.Dense:
      return nn.Dense(width, dtype=dtype, kernel_init=init, name=name)

    x = embed.PatchEmbedding(self.width, self.patch, kernel_init, self.dtype, name="patch")(frames)
    if self.initializer == "mae":
      position = self.param(
        "position", lambda key: jnp.asarray(embed.sincos_2d(self.width, side, cls=False))
      )
    else:
      position = self.param("position", learned, (1, side * side, self.width))
    motion = dense(self.width, "up_1")(jnp.tanh(dense(self.dims, "up_0")(latent)))
    if self.condition == "add":
      pooled = dense(self.width, "pool")(
        motion.reshape((motion.shape[0], self.queries * self.width))
      )
      x = x + pooled[:, None] + position.astype(self.dtype)
    else:
      motion = motion + self.param(
        "latent_position", learned, (1, self.queries, self.width)
      ).astype(self.dtype)
      x = jnp.concatenate([x + position.astype(self.dtype), motion], axis=1)
    x = transformer.add_stack(self)(x)
    x = transformer.LayerNorm(epsilon=self.epsilon, name="norm")(x[:, : side * side])

    zeros = nn.initializers.zeros
    # Heads in float32: a bfloat16 sum with the current frame would lose the small changes it is
    # there to predict.
    head = dense(
      3 * self.patch**2, "head", zeros if self.output == "residual" else kernel_init, jnp.float32
    )
    predicted = pixels.pixel_shuffle(head(x), self.patch)
    outputs = {"pixels": frames + predicted if self.output == "residual" else predicted}
    if self.features != "none":
      init = zeros if self.features == "residual" else kernel_init
      change = dense(self.features_width, "features_head", init, jnp.float32)(x)
      if self.features == "residual":
        chex.assert_equal_shape([features, change])
        change = features + change
      outputs["features"] = change
    return outputs


def check(fdm: FDM) -> FDM:
  """The same module, once its named settings are known to be valid.

  Raises:
    errors.UserError: an unknown value, with the nearest valid one.
  """
  for field, valid in (
    ("output", OUTPUTS),
    ("condition", CONDITIONS),
    ("features", FEATURES),
    ("initializer", transformer.INITIALISERS),
  ):
    config_utils.lookup(dict.fromkeys(valid), getattr(fdm, field), f"model.fdm.{field}")
  return fdm
