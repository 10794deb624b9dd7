"""Collectives of small programs written by hand, and of a real one of eight devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.parallel import hlo, hlo_collectives, hlo_traffic
from como_jax.parallel import mesh as mesh_lib
from tests.parallel import hlo_texts


def test_collectives_with_turns_bytes_and_groups():
  program = hlo.parse(hlo_texts.TEXT)
  found = {one.kind: one for one in hlo_collectives.collectives(program)}
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


@pytest.mark.parametrize(
  "user, kind",
  [
    ("dynamic-slice(%all, %zero), dynamic_slice_sizes={8}", "reduce-scatter"),
    ("negate(%all)", "all-reduce"),
  ],
)
def test_an_all_reduce_of_which_parts_are_used(user, kind):
  text = f"""HloModule jit_step, num_partitions=8

ENTRY %main (x: f32[64]) -> f32[8] {{
  %x = f32[64]{{0}} parameter(0)
  %zero = s32[] constant(0)
  %all = f32[64]{{0}} all-reduce(%x), channel_id=1, replica_groups=[1,8]<=[8]
  %part = f32[8]{{0}} dynamic-slice(%all, %zero), dynamic_slice_sizes={{8}}
  ROOT %other = f32[8]{{0}} {user}
}}
"""
  program = hlo.parse(text)
  assert [one.kind for one in hlo_collectives.collectives(program, scatter=True)] == [kind]
  assert [one.kind for one in hlo_collectives.collectives(program)] == ["all-reduce"]
  unused = hlo.parse(text.replace("%all)", "%x)").replace("(%all,", "(%x,"))
  found = hlo_collectives.collectives(unused, scatter=True)
  assert [one.kind for one in found] == ["all-reduce"]


def test_bytes_sent_inside_and_between_slices():
  def one(kind, groups, size=800):
    return hlo_collectives.Collective(kind, size, 1, groups, "")

  alone, two = [0] * 8, [0] * 4 + [1] * 4
  everyone = (tuple(range(8)),)
  assert hlo_collectives.sent(one("all-reduce", everyone), alone) == (2 * 800 * 7 / 8, 0)
  # Two slices of four: 3/4 twice inside, and a quarter of the array twice halved between them.
  assert hlo_collectives.sent(one("all-reduce", everyone), two) == (2 * 800 * 3 / 4, 2 * 200 / 2)
  assert hlo_collectives.sent(one("all-reduce", ()), two) == hlo_collectives.sent(
    one("all-reduce", everyone), two
  )
  assert hlo_collectives.sent(one("all-gather", ((0, 1, 2, 3), (4, 5, 6, 7))), two) == (
    800 * 3 / 4,
    0,
  )
  assert hlo_collectives.sent(one("reduce-scatter", tuple((i, i + 4) for i in range(4))), two) == (
    0,
    400,
  )
  assert hlo_collectives.sent(one("all-to-all", everyone), two) == (800 * 3 / 8, 400)
  assert hlo_collectives.sent(one("collective-permute", ((0, 1), (3, 4), (5, 5))), two) == (
    100,
    100,
  )


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
  assert hlo_collectives.collectives(hlo.parse(text))[0].groups == expected


def test_the_program_of_one_slice_of_two():
  program = hlo.parse(hlo_texts.SLICES)
  found = {one.kind: one for one in hlo_collectives.collectives(program)}
  # a channel may be used again
  assert [one.kind for one in hlo_collectives.collectives(program)].count("all-reduce") == 2
  # its parts run beside other work: one gather
  assert [one.kind for one in hlo_collectives.collectives(program)].count("all-gather") == 1
  assert program.partitions == 4 and found["all-gather"].bytes == 128
  two = [0] * 4 + [1] * 4
  assert hlo_collectives.sent(found["all-reduce between slices"], two, partitions=4) == (0, 64)
  assert hlo_collectives.sent(
    found["all-reduce between slices"], [0, 0, 1, 1, 2, 2, 3, 3], partitions=2
  ) == (0, 64 * 2 * 3 / 4)
  assert hlo_collectives.sent(found["all-reduce"], two, partitions=4) == (2 * 64 * 3 / 4, 0)


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
  found = hlo_collectives.collectives(program)
  assert len(found) == len(set(re.findall(r"channel_id=(\d+)", compiled.as_text())))
  assert not program.unknown and {one.times for one in found} & {6}
  whole = np.prod(w.shape) * 4
  reduced = [one for one in found if one.kind in ("all-reduce", "reduce-scatter")]
  # The whole gradient is reduced between the two halves of the data axis; who else takes part is
  # XLA's choice.
  assert sum(one.bytes * one.times for one in reduced) >= whole / 4
  between = sum(hlo_collectives.sent(one, [0] * 4 + [1] * 4).dcn * one.times for one in found)
  assert between >= whole / 4  # each device's quarter crosses at least once
  assert hlo_traffic.traffic(program) > whole
