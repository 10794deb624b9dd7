"""The linear path from two frames to z: starts as principal components of the difference of their features.

Legend: B batch, N patches, D width of the encoder, G groups of patches, C components, Q queries, Z numbers a
query. The first C of the Q*Z numbers of z are A (F_{t+n} - F_t) plus what the Q-former says, which starts at
zero; so z starts as the components, which cost seconds, and training only has to improve on them. There is no
constant: two equal frames give 0 and a reversed pair the negative.
"""

from collections.abc import Mapping
from typing import Any

import chex
import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import errors

INPUTS = ("feature_diff", "none")  # those that look at the tokens of both frames
BOTTLENECKS = ("continuous", "kl")  # a code book starts far from numbers of unit variance


def pooled(tokens: jax.Array, pool: int) -> jax.Array:
  """[B, N+1, D], CLS first, raster order -> [B, G, D]: means over pool x pool patches, without CLS."""
  side = round((tokens.shape[1] - 1) ** 0.5)
  return einops.reduce(
    tokens[:, 1:], "b (h p w q) d -> b (h w) d", "mean", p=pool, q=pool, h=side // pool, w=side // pool
  )


class Components(nn.Module):
  """z = mean over groups g of kernel[g]^T (difference of group g).

  The mean, not the sum: a step of Adam then moves z as far as one of any other layer of width D would. The
  kernel has N / pool^2 * D * C numbers: 262,144 for 64 patches of width 128 and 32 components, 25.7 million for
  L/16 at 224 px and 128 components, too many there: take pool 2 or 7.

  Attributes:
    count: C.
    patches: N, a square grid.
    pool: patches along a side of a group.
  """

  count: int
  queries: int
  dims: int
  patches: int
  pool: int = 1

  @nn.compact
  def __call__(self, first: jax.Array, second: jax.Array) -> jax.Array:
    """Tokens of the frames, each [B, N+1, D] with CLS first -> [B, Q, Z]; 0 beyond the first C numbers."""
    chex.assert_shape([first, second], (None, self.patches + 1, None))
    difference = pooled(second - first, self.pool).astype(jnp.float32)
    groups, width = difference.shape[1:]
    # Replaced by the principal components when a run starts (tasks/components.py).
    kernel = self.param("kernel", nn.initializers.truncated_normal(0.02), (groups, width, self.count))
    z = jnp.einsum("bgd,gdc->bc", difference, kernel) / groups
    z = jnp.pad(z, ((0, 0), (0, self.queries * self.dims - self.count)))
    return z.reshape((-1, self.queries, self.dims))


def take(section: dict[str, Any]) -> dict[str, int]:
  """Takes this path's keys out of model.idm: {} where it is off, as for a section without them."""
  count, pool = section.pop("components", 0), section.pop("components_pool", 1)
  return {"count": count, "pool": pool} if count else {}


def check(components: Components, idm: Mapping[str, Any], kind: str) -> Components:
  """The same module, once it is known to go with the rest of the model.

  Args:
    components: the module.
    idm: the section model.idm.
    kind: of the bottleneck.

  Raises:
    errors.UserError: naming the key.
  """
  what, most = f"model.idm.components={components.count}", components.queries * components.dims
  if not 0 < components.count <= most:
    raise errors.UserError(
      f"{what}, expected 0 (off) to {most}, the length of z (model.idm.queries x model.bottleneck.dims)"
    )
  side = round(components.patches**0.5)
  if components.pool < 1 or side % components.pool:
    valid = ", ".join(str(i) for i in range(1, side + 1) if side % i == 0)
    raise errors.UserError(
      f"model.idm.components_pool={components.pool} does not divide {side}, the patches along a side: take one of {valid}"
    )
  if kind not in BOTTLENECKS:
    raise errors.UserError(f"{what} needs model.bottleneck.kind={' or '.join(BOTTLENECKS)}, it is {kind!r}")
  if idm["inputs"] not in INPUTS:
    raise errors.UserError(f"{what} needs model.idm.inputs={' or '.join(INPUTS)}, it is {idm['inputs']!r}")
  if idm.get("patch_order", "raster") != "raster":
    raise errors.UserError(f"{what} needs model.idm.patch_order=raster, it is {idm['patch_order']!r}")
  return components
