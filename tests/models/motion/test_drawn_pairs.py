"""Tcl on drawn pairs: their latents, the mean of the gradient, and what the other pairs cost."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import objectives
from como_jax.models import modules
from como_jax.parallel import flops
from como_jax.train import step
from tests.models import tiny
from tests.models.motion.forward import run

KEY = jax.random.key(7)
DRAWN = jnp.array([[1, 2]])  # of the four pairs of two clips of three frames
EVERY = [jnp.array([[pair]]) for pair in range(4)]


@pytest.fixture(scope="module")
def clip():
  """Model, parameters, a batch of two clips of three frames with jittered ones, and the outputs."""
  model, params = tiny.initialized(tiny.MOTION)
  batch = tiny.batch_of(model.inputs_spec(2, 3, jittered=True))
  return model, params, batch, run(model, params, batch)


def rows(x):
  """[E, M, ...] -> [pairs, ...]."""
  return x.reshape((-1, *x.shape[2:]))


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"tcl_gradient": "released"},
    {"idm.inputs": "rgb_diff"},
    {"bottleneck.kind": "vq"},
    {"idm.components": 4, "idm.components_of": "flow"},
    {"idm.components": 4},
  ],
)
def test_drawn_pairs_are_those_of_all(changes):
  model, params = tiny.made(tiny.MOTION, **changes)
  batch = tiny.batch_of(model.inputs_spec(2, 3, jittered=True))
  whole = run(model, params, batch)
  for drawn in (DRAWN, jnp.array([[1], [0]])):
    some = run(model, params, {**batch, "drawn": drawn})
    index = [1, 2]
    for name, value in whole.items():
      if name in ("z_reversed", "z_jittered"):
        assert some[name].shape[:2] == drawn.shape
        np.testing.assert_allclose(
          rows(some[name]), rows(value)[jnp.array(index)], rtol=1e-4, atol=1e-5
        )
      else:
        np.testing.assert_allclose(some[name], value, rtol=1e-4, atol=1e-5)


def test_tokens_of_drawn_pairs(clip):
  model, params, batch, outputs = clip
  tokens = {
    name: jax.jit(model.encode_images)(params, batch[images])
    for name, images in (("frame_tokens", "frames"), ("jittered_tokens", "jittered"))
  }
  some = run(model, params, {"frames": batch["frames"], **tokens, "drawn": DRAWN})
  np.testing.assert_allclose(
    rows(some["z_jittered"]), rows(outputs["z_jittered"])[1:3], rtol=1e-4, atol=1e-5
  )


def test_the_mean_gradient_over_draws_is_the_gradient_of_all_pairs(clip):
  model, params, batch, _ = clip
  objective = objectives.build({"contrastive": {"weight": 1.0}})

  @jax.jit
  def gradient(idm, batch):
    def loss(idm):
      terms = objective(model.forward({**params, "idm": idm}, batch, key=KEY), batch)
      return step.total(terms, objective.weights)

    return jax.grad(loss)(idm)

  whole = gradient(params["idm"], batch)
  parts = [gradient(params["idm"], {**batch, "drawn": drawn}) for drawn in EVERY]
  mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *parts)
  chex.assert_trees_all_close(mean, whole, rtol=1e-3, atol=1e-5)
  # and one draw is not the whole
  assert any(
    np.abs(a - b).max() > 1e-3
    for a, b in zip(jax.tree.leaves(parts[0]), jax.tree.leaves(whole), strict=True)
  )


def test_pairs_that_are_not_drawn_cost_nothing(clip):
  """2 clips of 8 frames: one pair of each instead of seven."""
  model, params, _, _ = clip
  batch = model.inputs_spec(2, 8, jittered=True)

  def operations(objective, frames=batch):
    objective = objectives.build({"contrastive": {"weight": 1.0, **objective}})
    loss = objectives.model_loss(model, objective)
    program = jax.make_jaxpr(lambda p, b: loss(p, b, KEY)["contrastive"])(params, frames)
    return flops.count(program)

  encoder = (
    flops.count(jax.make_jaxpr(lambda p, b: model.encode_images(p, b["jittered"]))(params, batch))
    / 14
  )
  spec = jax.ShapeDtypeStruct((1, 5, 32), jnp.float32)
  queries = flops.count(
    jax.make_jaxpr(lambda p, x: modules.apply(model.qformer, p["idm"]["qformer"], x, x, KEY))(
      params, spec
    )
  )
  bottleneck_size = 2 * 3 * (24 * 24 + 24 * 4)
  saved = operations({}) - operations({"fraction": 1 / 7})
  # 12 jittered frames, 12 jittered and 12 reversed pairs
  np.testing.assert_allclose(saved, 12 * encoder + 24 * (queries + bottleneck_size), rtol=1e-3)
  assert operations({"fraction": 1.0}) == operations({})
