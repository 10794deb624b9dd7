"""What the entry point does before jax is there."""

import subprocess
import sys

import pytest

from tests.end_to_end import program

FAULTS = """
import os, resource, sys
import numpy as np
from como_jax import main
if sys.argv[1] == "keep":
  os.path.exists = lambda path: False  # a host without an accelerator
  main.keep_memory()
for _ in range(40):
  np.ones(2**22)  # 32 MiB, written and freed
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_used_again():
  env = {name: value for name, value in program.environment().items() if not name.startswith("MALLOC_")}
  faults = [int(subprocess.run([sys.executable, "-c", FAULTS, how], cwd=program.ROOT, env=env, capture_output=True, text=True, check=True).stdout)
            for how in ("keep", "leave")]
  assert faults[0] < faults[1] / 4, faults
