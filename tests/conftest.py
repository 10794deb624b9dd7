"""The suite's settings: 8 CPU devices, no silent broadcasting, quick compilation, its cache shared
by all tests and their subprocesses; the longest files first.
"""

import collections
import gc
import os
import pathlib
import tempfile

# Most of the suite's time is compilation, and a third of that the optimization of machine code for
# programs that run once; without any of it (level 0), what runs often takes longer than is saved.
# launch/test.sh --all compiles as users do: flags that are given already win.
QUICK = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = " ".join(
  [QUICK, os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)
os.environ["JAX_PLATFORMS"] = "cpu"
CACHE = pathlib.Path(tempfile.gettempdir()) / f"como_jax_test_cache_{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "xla"))
# thousands of small ones, in every process of the suite
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("COMO_JAX_CACHE", str(CACHE / "data"))
# The suite has a process for each core. Threads of linear algebra in each would wait for each other
# in busy loops, which costs several times what they compute.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
  os.environ.setdefault(name, "1")
# Where Python is to write no bytecode, every process would compile all its sources again.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
  os.environ.setdefault("PYTHONPYCACHEPREFIX", str(CACHE / "bytecode"))

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes objects by the million that live on: Python's default would look through them all
# the time, a tenth of the suite's.
gc.set_threshold(100_000, 20, 100)

# A process that gets one of these last would run on alone. They have few tests, by whose number
# pytest-xdist would order the files. The longest is first.
LONGEST = (
  "end_to_end/test_readme.py",
  "end_to_end/test_kill.py",
  "end_to_end/test_processes.py",
  "docs/test_recipes.py",
  "evaluate/test_picture_probe.py",
  "docs/test_notebook.py",
  "tasks/test_overfit.py",
)


def pytest_configure(config: pytest.Config) -> None:
  if hasattr(config.option, "loadscopereorder"):
    config.option.loadscopereorder = False  # the order is that of the next function


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """The longest files first, then by their numbers of tests; a file's tests stay as they are."""
  root = pathlib.Path(__file__).parent
  ranks = {root / name: i for i, name in enumerate(LONGEST)}
  assert all(path.exists() for path in ranks), "LONGEST names a file that is gone"
  counts = collections.Counter(item.path for item in items)
  items.sort(key=lambda item: (ranks.get(item.path, len(ranks)), -counts[item.path]))


def pytest_collection_finish() -> None:
  gc.freeze()  # modules and tests stay to the end
