"""Inputs of other shapes are refused where they come in, instead of being broadcast or cut."""

import jax
import jax.numpy as jnp

from tests.models import tiny
from tests.models.policy import small
from tests.models.refusals import refused, shape

KEY = jax.random.key(0)


def test_frames_of_a_motion_model():
  model, params = tiny.made(tiny.MOTION, **{"fdm.features": "residual"})
  frame, tokens, z = shape(2, 16, 16, 3), shape(2, 5, 32), shape(2, 12)

  def encode(first, second, pair):
    return model.encode(params, first, second, tokens=pair)

  assert jax.eval_shape(encode, frame, frame, (tokens, tokens)).z.shape == (2, 12)
  refused(encode, shape(2, 16, 8, 3), frame, (tokens, tokens))
  refused(encode, frame, shape(2, 16, 8, 3), (tokens, tokens))
  refused(encode, frame, frame, (shape(2, 4, 32), shape(2, 4, 32)))
  refused(encode, frame, frame, (tokens, shape(1, 5, 32)))
  refused(lambda frames: model.encode_frames(params, frames), shape(2, 24, 16, 3))

  def decode(frame, z):
    return model.decode(params, frame, z)

  assert jax.eval_shape(decode, frame, z)["pixels"].shape == (2, 16, 16, 3)
  refused(decode, frame, shape(1, 12))
  refused(decode, frame, shape(2, 3, 4))

  def forward(frames):
    return model.forward(params, {"frames": frames}, key=KEY)

  refused(forward, shape(2, 16, 16, 3, dtype=jnp.uint8))
  refused(forward, shape(2, 2, 16, 24, 3, dtype=jnp.uint8))

  def draw(frames, latent, features):
    return model.fdm.apply({"params": params["fdm"]}, frames, latent, features)

  patches = shape(2, 4, 32)
  assert jax.eval_shape(draw, frame, shape(2, 3, 4), patches)["features"].shape == (2, 4, 32)
  refused(draw, shape(2, 8, 16, 3), shape(2, 3, 4), patches)
  refused(draw, frame, shape(1, 3, 4), patches)
  refused(draw, frame, shape(2, 3, 4), shape(2, 1, 32))


def test_batches_of_a_policy():
  model, params = small.made(small.DIT)
  spec = model.inputs_spec(2)
  context = jax.eval_shape(
    lambda batch: model._context(params, batch, model._images(params, batch), batch["robot"]), spec
  )
  assert context.tokens.shape == (2, model.trunk.size, 16) and context.mask.shape == (
    2,
    model.trunk.size,
  )
  for name, other in (
    ("actions", shape(2, 3, 5)),
    ("actions", shape(2, 4, 3)),
    ("latents", shape(2, 2, 5)),
    ("latents", shape(2, 1, 6)),
    ("images", shape(2, 2, 16, 16, 3, dtype=jnp.uint8)),
    ("images", shape(2, 1, 2, 16, 16, 3, dtype=jnp.uint8)),
    ("language", shape(2, 4, 6)),
    ("language", shape(1, 3, 6)),
  ):
    refused(lambda batch: model.losses(params, batch, KEY), spec | {name: other})
  refused(lambda batch: model.losses(params, batch, KEY), spec | {"tokens": shape(2, 2, 2, 4, 16)})

  def mix(state, images):
    return model.trunk.apply(
      {"params": params["trunk"]},
      images,
      jnp.ones((2, 2), bool),
      jnp.zeros((2, 3, 6)),
      jnp.ones((2, 3), bool),
      state,
      jnp.ones((2,), bool),
    )

  refused(mix, shape(1, 16), shape(2, 2, 2, 5, 16))
  refused(mix, shape(2, 16), shape(2, 2, 1, 5, 16))
