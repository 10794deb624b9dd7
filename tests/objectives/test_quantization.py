"""The two weightings of a codebook."""

import jax.numpy as jnp
import pytest

from como_jax import errors, objectives
from tests.objectives.means import BATCH, mean


@pytest.mark.parametrize(
  "weighting, expected", [("legacy", 0.25 * 8 + 2), ("standard", 8 + 0.25 * 2)]
)
def test_quantization_weighting(weighting, expected):
  outputs = {"codebook": jnp.full((2, 2), 8.0), "commitment": jnp.full((2, 2), 2.0)}
  objective = objectives.build({"quantization": {"weight": 1.0, "weighting": weighting}})
  terms = objective(outputs, BATCH)
  assert mean(terms["quantization"]) == expected
  assert mean(terms["codebook"]) == 8 and mean(terms["commitment"]) == 2
  assert objective.weights == {"quantization": 1.0, "codebook": None, "commitment": None}


def test_unknown_weighting():
  with pytest.raises(errors.UserError, match="legacy"):
    objectives.build({"quantization": {"weight": 1.0, "weighting": "legasy"}})({}, BATCH)
