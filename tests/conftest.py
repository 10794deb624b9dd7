"""The suite's settings: 8 CPU devices, no silent broadcasting, quick compilation, its cache shared
by all tests and their subprocesses.
"""

import os
import pathlib
import tempfile

# Most of the suite's time is compilation, and a third of that the optimization of machine code for
# programs that run once. launch/test.sh --all compiles as users do: flags that are given already
# win.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = " ".join(
  [QUICK, os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)
os.environ["JAX_PLATFORMS"] = "cpu"
CACHE = pathlib.Path(tempfile.gettempdir()) / f"como_jax_test_cache_{os.getuid()}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "xla"))
# thousands of small ones, in every process of the suite
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("COMO_JAX_CACHE", str(CACHE / "data"))

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
