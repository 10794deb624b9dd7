"""Both policies: shapes, dtypes, gradients, masks, dropout, errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, model_presets, models, trees
from como_jax.models import stacks
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from tests.models.policy import small

KEY = jax.random.key(3)
BOTH = jnp.array([1.0, 1.0])


@pytest.fixture(scope="module", params=["dit", "gpt"])
def case(request):
  model, params, function = small.functions(request.param)
  batch = small.batch(model)
  return request.param, model, params, batch, function


@pytest.fixture(scope="module")
def results(case):
  _, _, params, batch, function = case
  return function(params, batch, KEY, BOTH)


def magnitude(tree):
  return max((float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree)), default=0.0)


def test_terms_are_sums_and_counts(case, results):
  _, _, _, batch, _ = case
  (_, terms), _ = results
  assert set(terms) == {"action", "latent"}
  chex.assert_tree_all_finite(terms)
  assert all(leaf.shape == () and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(terms))
  assert terms["action"][1] == batch["actions_mask"].sum() == 4 * 5 + 2 * 3 + 4 * 3
  assert terms["latent"][1] == batch["latents_mask"].sum() * 6 == (2 + 1 + 2) * 6


def test_every_parameter_has_a_gradient(case, results):
  _, _, params, _, _ = case
  _, gradient = results
  without = {name for name, leaf in trees.flatten(gradient).items() if not np.abs(leaf).max() > 0}
  assert without <= {
    f"{place}/key/bias"
    for place in (
      "trunk/blocks/attention",
      "gpt/network/blocks/attention",
      "encoder/blocks/attention",
      # softmax does not see them
      "dit/denoiser/blocks/attention",
      "dit/memory/blocks/cross_attention",
    )
  }, without
  trainable, fixed = trees.split(params, ("encoder/.*",))
  # what the step takes gradients of
  assert "encoder" not in trainable and set(fixed) == {"encoder"}


def test_key_decides_everything(case, results):
  _, _, params, batch, function = case
  again, other = (function(params, batch, key, BOTH) for key in (KEY, jax.random.key(4)))
  chex.assert_trees_all_equal(again, results)
  assert not np.allclose(other[0][0], results[0][0], rtol=1e-6)


def test_dropped_instructions(case, results):
  """Almost always dropped is as good as never there; with a rate of 0 the instruction is always
  seen.
  """
  kind, model, params, batch, function = case
  silent = function(
    params, dict(batch, language_mask=jnp.zeros_like(batch["language_mask"])), KEY, BOTH
  )[0][1]
  dropping = models.build(small.section(small.BASES[kind], language_dropout=1 - 1e-6))
  dropped = small.jit(dropping.losses)(params, batch, KEY)
  chex.assert_trees_all_close(dropped, silent, rtol=1e-5)
  assert abs(float(results[0][1]["action"][0] - silent["action"][0])) > 1e-3


def test_the_terms_are_named_beforehand(case, results):
  kind, model, *_ = case
  assert set(model.terms) == set(results[0][1])
  grippers = models.build(small.section(small.GPT, **{"gpt.gripper": {"arm": [2]}}))
  assert set(grippers.terms) == {"action", "latent", "gripper"}


def test_what_is_masked_does_not_matter(case, results):
  _, _, params, batch, function = case
  chex.assert_trees_all_equal(function(params, small.junk(batch), KEY, BOTH), results)


def test_padding_of_robots_does_not_matter(case, results):
  kind, model, params, batch, function = case
  spoiled = dict(
    batch, state=jnp.where((batch["robot"] == small.ARM)[:, None], batch["state"], 50.0)
  )
  spoiled["actions"] = batch["actions"].at[1, :, 3:].set(9.0).at[3, :, 3:].set(-9.0)
  chex.assert_trees_all_equal(function(params, spoiled, KEY, BOTH), results)


def test_videos_train_no_robot_and_robots_train_no_latent(case):
  _, _, params, batch, function = case
  none = {
    name: jnp.zeros_like(batch[name]) for name in ("actions_mask", "latents_mask", "state_mask")
  }
  video = function(params, {**batch, **none, "latents_mask": batch["latents_mask"]}, KEY, BOTH)[1][
    "heads"
  ]
  assert magnitude([video["hand"], video["arm"]]) == 0 and magnitude(video["latent"]) > 0
  robot = function(params, {**batch, "latents_mask": none["latents_mask"]}, KEY, BOTH)[1]["heads"]
  assert (
    magnitude(robot["latent"]) == 0 and min(magnitude(robot["hand"]), magnitude(robot["arm"])) > 0
  )
  hand = function(params, {**batch, "robot": jnp.zeros_like(batch["robot"])}, KEY, BOTH)[1]["heads"]
  assert magnitude(hand["arm"]) == 0 and magnitude(hand["hand"]) > 0


def test_scan_equals_loop(case, results):
  kind, _, params, batch, _ = case
  loop = models.build(small.section(small.BASES[kind], scan=False, remat="full"))
  terms = small.jit(loop.losses)(stacks.unstack_layers(params), batch, KEY)
  chex.assert_trees_all_close(terms, results[0][1], rtol=1e-5, atol=1e-5)


def test_bfloat16(case, results):
  kind, _, params, batch, _ = case
  model = models.build(small.section(small.BASES[kind], dtype="bfloat16"))
  terms = small.jit(model.losses)(params, batch, KEY)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(terms))
  chex.assert_trees_all_close(terms, results[0][1], rtol=0.1)
  actions = jax.eval_shape(lambda: model.sample(params, batch, KEY, robot="arm"))
  assert (actions.shape, actions.dtype) == ((4, 4, 3), jnp.float32)


def test_samples(case):
  kind, model, params, batch, _ = case
  seen = {name: leaf for name, leaf in batch.items() if not name.startswith(("actions", "latents"))}
  act = small.jit(lambda batch, key: model.sample(params, batch, key, robot="arm"))
  actions = act(seen, KEY)
  assert actions.shape == (4, 4, 3) and actions.dtype == jnp.float32
  chex.assert_tree_all_finite(actions)
  # robot= decides, not the batch
  np.testing.assert_array_equal(actions, act(dict(seen, robot=jnp.zeros_like(seen["robot"])), KEY))
  junk = {name: leaf for name, leaf in small.junk(batch).items() if name in seen}
  np.testing.assert_array_equal(actions, act(junk, KEY))
  assert np.abs(actions - act(dict(seen, images=255 - seen["images"]), KEY)).max() > 1e-4
  assert np.abs(actions[1] - act(dict(seen, state=-seen["state"]), KEY)[1]).max() > 1e-4
  latents = jax.eval_shape(lambda: model.sample_latents(params, seen, KEY))
  assert (latents.shape, latents.dtype) == ((4, 2, 6), jnp.float32)
  hand = jax.eval_shape(lambda: model.sample(params, seen, KEY, robot="hand"))
  assert hand.shape == (4, 4, 5)


def test_constraints_fit_the_activations(case):
  _, model, params, batch, _ = case
  mesh = mesh_lib.make(data=2, fsdp=2, tensor=2)
  with rules.activations(mesh):
    jaxpr = str(jax.make_jaxpr(model.losses)(params, batch, KEY))
  assert "sharding_constraint" in jaxpr


@pytest.mark.parametrize("name", ["published", "published_gpt"])
def test_published_size_is_sharded(name):
  """The rules know attention and MLP by their names; nothing large is left on every device."""
  mesh = mesh_lib.make(data=1, fsdp=4, tensor=2)
  shapes = trees.flatten(
    jax.eval_shape(models.build(model_presets.preset("policy", name)).init, KEY)
  )
  specs = {path: rules.spec(path, leaf.shape, mesh) for path, leaf in shapes.items()}
  assert not [
    path
    for path, leaf in shapes.items()
    if np.prod(leaf.shape) * 4 > 2**22 and not any(specs[path])
  ]
  products = [
    path for path in shapes if path.endswith("kernel") and ("attention/" in path or "mlp/" in path)
  ]
  assert products and all("tensor" in specs[path] for path in products)


def test_a_robot_adds_its_head_and_nothing_else(case):
  kind, model, *_ = case
  robots = {**small.BASES[kind]["robots"], "arm_2": {"action": 3, "state": 1}}
  before, after = (
    trees.flatten(jax.eval_shape(one.init, KEY))
    for one in (model, models.build({**small.BASES[kind], "robots": robots}))
  )
  added = set(after) - set(before)
  assert added and all(name.startswith("heads/arm_2/") for name in added)
  assert all(after[name].shape == leaf.shape for name, leaf in before.items())


def test_bad_requests_are_named(case):
  kind, model, params, batch, _ = case
  with pytest.raises(errors.UserError, match="'arm'"):
    model.sample(params, batch, KEY, robot="arn")
  with pytest.raises(errors.UserError, match="steps 0"):
    model.sample(params, batch, KEY, robot="arm", num_sampling_steps=0)
  if kind == "gpt":
    with pytest.raises(errors.UserError, match="guidance_scale 2.0"):
      model.sample(params, batch, KEY, robot="arm", guidance_scale=2.0)
