"""The policy that training goes on from: what must be the same, and the parameters it gives."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np

from como_jax import config as config_lib
from como_jax.assembly import policy_start
from como_jax.data import policy_facts, policy_spec
from tests.assembly.starting import ARM, started
from tests.refusals import text_of

LATENT = policy_facts.LatentMotion("aa", 0.5, num_queries=6, latent_dim=7)


def test_a_policy_to_start_from_had_frames_robots_and_labels_of_the_same_kind():
  def check(start=None, facts=(), latent=None, resize="squash"):
    return policy_start.check(start or started(), dict(facts), latent, resize=resize)

  assert check() is check(latent=LATENT) is check(facts={"arm": ARM, "new": ARM}) is None
  assert text_of(lambda: check(started(resize="crop"))) == (
    "the data were ingested with resize='squash', those of the policy 'INIT' to start from with "
    "'crop': ingest them in the same way"
  )
  later = dataclasses.replace(LATENT, latent_offset_seconds=0.25)
  assert text_of(lambda: check(latent=later)) == (
    "latent_offset_seconds of the labels is 0.25, of the policy 'INIT' to start from 0.5: its "
    "latent head speaks another language; extract the labels with its motion model and offset"
  )
  other = dataclasses.replace(LATENT, latent_model="bb")
  assert text_of(lambda: check(latent=other)).startswith(
    "latent_model of the labels is 'bb', of the policy 'INIT' to start from 'aa'"
  )
  unknown = policy_spec.LatentMotionSpec("", 0.0, ())
  assert check(started(latent=unknown), latent=LATENT) is None, "an older version did not say"
  for key, value in (("action", 2), ("state", 2), ("step_seconds", 0.2)):
    facts = {"arm": dataclasses.replace(ARM, **{key: value})}
    assert text_of(lambda facts=facts: check(facts=facts)) == (
      f"robot 'arm': {key} is {value} here and {getattr(ARM, key)} in the policy 'INIT' to start "
      "from; give it another name to get a new head"
    )


def begun(params, policy="dit"):
  """A policy to start from."""
  spec = types.SimpleNamespace(model={"policy": policy})
  return policy_start.StartingPolicy("the policy 'INIT' to start from", spec, params)


def test_where_a_policy_starts(monkeypatch, capsys):
  asked = []
  monkeypatch.setattr(
    policy_start.encoder_weights,
    "load",
    lambda path, *, model: asked.append((path, model)) or {"encoder": path},
  )
  config = config_lib.ConfigDict(
    {"encoder_weights": "", "init": "INIT", "seed": 3, "model": {"policy": "dit"}}
  )
  keys = []

  def init(key):
    keys.append(key)
    return {
      "trunk": {"a": jnp.zeros(2), "b": jnp.zeros(1)},
      "heads": {"arm": {"w": jnp.zeros(1)}, "bot": {"w": jax.random.normal(key, (2,))}},
    }

  model = types.SimpleNamespace(init=init)
  assert policy_start.parameters(config, "MODEL", None) == {"encoder": ""}
  assert capsys.readouterr().out == (
    'encoder: random; set config.encoder_weights ("bundled", a motion model or a pretrained MAE)\n'
  )
  config.encoder_weights = "bundled"
  assert (
    policy_start.parameters(config, "MODEL", None) == {"encoder": "bundled"}
    and not capsys.readouterr().out
  )
  assert asked == [("", "MODEL"), ("bundled", "MODEL")]
  before = {
    "trunk": {"a": np.ones(2, np.float32), "b": np.ones(1, np.float32)},
    "heads": {"arm": {"w": np.ones(1, np.float32)}},
  }
  found = policy_start.parameters(config, model, begun(before))
  assert capsys.readouterr().out == "new heads: bot\n" and np.asarray(
    found["trunk"]["a"]
  ).tolist() == [1, 1]
  np.testing.assert_allclose(
    found["heads"]["bot"]["w"], jax.random.normal(policy_start.rng.key(3, "init"), (2,)), rtol=1e-6
  )
  whole = {**before, "heads": {**before["heads"], "bot": {"w": np.ones(2, np.float32)}}}
  assert np.asarray(
    policy_start.parameters(config, model, begun(whole))["heads"]["bot"]["w"]
  ).tolist() == [1, 1]
  assert not capsys.readouterr().out
  assert text_of(
    lambda: policy_start.parameters(
      config, model, begun({"heads": before["heads"], "trunk": {"a": before["trunk"]["a"]}})
    )
  ) == ("the policy 'INIT' to start from has no trunk/b: its model section differs from this one's")
  many = types.SimpleNamespace(
    init=lambda key: {"t": {name: {"x": jnp.zeros(1)} for name in "abcdef"}}
  )
  assert "has no t/a, t/b, t/c, t/d: its" in text_of(
    lambda: policy_start.parameters(config, many, begun({"heads": {"x": np.zeros(1)}}))
  )
  assert text_of(
    lambda: policy_start.parameters(config, model, begun(before, policy="gpt"))
  ).startswith("the policy 'INIT' to start from is a 'gpt', this config makes a 'dit': choose")
  del asked[:]
  resumed = begun(None)
  assert policy_start.parameters(config, "MODEL", resumed) == {"encoder": "bundled"}
  assert asked == [("bundled", "MODEL")], "its checkpoint brings the weights"
