"""How many processes and threads load data, and how far they read ahead.

These are the values where a config leaves them open (-1).

Where the rule comes from: benchmarks/input_pipeline.py, 224 px, on 2 CPU cores.
- A frame costs 8 to 23% more CPU time in a worker process than in a thread of the training process
  (1 worker against none, three runs: 1365 and 1529, 1493 and 1608, 1382 and 1694 frames a CPU
  second), and a worker costs some 2 s of CPU time to start and 175 MB (299 MB resident, a part of
  it shared). Workers pay where cores would be idle: not where the model itself computes on the CPU,
  nor one alone.
- The published model needs at least 53.7 ms for 64 rows on four v5e chips
  (benchmarks/results/2026-11-26-compile-plans.md), the work of 2.3 cores; for chips five times as
  fast that is about 3 a chip. Computed: it has not been run on accelerators.
- From H.264 a core makes about a third of the frames that it makes from JPEG.
- 1 and 4 threads cost the same CPU time (0.831 and 0.834 of raw decoding); more than one hides the
  time of reading from a disk.
- Workers hand batches over in shared memory, and a full /dev/shm (64 MB in a container, if nobody
  requested for more) kills them: they get half of what is free.
None of these numbers changes a batch.
"""

import dataclasses
import math
import os
import pathlib
import platform
import shutil
from collections.abc import Iterable

from como_jax import errors

AUTOMATIC = -1
_WORKERS = {"jpeg": 4, "h264": 12}  # most that an accelerator needs, by codec
_THREADS, _WORKER_THREADS = 4, 2
_AHEAD = 8  # batches, over all workers; at least 2 for each
SHARED = pathlib.Path("/dev/shm")  # where Linux shows shared memory as files


@dataclasses.dataclass(frozen=True)
class ReadOptions:
  """How batches are read.

  Attributes:
    workers: processes that load; 0: only threads of this one.
    threads: reading threads in each process; 0: none.
    prefetch: batches prepared ahead (for each worker).
    host: what the numbers were chosen for, for messages.
  """

  workers: int = 0
  threads: int = 4
  prefetch: int = 4
  host: str = ""

  def __str__(self) -> str:
    return (
      f"data workers {self.workers}, threads {self.threads}, prefetch {self.prefetch} ({self.host})"
    )


def choose(
  *,
  workers: int,
  threads: int,
  prefetch: int,
  cores: int,
  accelerators: int,
  codecs: Iterable[str],
  room: float = math.inf,
) -> ReadOptions:
  """The numbers of a config's data section, those that are -1 filled in.

  Args:
    workers: processes that load; -1 = automatic.
    threads: of each process; -1 = automatic.
    prefetch: batches ahead; -1 = automatic.
    cores: CPU cores of this process.
    accelerators: devices of this process that are not CPUs.
    codecs: of the shards that are read, see `shard_file.CODECS`.
    room: batches that workers may keep in shared memory, see `shared_room`.

  Raises:
    errors.UserError: a number below -1.
  """
  host = f"CPU cores {cores}"
  if workers == AUTOMATIC:
    # a core for the process that feeds the devices
    max_workers = min(cores - 1, max(_WORKERS[codec] for codec in codecs) * accelerators)
    workers = int(min(max_workers, room // 3))  # a batch that is being used, two that wait
    workers = workers if workers > 1 else 0
    if workers < max_workers and max_workers > 1:
      host += f", shared memory for {int(room)} batches"
  workers = _checked("workers", workers)
  if prefetch == AUTOMATIC:
    fits = room // workers - 1 if workers else math.inf
    prefetch = int(max(2, min(math.ceil(_AHEAD / max(1, workers)), fits)))
  return ReadOptions(
    workers, reading_threads(threads, workers=workers), _checked("prefetch", prefetch), host
  )


def shared_room(batch_bytes: int) -> float:
  """Batches that half of the free shared memory holds; infinite where the machine does not say."""
  return shutil.disk_usage(SHARED).free / 2 // batch_bytes if SHARED.is_dir() else math.inf


def reading_threads(requested: int, *, workers: int = 0) -> int:
  """Threads of each process that reads. Raises `errors.UserError`."""
  return _checked(
    "threads", (_WORKER_THREADS if workers else _THREADS) if requested == AUTOMATIC else requested
  )


def _checked(key: str, value: int) -> int:
  if value < 0:
    raise errors.UserError(
      f"config.data.{key}={value}, expected {AUTOMATIC} (automatic) or at least 0"
    )
  return value


def cores(root: str = "/") -> int:
  """CPU cores that this process may use, at least 1.

  Its affinity, and the quota of its control groups (a container's limit).
  """
  return max(1, int(min(len(_affinity()), _quota(pathlib.Path(root)))))


def core_set_id() -> str:
  """The same text in processes that share their cores.

  These have one machine (also in several containers) and one affinity.
  """
  machine = _words(pathlib.Path("/proc/sys/kernel/random/boot_id")) or [platform.node()]
  return f"{machine[0]} {sorted(_affinity())}"


def _affinity() -> set[int]:
  return (
    os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
  )


def _quota(root: pathlib.Path) -> float:
  """The lowest limit in cores of this process's control groups and their parents.

  Versions 1 and 2; infinite where there is none.
  """
  lowest = math.inf
  for line in _words(root / "proc/self/cgroup", "\n"):
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
      continue
    top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
    folder = top / path.lstrip("/")
    for directory in (folder, *folder.parents[: len(folder.parts) - len(top.parts)]):
      limit = _words(directory / "cpu.max") or _words(directory / "cpu.cfs_quota_us") + _words(
        directory / "cpu.cfs_period_us"
      )
      if len(limit) == 2 and limit[0].isdecimal():  # "max" and -1 are no limit
        lowest = min(lowest, int(limit[0]) / int(limit[1]))
  return lowest


def _words(path: pathlib.Path, separator: str | None = None) -> list[str]:
  """A small file's parts, [] when it is not there."""
  try:
    return path.read_text().strip().split(separator) if path.is_file() else []
  except OSError:
    return []
