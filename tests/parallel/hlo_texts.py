"""Small programs written by hand, as the compiler writes them."""

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
