"""The config that words give, or the line that refuses them."""

import pytest

from como_jax import config as config_lib
from como_jax import errors


def parse(*words):
  return config_lib.parse(["main", *words]).config


def refused(*words):
  with pytest.raises(errors.UserError) as caught:
    parse(*words)
  assert "\n" not in str(caught.value)
  return str(caught.value)
