"""Programs that are compiled anew although JAX's compilation cache has them."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from como_jax.parallel import uncached

HIT, MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"


@pytest.fixture(name="events")
def _events(tmp_path):
  """Hits and misses of a cache of its own, as they happen."""
  names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  before = {name: getattr(jax.config, name) for name in names}
  told = []
  jax.monitoring.register_event_listener(lambda name, **more: told.append(name))
  for name, value in zip(names, (str(tmp_path), 0.0), strict=True):
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield lambda: [told.pop(0) for _ in list(told)]
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def test_nothing_is_read_from_the_cache_and_nothing_put_into_it(events, tmp_path):
  def compile(size):
    jax.jit(lambda x: jnp.sin(x) + 1).lower(jnp.ones(size)).compile()
    return [name for name in events() if name in (HIT, MISS)]

  assert compile(3) == [MISS] and compile(3) == [HIT]
  files = sorted(tmp_path.iterdir())
  with pytest.raises(RuntimeError), uncached.compiling():
    assert compile(3) == [] and compile(4) == []
    raise RuntimeError
  assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in files]
  assert compile(3) == [HIT] and compile(4) == [MISS], "the cache is as before"
