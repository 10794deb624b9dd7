"""Masked autoencoder: a small decoder predicts the pixels of the patches the encoder did not see.

The encoder sees a quarter of the patches.

Legend: B batch, H W image, N patches, V visible patches, D width of the encoder, P values of a
patch (3*p*p). Source: He et al., arXiv 2111.06377, section 3 and appendix A.1.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import config_utils, embed, modules, pixels, specs, stacks, transformer
from como_jax.models.backbones import mae_vit


class Decoder(nn.Module):
  """Visible tokens -> a prediction for every patch.

  Attributes:
    stack: settings of the transformer.
    grid: patches along a side of an image.
    patch: pixels along a side of a patch.
  """

  stack: specs.StackConfig
  grid: int
  patch: int

  @nn.compact
  def __call__(self, tokens: jax.Array, ids_restore: jax.Array) -> jax.Array:
    """Predicts the pixels of all patches.

    Args:
      tokens: [B, V+1, D], CLS first.
      ids_restore: int [B, N], the index of patch i in the list of visible and then hidden patches.

    Returns:
      [B, N, P], float32.
    """
    width, dtype = self.stack.width, self.stack.dtype
    kernel_init = config_utils.lookup(
      transformer.INITIALIZERS, self.stack.initializer, "initializer"
    )
    batch_size, num_patches = ids_restore.shape
    x = nn.Dense(width, dtype=dtype, kernel_init=kernel_init, name="embed")(tokens)
    blank = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, width)).astype(dtype)
    position = self.param(
      "position", lambda key: jnp.asarray(embed.sincos_2d(width, self.grid, cls=True))
    )
    hidden = jnp.broadcast_to(blank, (batch_size, num_patches + 1 - x.shape[1], width))
    ordered = jnp.take_along_axis(
      jnp.concatenate([x[:, 1:], hidden], axis=1), ids_restore[..., None], axis=1
    )
    x = jnp.concatenate([x[:, :1], ordered], axis=1) + position.astype(dtype)
    x = stacks.add_stack(self)(x)
    x = transformer.LayerNorm(epsilon=self.stack.epsilon, name="norm")(x)[:, 1:]
    return nn.Dense(3 * self.patch**2, dtype=jnp.float32, kernel_init=kernel_init, name="head")(x)


def random_mask(
  key: jax.Array, batch_size: int, num_patches: int, num_visible: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """A random choice of patches per frame.

  Args:
    key: chooses the patches.
    batch_size: B.
    num_patches: N.
    num_visible: V.

  Returns:
    ids_keep int [B, V], ids_restore int [B, N], mask float32 [B, N] (1 = hidden).
  """
  order = jnp.argsort(jax.random.uniform(key, (batch_size, num_patches)), axis=1)
  ids_restore = jnp.argsort(order, axis=1)
  return order[:, :num_visible], ids_restore, (ids_restore >= num_visible).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class MAEModel:
  """The record that a task works with; see `models.build`.

  Attributes:
    config: the model section it was built from.
    encoder: of frames.
    decoder: of visible tokens.
    mask_ratio: share of the patches that are hidden.
    normalize_target: whether the target is normalized per patch.
    frozen: patterns of parameter names that are not trained unless the config says otherwise.
  """

  config: dict[str, Any]
  encoder: mae_vit.Encoder
  decoder: Decoder
  mask_ratio: float
  normalize_target: bool
  frozen: tuple[str, ...] = (r"(encoder|decoder)/position",)

  def inputs_spec(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What `forward` reads: uint8 frames [`batch_size`, H, W, 3]."""
    side = self.encoder.image_size
    return {"frames": jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.uint8)}

  @property
  def num_patches(self) -> int:
    """N."""
    return self.decoder.grid**2

  @property
  def num_visible(self) -> int:
    """V."""
    return max(1, int(self.num_patches * (1 - self.mask_ratio)))

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh float32 parameters under "encoder" and "decoder", drawn with `key`."""
    side = self.encoder.image_size
    encoder_key, decoder_key = jax.random.split(key)
    return {
      "encoder": self.encoder.init(encoder_key, jnp.zeros((1, side, side, 3)))["params"],
      "decoder": self.decoder.init(
        decoder_key,
        jnp.zeros((1, self.num_visible + 1, self.encoder.width)),
        jnp.zeros((1, self.num_patches), jnp.int32),
      )["params"],
    }

  def encode_frames(self, params: Mapping[str, Any], frames: jax.Array) -> jax.Array:
    """All tokens [B, N+1, D] of normalized `frames` [B, H, W, 3], none masked."""
    return modules.apply(self.encoder, params["encoder"], frames)

  def forward(
    self, params: Mapping[str, Any], batch: Mapping[str, jax.Array], *, key: jax.Array
  ) -> dict[str, jax.Array]:
    """Masks, encodes, predicts.

    Args:
      params: as from `init`.
      batch: "frames" uint8 [B, H, W, 3].
      key: chooses the masked patches.

    Returns:
      "patches" and "target" [B, N, P], where the target is normalized by each patch's mean and
      deviation if `normalize_target`; "mask" [B, N] (1 = predicted); "pixels" [B, H, W, 3]: the
      frame with its hidden patches filled in, for pictures.
    """
    side = self.encoder.image_size
    chex.assert_shape(batch["frames"], (None, side, side, 3))
    frames = pixels.normalize(batch["frames"])
    ids_keep, ids_restore, mask = random_mask(
      key, frames.shape[0], self.num_patches, self.num_visible
    )
    tokens = modules.apply(self.encoder, params["encoder"], frames, ids_keep)
    predicted = modules.apply(self.decoder, params["decoder"], tokens, ids_restore)
    original = pixels.patchify(frames, self.decoder.patch)
    target, filled = original, predicted
    if self.normalize_target:
      mean = original.mean(axis=-1, keepdims=True)
      deviation = jnp.sqrt(original.var(axis=-1, keepdims=True, ddof=1) + 1e-6)
      target, filled = (original - mean) / deviation, predicted * deviation + mean
    filled = mask[..., None] * filled + (1 - mask[..., None]) * original
    filled = pixels.unpatchify(filled, self.decoder.patch)
    return {"patches": predicted, "target": target, "mask": mask, "pixels": filled}
