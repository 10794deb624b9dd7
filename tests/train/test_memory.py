"""What fits into memory is found before the first step; what does not is one line."""

import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors
from como_jax.train import memory


def machine(root, *, available=8, swap=1, limit=None, used=0, inactive=0):
  """Files of a made-up Linux; sizes in GiB."""
  (root / "proc").mkdir(exist_ok=True)
  (root / "proc" / "meminfo").write_text(
    f"MemTotal: {64 << 20} kB\nMemAvailable: {available << 20} kB\nSwapFree: {swap << 20} kB\n"
    "Odd: a: b\n"
  )
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
  need = memory.needed(
    jax.jit(lambda x: jnp.sin(x) @ x.T)
    .lower(jax.ShapeDtypeStruct((1024, 1024), np.float32))
    .compile()
  )
  assert need >= 8 << 20  # an argument and a result
  devices = jax.local_devices()[:2]
  monkeypatch.setattr(memory, "host", lambda: 2 * need)
  memory.check(need, devices, batch_size=8, accumulate=1)
  # CPU devices share the memory of the host
  monkeypatch.setattr(memory, "host", lambda: 2 * need - 1)
  with pytest.raises(
    errors.UserError,
    match=(
      r"needs .* GiB, this machine has free .*batch_size=8, "
      r"accumulate=1.*train.accumulate.*configs/compile.py"
    ),
  ):
    memory.check(need, devices, batch_size=8, accumulate=1)
  monkeypatch.setattr(memory, "host", lambda: None)
  memory.check(1 << 60, devices, batch_size=8, accumulate=1)


def test_out_of_memory_is_one_line(monkeypatch):
  with (
    pytest.raises(
      errors.OutOfMemoryError,
      match=(
        r"^out of memory when it asked for \d+\.\d GiB "
        r".*config.train.batch_size.*configs/compile.py.*$"
      ),
    ) as caught,
    memory.explained(),
  ):
    jax.block_until_ready(jax.jit(lambda x: jnp.zeros((1 << 22, 1 << 22)) + x)(1.0).sum())
  assert "\n" not in str(caught.value)
  with pytest.raises(errors.OutOfMemoryError, match="^out of memory"), memory.explained():
    raise MemoryError
  full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")
  for other in (
    full,
    ValueError("RESOURCE_EXHAUSTED in a file name"),
    jax.errors.JaxRuntimeError("INTERNAL: else"),
  ):
    with pytest.raises(type(other)) as caught, memory.explained():
      raise other
    assert caught.value is other


class Device:
  """A device that says what memory it has."""

  device_kind = "chip"

  def __init__(self, platform, stats=None):
    self.platform, self._stats = platform, stats

  def memory_stats(self):
    return self._stats


def test_a_program_needs_its_arguments_results_temporaries_and_code():
  sizes = dict(
    argument_size_in_bytes=100,
    output_size_in_bytes=20,
    alias_size_in_bytes=8,
    temp_size_in_bytes=3,
    generated_code_size_in_bytes=1,
  )
  assert memory.needed(SimpleNamespace(memory_analysis=lambda: SimpleNamespace(**sizes))) == 116
  assert memory.needed(SimpleNamespace(memory_analysis=lambda: None)) is None


def test_what_a_device_has_left(monkeypatch):
  monkeypatch.setattr(memory, "host", lambda: 7)
  assert memory.available(Device("gpu", {"bytes_limit": 100, "bytes_in_use": 30})) == (
    70,
    "chip has free",
  )
  assert memory.available(Device("gpu", {"bytes_limit": 100})) == (100, "chip has free")
  assert memory.available(Device("gpu", {"other": 1})) is memory.available(Device("gpu")) is None
  assert memory.available(Device("cpu", {"bytes_limit": 100})) == (7, "this machine has free")
  monkeypatch.setattr(memory, "host", lambda: None)
  assert memory.available(Device("cpu")) is None


def test_control_groups_of_version_1_and_what_they_do_not_say(tmp_path):
  assert machine(tmp_path, available=80, swap=1) == 81 << 30
  group = tmp_path / "sys" / "fs" / "cgroup" / "memory"
  group.mkdir(parents=True)
  (group / "memory.limit_in_bytes").write_text("1000\n")
  assert memory.host(tmp_path) == 81 << 30, "no usage"
  (group / "memory.usage_in_bytes").write_text("700\n")
  assert memory.host(tmp_path) == 300, "no statistics"
  (group / "memory.stat").write_text("inactive_file 5\ntotal_inactive_file 50\nother\n")
  assert memory.host(tmp_path) == 350
  (group / "memory.stat").write_text("other 5\n")
  assert memory.host(tmp_path) == 300
  (group / "memory.stat").write_text("total_inactive_file many\n")
  assert memory.host(tmp_path) == 300
  (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 1 kB\n")  # no swap is said
  assert memory.host(tmp_path) == 300
  (tmp_path / "proc" / "meminfo").write_text("MemAvailable: 0 kB\nSwapFree: 0 kB\n")
  assert memory.host(tmp_path) == 0


def test_a_refusal_gives_both_sizes_and_what_to_change(monkeypatch):
  device = Device("gpu", {"bytes_limit": 3 << 30, "bytes_in_use": 1 << 30})
  # accelerators have each their own
  memory.check(2 << 30, [device, device], batch_size=8, accumulate=2)
  monkeypatch.setattr(memory, "host", lambda: 0)
  for other in (Device("gpu", {"bytes_limit": 0}), Device("cpu")):
    # the first one stands for all
    memory.check(2 << 30, [device, other], batch_size=8, accumulate=2)
  with pytest.raises(errors.UserError) as caught:
    memory.check((2 << 30) + 1, [device, device], batch_size=8, accumulate=2, what="the whole")
  assert str(caught.value) == (
    "the whole needs 2.0 GiB, chip has free 2.0 GiB (config.train.batch_size=8, "
    f"accumulate=2): {memory.ADVICE}"
  )
  monkeypatch.setattr(memory, "host", lambda: 0)
  with pytest.raises(
    errors.UserError, match=r"^a train step needs 0.0 GiB, this machine has free 0.0 GiB"
  ):
    memory.check(1, [Device("cpu")], batch_size=8, accumulate=1)


def test_the_size_of_a_tree():
  tree = {"a": np.zeros((2, 3), np.float32), "b": (jax.ShapeDtypeStruct((5,), np.uint8),)}
  assert memory.size(tree) == 29 and memory.size(tree, mesh_size=4) == 7


@pytest.mark.parametrize(
  "text, asked",
  [
    ("Out of memory allocating 60426030968 bytes.", " when it asked for 56.3 GiB"),
    ("failed to allocate 1073741824 bytes", " when it asked for 1.0 GiB"),
    ("Failed allocation of 2147483648", " when it asked for 2.0 GiB"),
    ("allocating 999 bytes", ""),
    ("nothing", ""),
  ],
)
def test_how_much_was_asked_for(text, asked):
  assert memory._requested(text) == asked


@pytest.mark.parametrize(
  "word", ["RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "OUT_OF_MEMORY"]
)
def test_words_for_no_memory(word):
  assert memory.is_out_of_memory(
    jax.errors.JaxRuntimeError(f"x {word} y")
  ) and not memory.is_out_of_memory(RuntimeError(word))
  assert not memory.is_out_of_memory(
    jax.errors.JaxRuntimeError(f"{word}: No space left on device")
  ) and memory.is_out_of_memory(MemoryError())


def test_the_advice_is_that_of_the_task():
  with pytest.raises(errors.OutOfMemoryError) as caught, memory.explained("buy more"):
    raise MemoryError("allocating 2147483648")
  assert (
    str(caught.value)
    == f"out of memory when it asked for 2.0 GiB ({os.uname().nodename}): buy more"
  )
