"""Compiling without JAX's compilation cache."""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

_NAME = "jax_enable_compilation_cache"


@contextlib.contextmanager
def compiling() -> Iterator[None]:
  """Context in which programs are compiled anew, and are not put into the cache.

  For what a program from the cache lacks: what the compiler dumps, and (on CPUs) the functions that
  serializing it needs. Programs for absent machines can be written to the cache but not read.
  """
  before = getattr(jax.config, _NAME)
  try:
    jax.config.update(_NAME, False)
    compilation_cache.reset_cache()  # JAX looks at the setting once
    yield
  finally:
    jax.config.update(_NAME, before)
    compilation_cache.reset_cache()
