"""Instructions as vectors: a frozen text encoder or feature hashing, with a cache on disk.

Feature hashing needs no weights. `build(section)` returns an `Encoder`. `encoder(texts)` returns
the inputs "language" and "language_mask" of a policy.
"""

import functools
from typing import Any

from como_jax import errors
from como_jax.language import frozen, hashing
from como_jax.language.encoder import Encoder
from como_jax.language.settings import DTYPES, KINDS, Settings
from como_jax.models import config_utils


def build(section: Any, *, cache: bool = True) -> Encoder:
  """Builds the encoder of a `language` section.

  Args:
    section: dict or ConfigDict with the keys of `Settings`.
    cache: True keeps embeddings on disk; False keeps only the last ones, in memory.

  Raises:
    errors.UserError: an unknown key or value, or weights that are missing or do not fit.
  """
  settings = config_utils.instantiate(Settings, config_utils.plain(section), "language")
  kind = config_utils.lookup(KINDS, settings.kind, "language.kind")
  config_utils.lookup(DTYPES, settings.dtype, "language.dtype")
  for key, minimum in (("num_tokens", 1), ("width", 2)):
    value = getattr(settings, key)
    if type(value) is not int or value < minimum:
      raise errors.UserError(f"language.{key} = {value!r}: expected a whole number >= {minimum}")
  if settings.kind == "hash":
    if settings.weights:
      raise errors.UserError(
        f"language.weights is {settings.weights!r}, but language.kind 'hash' has no weights"
      )
    num_tokens = 1 if settings.pooled else settings.num_tokens
    return Encoder(
      functools.partial(
        hashing.hash_words, width=settings.width, num_tokens=None if settings.pooled else num_tokens
      ),
      width=settings.width,
      num_tokens=num_tokens,
      fingerprint=f"hash-{settings.width}-{'pooled' if settings.pooled else num_tokens}",
    )
  return frozen.build(settings, kind, on_disk=cache)
