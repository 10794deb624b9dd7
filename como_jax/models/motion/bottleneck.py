"""Bottlenecks: from the Q-former's outputs to the latent, one module for each published variant.

Legend: B batch, Q queries, W width of the Q-former, Z latent dimensions per query (a motion has
Q*Z), C codes.

All of them are small, so they compute in float32 whatever the model's dtype is. `offset` [B, Q, Z]
is what the linear path (linear_path.py) adds to z. With `zero` the last layer starts at zero, so
that z starts as the offset.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import transformer


class Latent(NamedTuple):
  """What a bottleneck returns.

  Attributes:
    z: [B, Q, Z], the label.
    decoder_input: [B, Q, Z], what the forward dynamics model reads in training: z, or its quantized
      or sampled version.
    terms: extra results of the variant, each [B] or [B, Q].
  """

  z: jax.Array
  decoder_input: jax.Array
  terms: dict[str, jax.Array]


class Continuous(nn.Module):
  """CoMo's bottleneck: Linear W -> W, tanh, Linear W -> Z.

  Source: section "dimension bottleneck" of arXiv 2505.17006v1.
  """

  latent_dim: int
  initializer: str = "vit"
  zero: bool = False

  def setup(self) -> None:
    """Makes the layers."""
    self.down_0, self.down_1 = _projection_layers(self.initializer, self.latent_dim, zero=self.zero)

  def __call__(
    self, hidden: jax.Array, key: jax.Array | None, offset: jax.Array | None = None
  ) -> Latent:
    """Computes the latent.

    Args:
      hidden: [B, Q, W].
      key: of variants that sample; None for labels and evaluation.
      offset: [B, Q, Z], added to z.
    """
    z = _add_offset(_project(self.down_0, self.down_1, hidden), offset)
    return Latent(z, z, {})

  def to_decoder_input(self, z: jax.Array) -> jax.Array:
    """The input of the forward dynamics model [B, Q, Z] for a label `z` [B, Q, Z]."""
    return z


class VQ(nn.Module):
  """Moto's vector quantizer: the nearest of C codes, straight-through gradient.

  The label is the quantized vector.
  """

  latent_dim: int
  num_codes: int = 128
  initializer: str = "vit"

  def setup(self) -> None:
    """Makes the layers."""
    self.down_0, self.down_1 = _projection_layers(self.initializer, self.latent_dim)
    bound = 1.0 / self.num_codes
    self.codebook = self.param(
      "codebook",
      lambda key: jax.random.uniform(
        key, (self.num_codes, self.latent_dim), jnp.float32, -bound, bound
      ),
    )

  def __call__(self, hidden: jax.Array, key: jax.Array | None) -> Latent:
    """As `Continuous`, without an offset."""
    z = _project(self.down_0, self.down_1, hidden)
    codes = self._nearest(z)
    chosen = jnp.take(self.codebook, codes, axis=0)
    terms = {
      "codes": codes,
      "codebook": jnp.mean(jnp.square(chosen - jax.lax.stop_gradient(z)), axis=(1, 2)),
      "commitment": jnp.mean(jnp.square(jax.lax.stop_gradient(chosen) - z), axis=(1, 2)),
    }
    quantized = z + jax.lax.stop_gradient(chosen - z)
    return Latent(self._label(z, quantized), quantized, terms)

  def _nearest(self, z: jax.Array) -> jax.Array:
    """[B, Q, Z] -> int32 [B, Q], by squared distance.

    |z|^2 is the same for all codes and left out.
    """
    size = jnp.sum(jnp.square(self.codebook), axis=1)[None, None]
    return jnp.argmin(size - 2 * jnp.einsum("bqz,cz->bqc", z, self.codebook), axis=-1).astype(
      jnp.int32
    )

  def _label(self, z: jax.Array, quantized: jax.Array) -> jax.Array:
    return quantized

  def to_decoder_input(self, z: jax.Array) -> jax.Array:
    """As `Continuous.to_decoder_input`."""
    return jnp.take(self.codebook, self._nearest(z), axis=0)


class PreVQ(VQ):
  """Trained as VQ; the label is the embedding before quantization.

  The "Pre-VQ" of CoMo's ablation, and of GR00T.
  """

  def _label(self, z: jax.Array, quantized: jax.Array) -> jax.Array:
    return z


class KL(nn.Module):
  """Gaussian with a KL term to the standard normal, as in AdaWorld.

  A sample in training, the mean as label.
  """

  latent_dim: int
  initializer: str = "vit"
  zero: bool = False

  def setup(self) -> None:
    """Makes the layers."""
    self.down_0, self.down_1 = _projection_layers(self.initializer, self.latent_dim, zero=self.zero)
    self.down_log_variance = nn.Dense(
      self.latent_dim, kernel_init=transformer.INITIALIZERS[self.initializer]
    )

  def __call__(
    self, hidden: jax.Array, key: jax.Array | None, offset: jax.Array | None = None
  ) -> Latent:
    """As `Continuous`; without a key the sample is the mean."""
    inner = jnp.tanh(self.down_0(hidden))
    # Bounded so that exp cannot overflow early in training.
    mean = _add_offset(self.down_1(inner), offset)
    log_variance = jnp.clip(self.down_log_variance(inner), -10.0, 10.0)
    kl = 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance, axis=(1, 2))
    sample = mean
    if key is not None:
      sample = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
    return Latent(mean, sample, {"kl": kl})

  def to_decoder_input(self, z: jax.Array) -> jax.Array:
    """As `Continuous.to_decoder_input`."""
    return z


Bottleneck = Continuous | VQ | KL
BOTTLENECKS: dict[str, type[Bottleneck]] = {
  "continuous": Continuous,
  "vq": VQ,
  "pre_vq": PreVQ,
  "kl": KL,
}


class _SameWidth(nn.Module):
  """Linear W -> W, whatever W is."""

  initializer: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dense = nn.Dense(x.shape[-1], kernel_init=transformer.INITIALIZERS[self.initializer])
    nn.share_scope(self, dense)
    return dense(x)


def _projection_layers(
  initializer: str, latent_dim: int, *, zero: bool = False
) -> tuple[nn.Module, nn.Module]:
  last = nn.initializers.zeros if zero else transformer.INITIALIZERS[initializer]
  return _SameWidth(initializer), nn.Dense(latent_dim, kernel_init=last)


def _project(down_0: nn.Module, down_1: nn.Module, hidden: jax.Array) -> jax.Array:
  return down_1(jnp.tanh(down_0(hidden)))


def _add_offset(z: jax.Array, offset: jax.Array | None) -> jax.Array:
  return z if offset is None else z + offset
