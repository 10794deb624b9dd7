"""What fits into memory is found before the first step; what does not is one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors
from como_jax.train import memory


def machine(root, *, available=8, swap=1, limit=None, used=0, inactive=0):
  """Files of a made-up Linux; sizes in GiB."""
  (root / "proc").mkdir(exist_ok=True)
  (root / "proc" / "meminfo").write_text(f"MemTotal: {64 << 20} kB\nMemAvailable: {available << 20} kB\nSwapFree: {swap << 20} kB\n")
  if limit is not None:
    group = root / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text("max\n" if limit == "max" else f"{limit << 30}\n")
    (group / "memory.current").write_text(f"{used << 30}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {inactive << 30}\n")
  return memory.host(root)


def test_free_memory_is_that_of_the_machine_or_of_the_control_group(tmp_path):
  assert machine(tmp_path) == 9 << 30
  assert machine(tmp_path, limit="max") == 9 << 30
  assert machine(tmp_path, limit=6, used=4, inactive=1) == 3 << 30  # cached files give way
  assert machine(tmp_path, limit=6, used=7) == 0
  assert memory.host(tmp_path / "elsewhere") is None


def test_a_program_that_cannot_fit_is_refused_with_what_to_change(monkeypatch):
  need = memory.needed(jax.jit(lambda x: jnp.sin(x) @ x.T).lower(jax.ShapeDtypeStruct((1024, 1024), np.float32)).compile())
  assert need >= 8 << 20  # an argument and a result
  devices = jax.local_devices()[:2]
  monkeypatch.setattr(memory, "host", lambda: 2 * need)
  memory.check(need, devices, batch_size=8, accumulate=1)
  monkeypatch.setattr(memory, "host", lambda: 2 * need - 1)  # CPU devices share the memory of the host
  with pytest.raises(errors.UserError, match=r"needs .* GiB, this machine has free .*batch_size=8, accumulate=1.*train.accumulate.*configs/compile.py"):
    memory.check(need, devices, batch_size=8, accumulate=1)
  monkeypatch.setattr(memory, "host", lambda: None)
  memory.check(1 << 60, devices, batch_size=8, accumulate=1)


def test_out_of_memory_is_one_line(monkeypatch):
  with pytest.raises(errors.OutOfMemory, match=r"^out of memory when it asked for \d+\.\d GiB .*config.train.batch_size.*configs/compile.py.*$") as caught:
    with memory.explained():
      jax.block_until_ready(jax.jit(lambda x: jnp.zeros((1 << 22, 1 << 22)) + x)(1.0).sum())
  assert "\n" not in str(caught.value)
  with pytest.raises(errors.OutOfMemory, match="^out of memory"):
    with memory.explained():
      raise MemoryError
  full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")
  for other in (full, ValueError("RESOURCE_EXHAUSTED in a file name"), jax.errors.JaxRuntimeError("INTERNAL: else")):
    with pytest.raises(type(other)) as caught:
      with memory.explained():
        raise other
    assert caught.value is other
