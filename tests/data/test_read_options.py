"""Workers, threads and prefetch that a config leaves open, and the cores that they are chosen
for.
"""

import math
import os
import pathlib
import subprocess
import sys
import types

import jax
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.data import read_options
from como_jax.parallel import distributed
from como_jax.train import reading
from tests.data import makers


def choose(cores, accelerators, codecs=("jpeg",), **given):
  one = read_options.choose(
    **dict(dict(workers=-1, threads=-1, prefetch=-1) | given),
    cores=cores,
    accelerators=accelerators,
    codecs=codecs,
  )
  return one.workers, one.threads, one.prefetch


@pytest.mark.parametrize(
  "cores, accelerators, codecs, expected",
  [
    # the model needs the cores
    (1, 0, ("jpeg",), (0, 4, 8)),
    (2, 0, ("jpeg",), (0, 4, 8)),
    (96, 0, ("h264",), (0, 4, 8)),
    # one worker costs more than it gives
    (1, 1, ("jpeg",), (0, 4, 8)),
    (2, 1, ("jpeg",), (0, 4, 8)),
    (3, 1, ("jpeg",), (2, 2, 4)),
    (16, 1, ("jpeg",), (4, 2, 2)),
    (16, 8, ("jpeg",), (15, 2, 2)),
    (192, 8, ("jpeg",), (32, 2, 2)),
    (96, 1, ("h264",), (12, 2, 2)),
    (96, 1, ("jpeg", "h264"), (12, 2, 2)),
    (4, 1, ("h264",), (3, 2, 3)),
  ],
)
def test_the_choice(cores, accelerators, codecs, expected):
  assert choose(cores, accelerators, codecs) == expected


@pytest.mark.parametrize(
  "room, expected",
  [(48, (15, 2, 2)), (24, (8, 2, 2)), (11, (3, 2, 2)), (6, (2, 2, 2)), (5, (0, 4, 8))],
)
def test_workers_fit_into_shared_memory(room, expected):
  one = read_options.choose(
    workers=-1, threads=-1, prefetch=-1, cores=16, accelerators=8, codecs=("jpeg",), room=room
  )
  assert (one.workers, one.threads, one.prefetch) == expected
  assert one.workers * (one.prefetch + 1) <= room
  assert ("shared memory for" in str(one)) == (one.workers < 15)


def test_the_free_shared_memory_is_looked_at(tmp_path, monkeypatch):
  monkeypatch.setattr(read_options, "SHARED", tmp_path)
  monkeypatch.setattr(
    read_options.shutil, "disk_usage", lambda path: {tmp_path: types.SimpleNamespace(free=64)}[path]
  )
  assert read_options.shared_room(10) == 3
  monkeypatch.setattr(read_options, "SHARED", tmp_path / "none")
  assert read_options.shared_room(10) == math.inf


def test_given_numbers_count():
  assert choose(2, 0, workers=3) == (3, 2, 3)
  assert choose(16, 1, workers=0) == (0, 4, 8)
  assert choose(16, 1, workers=2, threads=0, prefetch=0) == (2, 0, 0)
  assert choose(16, 1, threads=7, prefetch=5) == (4, 7, 5)
  assert read_options.reading_threads(-1) == 4 and read_options.reading_threads(0) == 0


@pytest.mark.parametrize("key", ["workers", "threads", "prefetch"])
def test_impossible_numbers_are_refused_by_name(key):
  with pytest.raises(
    errors.UserError, match=rf"config.data.{key}=-2, expected -1 \(automatic\) or at least 0"
  ):
    choose(2, 0, **{key: -2})


def machine(root, groups, files):
  """A folder that looks like / with control groups and their limits."""
  for name, text in {"proc/self/cgroup": groups, **files}.items():
    path = pathlib.Path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return str(root)


@pytest.mark.parametrize(
  "groups, files, limit",
  [
    ("0::/\n", {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
    (
      "0::/a/b\n",
      {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "150000 50000\n"},
      3,
    ),
    ("0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, math.inf),
    (
      "4:memory:/m\n2:cpu,cpuacct:/x:y\n0::/\n",
      {
        "sys/fs/cgroup/cpu/x:y/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu/x:y/cpu.cfs_period_us": "100000\n",
      },
      0.5,
    ),
    (
      "2:cpu:/x\n",
      {
        "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
      },
      math.inf,
    ),
    ("0::/\n", {}, math.inf),
  ],
)
def test_the_quota_of_a_container_counts(tmp_path, monkeypatch, groups, files, limit):
  root = machine(tmp_path, groups, files)
  monkeypatch.setattr(read_options, "_affinity", lambda: set(range(64)))
  assert read_options.cores(root) == max(1, int(min(64, limit)))
  monkeypatch.setattr(read_options, "_affinity", lambda: {0})
  assert read_options.cores(root) == read_options.cores(str(tmp_path / "nothing")) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_the_affinity_of_the_process_counts():
  code = (
    f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); from como_jax.data "
    "import read_options; print(read_options.cores())"
  )
  assert (
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    == "1\n"
  )


def test_a_config_is_resolved_for_this_process(tmp_path, monkeypatch):
  path, batch = (
    makers.shards(tmp_path / "s", (7, 7)),
    {"frames": jax.ShapeDtypeStruct((2, 10, 10, 3), "uint8")},
  )
  found = {}
  monkeypatch.setattr(read_options, "cores", lambda: 16)
  for backend, processes in (("cpu", 1), ("gpu", 1), ("gpu", 4)):
    monkeypatch.setattr(reading.jax, "default_backend", lambda backend=backend: backend)
    monkeypatch.setattr(reading.jax, "local_device_count", lambda: 1)
    monkeypatch.setattr(distributed, "count_colocated", lambda text, processes=processes: processes)
    found[backend, processes] = str(reading.choose(config_lib.data(), [path], batch))
  assert found == {
    ("cpu", 1): "data workers 0, threads 4, prefetch 8 (CPU cores 16)",
    ("gpu", 1): "data workers 4, threads 2, prefetch 2 (CPU cores 16)",
    ("gpu", 4): "data workers 3, threads 2, prefetch 3 (CPU cores 4)",
  }
  section = config_lib.data(workers=1, threads=3, prefetch=5)
  assert str(reading.choose(section, [path], batch)).startswith(
    "data workers 1, threads 3, prefetch 5"
  )
