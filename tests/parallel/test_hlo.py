"""Compiled text, read: small programs written by hand, and a real one of eight devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.parallel import hlo
from como_jax.parallel import mesh as mesh_lib

TEXT = """HloModule jit_step, is_scheduled=true, num_partitions=8

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (input: f32[64,8]) -> f32[8,8] {
  %input = f32[64,8]{1,0:T(8,128)} parameter(0)
  %all-reduce.9 = f32[64,8]{1,0:T(8,128)} all-reduce(%input), channel_id=9, replica_groups=[1,8]<=[8], use_global_device_ids=true, to_apply=%sum
  %zero = s32[] constant(0)
  ROOT %dynamic-slice.1 = f32[8,8]{1,0} dynamic-slice(%all-reduce.9, %zero, %zero), dynamic_slice_sizes={8,8}
}

%take (stack: f32[5,16], i: s32[]) -> f32[1,16] {
  %stack = f32[5,16]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero.2 = s32[] constant(0)
  ROOT %dynamic-slice.2 = f32[1,16]{1,0} dynamic-slice(%stack, %i, %zero.2), dynamic_slice_sizes={1,16}
}

%body (p: (s32[], bf16[32], f32[5,16])) -> (s32[], bf16[32], f32[5,16]) {
  %p = (s32[], bf16[32]{0}, /*index=2*/f32[5,16]{1,0}) parameter(0)
  %g = s32[] get-tuple-element(%p), index=0
  %w = bf16[32]{0} get-tuple-element(%p), index=1
  %s = f32[5,16]{1,0} get-tuple-element(%p), index=2
  %row = f32[1,16]{1,0} fusion(%s, %g), kind=kLoop, calls=%take
  %gather = bf16[128]{0} all-gather(%w), channel_id=1, replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([4,2]T(1,0)) {'axis_1'}, dimensions={0}, metadata={op_name="jit(step)/blocks" stack_frame_id=4}
  ROOT %t = (s32[], bf16[32]{0}, f32[5,16]{1,0}) tuple(%g, %w, %s)
}

%condition (p.1: (s32[], bf16[32], f32[5,16])) -> pred[] {
  %bound = s32[]{:T(128)} constant(5)
  %p.1 = (s32[], bf16[32]{0}, f32[5,16]{1,0}) parameter(0)
  %g.1 = s32[] get-tuple-element(%p.1), index=0
  ROOT %lt = pred[] compare(%g.1, %bound), direction=LT
}

ENTRY %main (x: f32[64,8], y: (s32[], bf16[32], f32[5,16])) -> f32[8,8] {
  %x = f32[64,8]{1,0} parameter(0)
  %y = (s32[], bf16[32]{0}, f32[5,16]{1,0}) parameter(1)
  %loop = (s32[], bf16[32]{0}, f32[5,16]{1,0}) while(%y), condition=%condition, body=%body
  %all = f32[64,8]{1,0} all-reduce(%x), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum
  %ring = f32[64,8]{1,0} collective-permute(%all), channel_id=3, source_target_pairs={{0,1},{3,4},{5,5}}
  ROOT %scatter = f32[8,8]{1,0} fusion(%ring), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_collectives_with_turns_bytes_and_groups():
  program = hlo.parse(TEXT)
  found = {one.kind: one for one in hlo.collectives(program)}
  assert program.entry == "main" and not program.unknown and len(found) == 4
  gather = found["all-gather"]
  assert (gather.bytes, gather.times, gather.where) == (256, 5, "jit(step)/blocks")
  assert gather.groups == ((0, 2, 4, 6), (1, 3, 5, 7))  # 0..7 as [4, 2], transposed to [2, 4]
  assert (
    found["all-reduce"].groups == ((0, 1, 2, 3), (4, 5, 6, 7)) and found["all-reduce"].bytes == 2048
  )
  assert (
    found["reduce-scatter"].groups == (tuple(range(8)),) and found["reduce-scatter"].bytes == 2048
  )
  assert found["collective-permute"].groups == ((0, 1), (3, 4), (5, 5))


def test_bytes_sent_inside_and_between_slices():
  def one(kind, groups, size=800):
    return hlo.Collective(kind, size, 1, groups, "")

  alone, two = [0] * 8, [0] * 4 + [1] * 4
  everyone = (tuple(range(8)),)
  assert hlo.sent(one("all-reduce", everyone), alone) == (2 * 800 * 7 / 8, 0)
  # Two slices of four: 3/4 twice inside, and a quarter of the array twice halved between them.
  assert hlo.sent(one("all-reduce", everyone), two) == (2 * 800 * 3 / 4, 2 * 200 / 2)
  assert hlo.sent(one("all-reduce", ()), two) == hlo.sent(one("all-reduce", everyone), two)
  assert hlo.sent(one("all-gather", ((0, 1, 2, 3), (4, 5, 6, 7))), two) == (800 * 3 / 4, 0)
  assert hlo.sent(one("reduce-scatter", tuple((i, i + 4) for i in range(4))), two) == (0, 400)
  assert hlo.sent(one("all-to-all", everyone), two) == (800 * 3 / 8, 400)
  assert hlo.sent(one("collective-permute", ((0, 1), (3, 4), (5, 5))), two) == (100, 100)


@pytest.mark.parametrize(
  "notation, expected",
  [
    ("replica_groups={{0,1},{2,3}}", ((0, 1), (2, 3))),
    ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
    ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
    ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
    ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
    ("replica_groups={}", ()),
  ],
)
def test_notations_of_groups(notation, expected):
  text = (
    f"ENTRY %m (x: f32[4]) -> f32[4] {{\n  %x = f32[4]{{0}} parameter(0)\n"
    f"  ROOT %r = f32[4]{{0}} all-reduce(%x), channel_id=1, {notation}, to_apply=%s\n}}\n"
  )
  assert hlo.collectives(hlo.parse(text))[0].groups == expected


def test_traffic_counts_slices_of_a_stack_as_slices():
  # In the loop, five times: a row of 64 bytes read and written, the index read; the gather's 64 and
  # 256. Outside: 3 x 2048 x 2 and the scatter.
  row, gather = 64 + 64 + 4, 64 + 256
  assert (
    hlo.traffic(hlo.parse(TEXT))
    == 5 * (row + gather) + 5 * (4 + 4 + 1) + 2 * 2048 + 2 * 2048 + 2048 + 256
  )


def test_sizes():
  assert (
    hlo.size("(bf16[3,4]{1,0}, pred[7]{0}, s4[8]{0}, f8e4m3fn[2]{0}, token[])") == 24 + 7 + 4 + 2
  )
  assert (hlo.size("f32[128]{0:T(128)S(1)}"), hlo.size("f32[128]{0:T(128)S(1)}", memory=True)) == (
    512,
    0,
  )


SLICES = """HloModule jit_step, num_partitions=4

%piece (a: bf16[64]) -> bf16[64] {
  %a = bf16[64]{0} parameter(0)
  ROOT %gather.1 = bf16[64]{0:S(1)} all-gather(%a), channel_id=5, replica_groups={{0,1,2,3}}, dimensions={0}
}

%piece.1 (b: bf16[64]) -> bf16[64] {
  %b = bf16[64]{0} parameter(0)
  ROOT %gather.2 = bf16[64]{0:S(1)} all-gather(%b), channel_id=5, replica_groups={{0,1,2,3}}, dimensions={0}
}

ENTRY %main (x: f32[16], y: bf16[64]) -> f32[16] {
  %x = f32[16]{0} parameter(0)
  %y = bf16[64]{0} parameter(1)
  %token = token[] after-all()
  %one = bf16[64]{0:S(1)} fusion(%y), kind=kOutput, calls=%piece
  %two = bf16[64]{0:S(1)} fusion(%one), kind=kOutput, calls=%piece.1
  %send = (f32[16]{0}, u32[], token[]) send(%x, %token), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[16]{0}, u32[], token[]) recv(%token), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %done = (f32[16]{0}, token[]) recv-done(%recv), channel_id=2
  %mean = f32[16]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%sum
  ROOT %sum.1 = f32[16]{0} all-reduce(%mean), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%sum
}
"""


def test_the_program_of_one_slice_of_two():
  program = hlo.parse(SLICES)
  found = {one.kind: one for one in hlo.collectives(program)}
  # a channel may be used again
  assert [one.kind for one in hlo.collectives(program)].count("all-reduce") == 2
  # its parts run beside other work: one gather
  assert [one.kind for one in hlo.collectives(program)].count("all-gather") == 1
  assert program.partitions == 4 and found["all-gather"].bytes == 128
  two = [0] * 4 + [1] * 4
  assert hlo.sent(found["all-reduce between slices"], two, partitions=4) == (0, 64)
  assert hlo.sent(found["all-reduce between slices"], [0, 0, 1, 1, 2, 2, 3, 3], partitions=2) == (
    0,
    64 * 2 * 3 / 4,
  )
  assert hlo.sent(found["all-reduce"], two, partitions=4) == (2 * 64 * 3 / 4, 0)


def test_a_real_program_of_eight_devices():
  mesh = mesh_lib.make(data=2, fsdp=4)
  rows = mesh_lib.batch_sharding(mesh)
  split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "fsdp", None))
  w, x = jax.ShapeDtypeStruct((6, 32, 32), jnp.float32), jax.ShapeDtypeStruct((16, 32), jnp.float32)

  def loss(w, x):
    out = jax.lax.scan(lambda c, layer: (jnp.tanh(c @ layer), None), x, w)[0]
    return jnp.square(out).sum()

  compiled = (
    jax.jit(jax.grad(loss), in_shardings=(split, rows), out_shardings=split).lower(w, x).compile()
  )
  program = hlo.parse(compiled.as_text())
  found = hlo.collectives(program)
  assert len(found) == len(set(re.findall(r"channel_id=(\d+)", compiled.as_text())))
  assert not program.unknown and {one.times for one in found} & {6}
  whole = np.prod(w.shape) * 4
  reduced = [one for one in found if one.kind in ("all-reduce", "reduce-scatter")]
  # The whole gradient is reduced between the two halves of the data axis; who else takes part is
  # XLA's choice.
  assert sum(one.bytes * one.times for one in reduced) >= whole / 4
  between = sum(hlo.sent(one, [0] * 4 + [1] * 4).dcn * one.times for one in found)
  assert between >= whole / 4  # each device's quarter crosses at least once
  assert hlo.traffic(program) > whole
