"""The models and action heads have what the protocols say, with the same parameters."""

import inspect

import pytest

from como_jax.models import protocols
from como_jax.models.motion import como
from como_jax.models.policy import dit, gpt, outputs, policy

IMPLEMENTATIONS = [
  (protocols.MotionModel, como.MotionModel),
  (protocols.PolicyModel, policy.PolicyModel),
  (protocols.ActionHead, dit.DiT),
  (protocols.ActionHead, gpt.GPT),
  (protocols.OutputHead, outputs.Regression),
  (protocols.OutputHead, outputs.Mixture),
  (protocols.OutputHead, outputs.Diffusion),
]


def parameters(function):
  return [
    (parameter.name, parameter.kind, parameter.default)
    for parameter in inspect.signature(function).parameters.values()
  ]


@pytest.mark.parametrize(
  ("protocol", "implementation"), IMPLEMENTATIONS, ids=lambda given: given.__name__
)
def test_implementations_follow_their_protocol(protocol, implementation):
  names = [name for name in dir(protocol) if not name.startswith("_")]
  assert len(names) >= 5
  for name in names:
    declared = getattr(protocol, name)
    if isinstance(declared, property):
      assert hasattr(implementation, name) or name in implementation.__dataclass_fields__, name
    else:
      assert parameters(declared) == parameters(getattr(implementation, name)), name
