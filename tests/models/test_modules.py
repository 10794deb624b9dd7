"""Modules called with their parameters as an argument."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models import modules


class Scaled(nn.Module):
  """x times a parameter, or divided by it."""

  def setup(self):
    self.scale = self.param("scale", lambda key: jnp.full((), 4.0))

  def __call__(self, x, *, offset=0.0):
    return x * self.scale + offset

  def undo(self, x):
    return x / self.scale


def test_a_module_and_a_method_of_it_run_with_the_parameters_given():
  module, x = Scaled(), jnp.arange(3.0)
  params = module.init(jax.random.key(0), x)["params"]
  np.testing.assert_array_equal(modules.apply(module, params, x, offset=1.0), [1, 5, 9])
  np.testing.assert_array_equal(modules.apply(module.undo, params, x), [0, 0.25, 0.5])
  np.testing.assert_array_equal(modules.apply(module, {"scale": jnp.ones(())}, x), x)


def test_what_is_no_module_is_refused():
  with pytest.raises(TypeError, match="^expected a Linen module or a method of one, got <function"):
    modules.apply(lambda x: x, {}, 1)
