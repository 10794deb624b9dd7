"""Programs for GPUs that are not there: compiled for CPU devices that stand in for them.

The compiler of GPUs needs a GPU. What does not depend on it is read off here: that the program
lowers for CUDA, and the program of one device after XLA has partitioned it, with the collectives
and the precision that it was written with. (The compiler of CPUs computes bfloat16 in float32, and
would double them.) The sizes of arguments and results are those of a GPU. Temporaries are what the
compiler of CPUs needs for the same program. Fusions are unknown, and so is the traffic through
memory.
"""

import pathlib
import tempfile
from typing import Any, NamedTuple

import jax

from como_jax.parallel import uncached

# The machine code is never run, so it is not optimized.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_PASS = "spmd-partitioning"


class Compiled(NamedTuple):
  """A compiled program.

  Attributes:
    program: compiled for CPU devices.
    partitioned: text of the program of one device after partitioning, before other changes.
  """

  program: jax.stages.Compiled
  partitioned: str


def compile(traced: Any) -> Compiled:
  """Compiles a program that was traced for CPU devices.

  Args:
    traced: `jax.stages.Traced`.

  Raises:
    jax.errors.JaxRuntimeError: it cannot be compiled.
    NotImplementedError: an operation of it does not exist for CUDA.
  """
  traced.lower(lowering_platforms=("cuda",))
  with tempfile.TemporaryDirectory() as folder, uncached.compiling():
    options = {**QUICK, "xla_dump_to": folder, "xla_dump_hlo_pass_re": _PASS}
    program = traced.lower().compile(options)
    texts = sorted(pathlib.Path(folder).glob(f"*.after_{_PASS}.*.txt"))
    # a program of one device is not partitioned
    return Compiled(program, texts[-1].read_text() if texts else program.as_text() or "")
