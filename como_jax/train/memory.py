"""Checks that a run fits into memory, and conversion of out-of-memory errors.

The check comes before the first step. An error of the machine itself becomes one line.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import jax

from como_jax import errors

GIB = 2**30
ADVICE = (
  "lower config.train.batch_size, raise config.train.accumulate (the same batch in parts), or "
  "spread the weights with config.train.mesh.fsdp; configs/compile.py plans a run for a machine"
)
# for configs without a section `train`
ADVICE_ELSE = "lower the batch size of the task, or give it a machine with more"
_MESSAGES = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "OUT_OF_MEMORY")


def needed(compiled: Any) -> int | None:
  """Bytes that a compiled program needs on one device: arguments, results, temporaries, code.

  None where the backend does not report it.
  """
  stats = compiled.memory_analysis()
  if stats is None:
    return None
  return (
    stats.argument_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes
    + stats.temp_size_in_bytes
    + stats.generated_code_size_in_bytes
  )


class Device(Protocol):
  """What is read of a `jax.Device`."""

  platform: str
  device_kind: str

  def memory_stats(self) -> dict[str, Any] | None:
    """Bytes by what they are used for; None where the backend does not report them."""
    ...


def available(device: Device) -> tuple[int, str] | None:
  """Bytes that one program can use on a device; None where they are unknown.

  CPU devices share the host's memory.

  Returns:
    (bytes, the owner of the memory, for messages).
  """
  stats = device.memory_stats() if device.platform != "cpu" else None
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0), f"{device.device_kind} has free"
  if device.platform != "cpu":
    return None
  free = host()
  return None if free is None else (free, "this machine has free")


def host(root: pathlib.Path = pathlib.Path("/")) -> int | None:
  """Bytes that this process can still allocate; None where they are unknown.

  This is the free memory and swap of the machine, or the rest of the control group's limit if that
  is smaller.

  Args:
    root: of the file system.
  """
  limits = []
  with contextlib.suppress(OSError, KeyError, ValueError):
    lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    limits.append(sum(int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree")))
  groups = [
    (
      "sys/fs/cgroup/memory.max",
      "sys/fs/cgroup/memory.current",
      "sys/fs/cgroup/memory.stat",
      "inactive_file",
    )
  ]
  groups.append(
    (
      "sys/fs/cgroup/memory/memory.limit_in_bytes",
      "sys/fs/cgroup/memory/memory.usage_in_bytes",
      "sys/fs/cgroup/memory/memory.stat",
      "total_inactive_file",
    )
  )
  for limit, usage, statistics, reclaimable in groups:  # cgroup version 2, then version 1
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", which means no limit
      used = int((root / usage).read_text()) - _statistic(root / statistics, reclaimable)
      limits.append(int((root / limit).read_text()) - used)
  return max(0, min(limits)) if limits else None


def _statistic(path: pathlib.Path, name: str) -> int:
  """Value of one line of a cgroup's memory.stat; 0 where it is missing."""
  with contextlib.suppress(OSError, ValueError):
    return int(
      next(
        (line.split()[1] for line in path.read_text().splitlines() if line.split()[:1] == [name]), 0
      )
    )
  return 0


def check(
  need: int,
  devices: Sequence[Device],
  *,
  batch_size: int,
  accumulate: int,
  what: str = "a train step",
) -> None:
  """Refuses a program that does not fit into memory.

  Args:
    need: bytes on one device.
    devices: the devices of this process that run the program.
    batch_size: of the run, for the message.
    accumulate: of the run, for the message.
    what: name of the program, for the message.

  Raises:
    errors.UserError: gives both sizes and the settings to change.
  """
  free = available(devices[0])
  need *= len(devices) if devices[0].platform == "cpu" else 1
  if free is not None and need > free[0]:
    raise errors.UserError(
      f"{what} needs {need / GIB:.1f} GiB, {free[1]} {free[0] / GIB:.1f} GiB "
      f"(config.train.batch_size={batch_size}, accumulate={accumulate}): {ADVICE}"
    )


def size(tree: Any, *, mesh_size: int = 1) -> int:
  """Minimum bytes of a pytree of arrays or shapes on one of `mesh_size` devices."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) // mesh_size


@contextlib.contextmanager
def explained(advice: str = ADVICE):
  """Context that converts an out-of-memory error to `errors.OutOfMemoryError`.

  Its message is one line with the advice.
  """
  try:
    yield
  except (RuntimeError, ValueError, MemoryError) as error:
    if not is_out_of_memory(error):
      raise
    raise errors.OutOfMemoryError(
      f"out of memory{_requested(str(error))} ({os.uname().nodename}): {advice}"
    ) from error


def is_out_of_memory(error: BaseException) -> bool:
  """Whether jax or numpy could not get memory; TensorStore's full-disk error looks similar."""
  if isinstance(error, MemoryError):
    return True
  return (
    isinstance(error, jax.errors.JaxRuntimeError)
    and any(message in str(error) for message in _MESSAGES)
    and "No space left" not in str(error)
  )


def _requested(text: str) -> str:
  """Size of the failed allocation in a message, as a part of our message; "" when unknown."""
  match = re.search(r"allocat\w+ (?:of )?(\d{4,})", text)
  return f" when it asked for {int(match[1]) / GIB:.1f} GiB" if match else ""
