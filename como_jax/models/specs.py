"""Records of sizes and settings that several modules share.

Legend: D width, H heads, M width of the MLP, L layers, Q queries, Z latent dimensions per query.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class StackConfig:
  """The settings of a stack of transformer blocks.

  A section of the config holds these fields flat, beside the section's own keys; dtype, scan, remat
  and attention_kernel come from the top of the model section (see `config_utils.instantiate`).

  Attributes:
    width: D.
    depth: L; 0 is the identity.
    num_heads: H, which divides D.
    mlp_dim: M.
    epsilon: of every LayerNorm.
    initializer: a key of `transformer.INITIALIZERS`.
    dtype: of matrix products; parameters, LayerNorm statistics and the softmax are float32.
    scan: whether one compiled layer runs in a loop over stacked parameters.
    remat: a key of `stacks.REMAT`.
    attention_kernel: one of `attention.KERNELS`.
    fused_qkv: whether query, key and value of a sequence are one matrix product.
    token_multiple: sequences are padded to a multiple of so many tokens, once at the start of the
      stack (see `stacks.Stack`).
  """

  width: int
  depth: int
  num_heads: int
  mlp_dim: int
  epsilon: float = 1e-12
  initializer: str = "vit"
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"
  fused_qkv: bool = False
  token_multiple: int = 1

  @property
  def head_dim(self) -> int:
    """D / H."""
    return self.width // self.num_heads


@dataclasses.dataclass(frozen=True)
class LatentSpec:
  """The shape of one latent motion: Q queries with Z dimensions each.

  Attributes:
    num_queries: Q.
    latent_dim: Z.
  """

  num_queries: int
  latent_dim: int

  @property
  def size(self) -> int:
    """Q * Z, the length of a flat latent motion."""
    return self.num_queries * self.latent_dim


@dataclasses.dataclass(frozen=True)
class SampleOptions:
  """What an action head samples, and how.

  Attributes:
    group: "action" or "latent".
    robot: name of the robot, or "latent": whose projections are used.
    num_sampling_steps: of the sampler; None for the configured number.
    guidance_scale: weight of the instruction; 1 = no guidance.
  """

  group: str
  robot: str
  num_sampling_steps: int | None = None
  guidance_scale: float = 1.0
