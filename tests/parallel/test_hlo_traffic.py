"""Memory traffic of a small program written by hand."""

from como_jax.parallel import hlo, hlo_traffic
from tests.parallel import hlo_texts


def test_traffic_counts_slices_of_a_stack_as_slices():
  # In the loop, five times: a row of 64 bytes read and written, the index read; the gather's 64 and
  # 256. Outside: 3 x 2048 x 2 and the scatter.
  row, gather = 64 + 64 + 4, 64 + 256
  assert (
    hlo_traffic.traffic(hlo.parse(hlo_texts.TEXT))
    == 5 * (row + gather) + 5 * (4 + 4 + 1) + 2 * 2048 + 2 * 2048 + 2048 + 256
  )


def test_results_that_are_arguments_are_not_written():
  text = """HloModule jit_step

ENTRY %main (frozen: f32[64,8], weight: f32[16], x: bf16[4]) -> (f32[16], f32[64,8], bf16[4]) {
  %frozen = f32[64,8]{1,0} parameter(0)
  %weight = f32[16]{0} parameter(1)
  %x = bf16[4]{0} parameter(2)
  %new = f32[16]{0} add(%weight, %weight)
  ROOT %t = (f32[16]{0}, f32[64,8]{1,0}, bf16[4]{0}) tuple(%new, %frozen, %x)
}
"""
  assert hlo_traffic.unchanged(hlo.parse(text)) == 64 * 8 * 4 + 4 * 2
  alone = text.replace("  ROOT %t", "  %t").replace("  %new", "  ROOT %new")
  assert hlo_traffic.unchanged(hlo.parse(alone)) == 0
  same = text.replace("  ROOT %t", "  %t").replace("  %frozen", "  ROOT %frozen")
  assert hlo_traffic.unchanged(hlo.parse(same)) == 64 * 8 * 4
  assert hlo_traffic.unchanged(hlo.parse("")) == 0


def test_results_that_pass_through_tuples():
  """As the compiler of TPUs writes them: of tuples, also of one in another, and of a loop."""
  text = """HloModule jit_step

ENTRY %main (frozen: f32[64,8], weight: f32[16], x: bf16[4]) -> (f32[64,8], f32[16], bf16[4]) {
  %frozen = f32[64,8]{1,0} parameter(0)
  %weight = f32[16]{0} parameter(1)
  %x = bf16[4]{0} parameter(2)
  %new = f32[16]{0} add(%weight, %weight)
  %inner = (bf16[4]{0}, f32[16]{0}) tuple(%x, %weight)
  %t = (f32[16]{0}, f32[64,8]{1,0}, (bf16[4]{0}, f32[16]{0})) tuple(%new, %frozen, %inner)
  %g0 = f32[16]{0} get-tuple-element(%t), index=0
  %g1 = f32[64,8]{1,0} get-tuple-element(%t), index=1
  %g2 = (bf16[4]{0}, f32[16]{0}) get-tuple-element(%t), index=2
  %g3 = bf16[4]{0} get-tuple-element(%g2), index=0
  %loop = (s32[], f32[99]{0}) while(%inner), condition=%c, body=%b
  %g4 = f32[99]{0} get-tuple-element(%loop), index=1
  ROOT %r = (f32[64,8]{1,0}, f32[16]{0}, bf16[4]{0}) tuple(%g1, %g0, %g3, %g4)
}
"""
  assert hlo_traffic.unchanged(hlo.parse(text)) == 64 * 8 * 4 + 4 * 2
