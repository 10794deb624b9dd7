"""A program for GPUs, compiled for the CPU devices of this process."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from como_jax.parallel import hlo, hlo_collectives, hlo_traffic, stand_ins, topology
from como_jax.parallel import mesh as mesh_lib


def traced(name, rows, columns):
  """The gradient of a product in bfloat16 whose weight is spread over the devices, and donated
  weights of which one stays as it is.
  """
  mesh = mesh_lib.make(data=1, fsdp=-1, devices=topology.devices(topology.parse(name)))
  spread = NamedSharding(mesh, PartitionSpec("fsdp"))

  def step(weight, frozen, x):
    def loss(w):
      return (jnp.tanh(x @ w).astype(jnp.float32) ** 2).sum() + frozen.sum()

    return weight - jax.grad(loss)(weight), frozen

  shapes = [
    jax.ShapeDtypeStruct(shape, dtype, sharding=spread)
    for shape, dtype in (
      ((columns, columns), jnp.bfloat16),
      ((columns, 3), jnp.float32),
      ((rows, columns), jnp.bfloat16),
    )
  ]
  return jax.jit(step, donate_argnums=(0, 1), out_shardings=(spread, spread)).trace(*shapes)


def test_collectives_keep_the_precision_that_the_program_was_written_with():
  """By hand: the weight of 64 x 64 in bfloat16 is gathered, and its gradient is scattered."""
  compiled = stand_ins.compile(traced("h100-8", 128, 64))
  program = hlo.parse(compiled.partitioned)
  found = {one.kind: one for one in hlo_collectives.collectives(program, scatter=True)}
  assert found["all-gather"].bytes == found["reduce-scatter"].bytes == 2 * 64 * 64
  kinds = [one.kind for one in hlo_collectives.collectives(program)]
  assert "reduce-scatter" not in kinds and "all-reduce" in kinds
  stats = compiled.program.memory_analysis()
  # of one device: an eighth of the weight, of the frozen one, and of the 128 rows
  assert stats.argument_size_in_bytes == (2 * 64 * 64 + 4 * 64 * 3 + 2 * 128 * 64) // 8
  unchanged = hlo_traffic.unchanged(hlo.parse(compiled.program.as_text()))
  assert unchanged == 4 * 64 * 3 // 8, "the frozen weight alone is not written"


def test_a_program_of_one_device_has_no_collectives():
  compiled = stand_ins.compile(traced("h100-1", 8, 16))
  assert not hlo_collectives.collectives(hlo.parse(compiled.partitioned))


def test_what_does_not_exist_for_cuda_is_refused():
  primitive = jax.extend.core.Primitive("on_a_cpu_only")
  primitive.def_abstract_eval(lambda x: x)
  from jax.interpreters import mlir

  mlir.register_lowering(primitive, lambda context, x: [x], platform="cpu")
  with pytest.raises(NotImplementedError, match="on_a_cpu_only"):
    stand_ins.compile(jax.jit(primitive.bind).trace(jnp.ones(3)))
