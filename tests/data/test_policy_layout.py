"""Limits of a layout."""

import dataclasses

import pytest

from como_jax import errors
from como_jax.data import policy_layout
from tests.data.bare_layouts import NOTHING

LAYOUT = policy_layout.Layout(
  NOTHING, {}, {"b": (3, 0), "a": (2, 4)}, 1, 1, 1, "mean", 0, 0, 1, 0.0
)


@pytest.mark.parametrize(
  "name, least",
  [
    ("num_cameras", 1),
    ("history", 1),
    ("action_horizon", 1),
    ("motion_horizon", 0),
    ("latent_size", 0),
    ("image_size", 1),
  ],
)
def test_limits_of_a_layout(name, least):
  assert LAYOUT.check() is LAYOUT and (LAYOUT.names, LAYOUT.action_size, LAYOUT.state_size) == (
    ("a", "b"),
    3,
    4,
  )
  assert (
    dataclasses.replace(LAYOUT, robots={}).action_size
    == dataclasses.replace(LAYOUT, robots={}).state_size
    == 0
  )
  with pytest.raises(
    errors.UserError, match=f"^policy batches: {name} is {least - 1}, expected at least {least}$"
  ):
    dataclasses.replace(LAYOUT, **{name: least - 1}).check()
