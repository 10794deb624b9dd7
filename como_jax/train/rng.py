"""Random keys derived from (seed, stream name, step).

No random state is stored, so a run can be resumed on any topology.
"""

import zlib

import jax


def key(seed: int, stream: str, step: jax.typing.ArrayLike = 0) -> jax.Array:
  """Returns the key of a named stream at a step (the step may be traced)."""
  root = jax.random.fold_in(jax.random.key(seed), zlib.crc32(stream.encode()) & 0x7FFFFFFF)
  return jax.random.fold_in(root, step)
