"""Programs written by hand, read: computations, executions, sizes."""

from como_jax.parallel import hlo
from tests.parallel import hlo_texts


def test_a_program_has_computations_with_their_executions():
  program = hlo.parse(hlo_texts.TEXT)
  assert (program.entry, program.unknown, program.partitions) == ("main", (), 8)
  assert (program.times["main"], program.times["body"], program.times["take"]) == (1, 5, 5)
  gather = program.computations["body"]["gather"]
  assert (gather.opcode, gather.shape, gather.operands) == ("all-gather", "bf16[128]{0}", ("w",))
  assert program.computations["body"]["t"].root and not gather.root
  assert hlo.fused(program) == {"take", "sum", "all-reduce-scatter.1"}


def test_sizes():
  assert (
    hlo.size("(bf16[3,4]{1,0}, pred[7]{0}, s4[8]{0}, f8e4m3fn[2]{0}, token[])") == 24 + 7 + 4 + 2
  )
  assert (hlo.size("f32[128]{0:T(128)S(1)}"), hlo.size("f32[128]{0:T(128)S(1)}", memory=True)) == (
    512,
    0,
  )
