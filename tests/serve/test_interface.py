"""What stands for a policy has what the interface says, with the same parameters."""

import inspect

import pytest

from como_jax.serve import interface
from tests.serve import fake
from tests.serve.counting import acting
from tests.serve.counting import counting as counting  # a fixture


@pytest.mark.parametrize("make", [acting, fake.Policy])
def test_policies_follow_the_interface(make):
  made, names = make(), [name for name in dir(interface.Policy) if not name.startswith("_")]
  assert len(names) == 8
  for name in names:
    declared = getattr(interface.Policy, name)
    if isinstance(declared, property):
      assert not callable(getattr(made, name)), name
    else:
      _, *parameters = inspect.signature(declared).parameters
      assert list(inspect.signature(getattr(made, name)).parameters) == parameters, name
