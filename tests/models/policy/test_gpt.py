"""The autoregressive policy: cached decoding equals full decoding, hidden motion, heads,
grippers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models.policy import masks
from tests.models.policy import small

KEY = jax.random.key(5)


def full(model, params, batch, latents, hidden):
  """Both groups from one uncached pass over the whole sequence with the given motions."""
  head, heads = model.action_head, params["heads"]
  num_tokens, motions = head.latent.num_queries, head.motion_horizon
  images = model._images(params, batch)
  context = model._context(params, batch, images, "arm")
  size, prefix = context.tokens.shape[:2]
  tokens = latents.reshape((size, motions, num_tokens, head.latent.latent_dim))
  x = jnp.concatenate(
    [
      context.tokens,
      head._motion(params["gpt"], heads, tokens),
      head._queries(params["gpt"], size),
    ],
    axis=1,
  )
  allowed = masks.layout(
    prefix, motions, num_tokens, head.action_horizon, causal=head.prefix == "causal"
  )
  mask = masks.attention_mask(
    allowed, context.mask, jnp.ones((size, motions), bool), jnp.full((size,), hidden), num_tokens
  )
  out = head.network.apply({"params": params["gpt"]["network"]}, x, mask)[0]
  motion = out[:, prefix : prefix + head.length].reshape((size, motions, 1 + num_tokens, -1))[
    :, :, :-1
  ]
  predicted = head._linear(heads, "latent")("decode", motion).reshape(latents.shape)
  return predicted, head._linear(heads, "arm")("decode", out[:, prefix + head.length :])


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"gpt.tokens": "motion", "gpt.prefix": "bidirectional", "gpt.position": "none", "scan": False},
  ],
  ids=["published", "other"],
)
def test_cached_decoding_equals_full_decoding(changes):
  model, params = small.made(small.GPT, **changes)
  batch = small.batch(model)

  @small.jit
  def both(params, batch):
    latents = model.sample_latents(params, dict(batch, robot=jnp.ones_like(batch["robot"])), KEY)
    actions = model.sample(params, batch, KEY, robot="arm")
    return latents, actions, full(model, params, batch, latents, hidden=False)

  latents, actions, (predicted, expected) = both(params, batch)
  # decoding found its own fixed point
  np.testing.assert_allclose(predicted, latents, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(expected, actions, rtol=1e-5, atol=1e-5)
  assert np.abs(np.diff(latents, axis=1)).max() > 1e-3


def test_hidden_motion_is_neither_decoded_nor_seen():
  model, params = small.made(small.GPT, **{"gpt.inference": "hidden"})
  batch = small.batch(model)

  @small.jit
  def both(params, batch):
    latents = jax.random.normal(KEY, batch["latents"].shape)
    return (
      model.sample(params, batch, KEY, robot="arm"),
      full(model, params, batch, latents, hidden=True)[1],
      full(model, params, batch, latents, hidden=False)[1],
    )

  actions, hidden, shown = both(params, batch)
  np.testing.assert_allclose(actions, hidden, rtol=1e-5, atol=1e-5)
  assert np.abs(actions - shown).max() > 1e-3


def test_hiding_in_training():
  """The action loss of one example depends on its motion in about half of the draws, and in the
  others not at all.
  """
  model, params, function = small.functions("gpt")
  batch = small.batch(model)
  batch["actions_mask"] &= jnp.arange(4)[:, None, None] == 0
  differences = []
  for number in range(16):
    both = ({**batch, "latents": sign * batch["latents"]} for sign in (1, -1))
    losses = [
      function(params, one, jax.random.key(number), jnp.ones(2))[0][1]["action"][0] for one in both
    ]
    differences.append(abs(float(losses[0] - losses[1])))
  shown = [difference > 0 for difference in differences]
  assert (
    3 <= sum(shown) <= 13 and min(difference for difference in differences if difference) > 1e-4
  )


@pytest.mark.parametrize("rate, sees", [(0.0, True), (1.0, False)])
def test_the_share_of_hidden_motion_is_what_the_config_says(rate, sees):
  model, params = small.made(small.GPT, **{"gpt.motion_dropout": rate})
  batch, function = small.batch(model), small.jit(model.losses)
  for number in range(2):
    both = ({**batch, "latents": sign * batch["latents"]} for sign in (1, -1))
    losses = [float(function(params, one, jax.random.key(number))["action"][0]) for one in both]
    assert (abs(losses[0] - losses[1]) > 1e-4) == sees


@pytest.mark.parametrize("motion, action", [("gmm", "diffusion"), ("diffusion", "regression")])
def test_other_heads(motion, action):
  model, params = small.made(
    small.GPT,
    **{
      "gpt.motion_head": motion,
      "gpt.action_head": action,
      "gpt.objective": "flow",
      "gpt.denoiser": {"width": 16, "depth": 1},
    },
  )
  batch = small.batch(model)

  @small.jit
  def run(params, batch, key):
    return (
      model.losses(params, batch, key),
      model.sample(params, batch, key, robot="arm"),
      model.sample_latents(params, batch, key),
    )

  terms, actions, latents = run(params, batch, KEY)
  spoiled, *_ = run(params, small.junk(batch), KEY)
  np.testing.assert_array_equal(jax.tree.leaves(terms), jax.tree.leaves(spoiled))
  assert (
    np.isfinite(jax.tree.leaves(terms)).all()
    and actions.shape == (4, 4, 3)
    and latents.shape == (4, 2, 6)
  )
  again, other = run(params, batch, KEY)[1:], run(params, batch, jax.random.key(6))[1:]
  np.testing.assert_array_equal(actions, again[0])
  np.testing.assert_array_equal(latents, again[1])
  assert np.abs(latents - other[1]).max() > 1e-3


def test_gripper_and_weight():
  model, params = small.made(small.GPT, **{"gpt.gripper": {"arm": [2]}, "gpt.action_weight": 10.0})
  batch = small.batch(model)
  expected = small.functions("gpt")[2](params, batch, KEY, jnp.ones(2))[0][1]
  terms, actions = small.jit(
    lambda batch: (model.losses(params, batch, KEY), model.sample(params, batch, KEY, robot="arm"))
  )(batch)
  arm = (batch["actions_mask"] & (batch["robot"] == small.ARM)[:, None, None])[..., 2]
  assert (
    terms["gripper"][1] == arm.sum() and terms["action"][1] == expected["action"][1] - arm.sum()
  )
  assert (
    5 * float(expected["action"][0]) < float(terms["action"][0]) < 10 * float(expected["action"][0])
  )
  assert float(terms["gripper"][0]) > 0 and terms["latent"][1] == expected["latent"][1]
  assert set(np.unique(actions[..., 2])) <= {-1.0, 1.0} and len(np.unique(actions[..., 0])) > 4


def test_a_gripper_is_classified_by_the_sign_of_its_target():
  """Logits of 3 everywhere, by the bias alone: cross entropy by hand, and the sample says the upper
  value.
  """
  model, params = small.made(small.GPT, **{"gpt.gripper": {"arm": [2]}})
  decode = params["heads"]["arm"]["decode"]
  run = small.jit(lambda p, b: (model.losses(p, b, KEY), model.sample(p, b, KEY, robot="arm")))
  for logit in (3.0, -3.0):
    heads = {
      **params["heads"],
      "arm": {
        **params["heads"]["arm"],
        "decode": {
          "kernel": jnp.zeros_like(decode["kernel"]),
          "bias": jnp.zeros_like(decode["bias"]).at[2].set(logit),
        },
      },
    }
    changed = {**params, "heads": heads}
    batch = small.batch(model)
    batch["actions"] = jnp.sign(batch["actions"])
    terms, actions = run(changed, batch)
    mine = np.asarray(
      (batch["actions_mask"] & (batch["robot"] == small.ARM)[:, None, None])[..., 2]
    )
    label = np.asarray(batch["actions"][..., 2] > 0)[mine]
    assert 0 < label.sum() < label.size
    chance = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(
      terms["gripper"][0], -np.log(np.where(label, chance, 1 - chance)).sum(), rtol=1e-5
    )
    np.testing.assert_array_equal(actions[..., 2], np.sign(logit))
