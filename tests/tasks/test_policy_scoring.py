"""Scoring without training: what it needs, what must be the same, and what it asks for."""

import types

import jax
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.tasks import policy_scoring
from tests.refusals import text_of


def config(*, init="INIT", fraction=0.25, guidance=1.0, reduce="mean"):
  return config_lib.ConfigDict(
    {
      "init": init,
      "data": {"validation_fraction": fraction},
      "evaluation": {"batch_size": 6, "examples": 50},
      "policy": {"guidance_scale": guidance, "reduce": reduce},
    }
  )


def setup(*robots):
  """Data of these robots, and a policy that knows the arm."""
  arm = types.SimpleNamespace(reduce="mean", transforms={"action": "UNITS"})
  model = {"dtype": "bfloat16"}
  known = types.SimpleNamespace(guidance_scale=1.0, robots={"arm": arm}, model=model)
  spec = types.SimpleNamespace(guidance_scale=1.0, robots=dict.fromkeys(robots, arm), model=model)
  data = types.SimpleNamespace(
    examples=lambda *given, **more: (given, more), robots=lambda: dict.fromkeys(robots)
  )
  return types.SimpleNamespace(
    start=types.SimpleNamespace(spec=known), spec=spec, layout="LAYOUT", data=data
  )


def test_a_policy_and_held_out_episodes_are_needed(monkeypatch):
  policy_scoring._check(config())
  assert "scores the policy of config.init: give --config.init=RUN" in text_of(
    lambda: policy_scoring._check(config(init=""))
  )
  assert text_of(lambda: policy_scoring._check(config(fraction=0.0))).endswith(
    "config.data.validation_fraction is 0"
  )
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(errors.SharedUserError, match="in one process, this run has several"):
    policy_scoring._check(config())


def test_another_policy_than_the_trained_one_is_not_scored():
  policy_scoring._check_same(config(), setup("arm"))
  for changes, said in (
    ({"guidance": 2.0}, "config.policy.guidance_scale is 2.0, that of the policy 'INIT' is 1.0"),
    ({"reduce": "last"}, "config.policy.reduce is 'last', that of the policy 'INIT' is 'mean'"),
  ):
    assert text_of(
      lambda changes=changes: policy_scoring._check_same(config(**changes), setup("arm"))
    ) == (f"config.train.steps=0: {said}")
  assert text_of(lambda: policy_scoring._check_same(config(), setup("arm", "arn"))) == (
    "config.train.steps=0: the policy 'INIT' has no head for robot 'arn': did you mean 'arm'? "
    "(valid: arm)"
  )


def test_scores_are_of_held_out_examples_where_there_are_any(monkeypatch):
  asked = []
  monkeypatch.setattr(
    policy_scoring.policy_evaluator,
    "PolicyEvaluator",
    lambda *given, **more: asked.append((given, more)) or (lambda params, walk: (params, walk)),
  )
  score = policy_scoring.held_out_score(config(), "MODEL", setup("arm"))
  examples = (("LAYOUT", "validation"), {"batch_size": 6, "max_examples": 50})
  assert score("PARAMS") == ("PARAMS", examples)
  assert asked == [(("MODEL", {"arm": "UNITS"}), dict(guidance_scale=1.0, dtype="bfloat16"))]
  assert policy_scoring.held_out_score(config(fraction=0.0), "MODEL", setup("arm")) is None
