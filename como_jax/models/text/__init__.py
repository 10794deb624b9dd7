"""Frozen text encoders: one file a kind, listed here.

`convert.text` makes their weights folders.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from como_jax.models import config_utils
from como_jax.models.text import bert, clip, t5

Encoder = bert.Encoder | t5.Encoder | clip.Encoder
KINDS: dict[str, type[Encoder]] = {"bert": bert.Encoder, "t5": t5.Encoder, "clip": clip.Encoder}


def build(
  kind: str, sizes: Mapping[str, Any], *, dtype: Any = jnp.float32, what: str = "text encoder"
) -> Encoder:
  """The encoder of a weights folder.

  `apply({"params": ...}, ids [B, N], mask [B, N])` returns (tokens, pooled).

  Args:
    kind: a key of `KINDS`.
    sizes: the fields of its class, as in "sizes" of the folder's config.json.
    dtype: of matrix products.
    what: name of the source in messages.

  Raises:
    errors.UserError: an unknown kind or size, or a missing one.
  """
  constructor = config_utils.lookup(KINDS, kind, f"{what}: kind")
  return config_utils.instantiate(constructor, sizes, f"{what}: sizes", dtype=dtype)
