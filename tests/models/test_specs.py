"""What the parts of all models share."""

import dataclasses

import jax.numpy as jnp

from como_jax import models
from como_jax.models import specs, transformer
from como_jax.models.motion import bottleneck
from como_jax.models.policy import blocks
from como_jax.models.text import bert, clip, t5
from tests.models import tiny
from tests.models.policy import small


def test_parts_agree_about_what_they_share():
  """The settings that no config section of these models names."""
  fields = {field.name: field.default for field in dataclasses.fields(specs.StackConfig)}
  shared = ("dtype", "scan", "remat", "attention_kernel", "epsilon", "initializer")
  assert [fields[name] for name in shared] == [jnp.float32, True, "none", "auto", 1e-12, "vit"]

  def of(stack):
    return stack.epsilon, stack.initializer

  vit = tiny.section(tiny.MOTION)
  for part in ("idm", "fdm"):
    del vit[part]["initializer"]
  motion, pixels_model = models.build(vit), models.build(tiny.MAE)
  assert {of(part.stack) for part in (motion.qformer, motion.fdm)} == {(1e-12, "vit")}
  of_mae = (motion.encoder, pixels_model.encoder, pixels_model.decoder)
  assert {of(part.stack) for part in of_mae} == {(1e-12, "mae")}
  dit_model, gpt_model = models.build(small.DIT), models.build(small.GPT)
  of_policy = (
    dit_model.trunk,
    dit_model.action_head.context_kv,
    dit_model.action_head.denoiser,
    gpt_model.action_head.network,
  )
  assert {of(part.stack) for part in of_policy} == {(1e-6, "mae")}
  assert blocks.TokenDenoiser.epsilon == t5.Encoder.epsilon == 1e-6
  assert transformer.LayerNorm.epsilon == bert.Encoder.epsilon == 1e-12
  assert clip.Encoder.epsilon == 1e-5
  assert {bottleneck.Continuous.initializer, bottleneck.VQ.initializer} == {"vit"}
  assert bottleneck.VQ.num_codes == 128  # of Moto
  assert (
    t5.Encoder.buckets,
    t5.Encoder.max_distance,
    clip.Encoder.projection,
    clip.Encoder.activation,
  ) == (32, 128, 0, "quick_gelu")


def test_sizes_that_follow_from_others():
  assert specs.StackConfig(width=12, depth=1, num_heads=3, mlp_dim=5).head_dim == 4
  assert specs.LatentSpec(num_queries=3, latent_dim=4).size == 12
