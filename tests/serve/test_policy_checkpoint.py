"""What a policy's checkpoint must be, and what is made ready of it."""

import jax.numpy as jnp
import pytest

from como_jax import errors
from como_jax.data import policy_upgrade
from como_jax.serve import policy_checkpoint
from tests.serve.counting import Model, counting, stored  # counting: a fixture

__all__ = ["counting"]


def test_what_is_no_policy_is_refused():
  for config, kind in (
    ({"model": {"kind": "motion"}, "normalization": {}}, "motion"),
    ({"kind": "mae"}, "mae"),
    ({}, "unknown"),
  ):
    with pytest.raises(
      errors.UserError, match=f"^checkpoint c holds a model of kind '{kind}', a policy is expected$"
    ):
      policy_checkpoint.check(config, "c")
  with pytest.raises(
    errors.UserError, match="^checkpoint c is a policy without its policy.json, .*copy the whole"
  ):
    policy_checkpoint.check({"model": {"kind": "policy"}}, "c")
  policy_checkpoint.check(stored(), "c")
  with pytest.raises(errors.UserError, match="^checkpoint c .*network/bias"):
    policy_checkpoint.restore(
      {"network": {"kernel": jnp.ones((2, 2))}}, policy_upgrade.from_config(stored()), name="c"
    )


def test_a_restored_policy_is_its_model_with_matrices_in_the_dtype_of_its_products():
  params = {"network": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
  spec = policy_upgrade.from_config(stored())
  restored = policy_checkpoint.restore(params, spec, name="c")
  assert isinstance(restored.model, Model) and restored.model.config == spec.model
  assert (restored.spec, restored.name) == (spec, "c")
  dtypes = {name: leaf.dtype for name, leaf in restored.params["network"].items()}
  assert dtypes == {"kernel": jnp.bfloat16, "bias": jnp.float32}
