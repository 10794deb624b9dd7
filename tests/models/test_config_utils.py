"""Sections of a config become parts of a model."""

import dataclasses

import pytest

from como_jax import errors
from como_jax.models import config_utils


@dataclasses.dataclass
class Part:
  a: int
  b: int = 2
  c: list = dataclasses.field(default_factory=list)
  parent: int = 0
  d: int = dataclasses.field(default=0, init=False)


def test_sections_become_parts():
  assert config_utils.instantiate(Part, {"a": 1, "c": [3]}, "w") == Part(
    1, 2, [3]
  ) and config_utils.instantiate(Part, {"b": 5}, "w", a=4) == Part(4, 5)
  for section, given, message in (
    ({}, {}, "^missing key w.a$"),
    ({"a": 1, "parent": 2}, {}, "^unknown key w.parent; valid: a, b, c$"),
    ({"a": 1, "d": 2}, {}, "^unknown key w.d; "),
    ({"a": 1}, {"a": 2}, "^unknown key w.a; "),
  ):
    with pytest.raises(errors.UserError, match=message):
      config_utils.instantiate(Part, section, "w", **given)
  with pytest.raises(
    errors.UserError,
    match="^unknown key model.bottleneck.x; this kind has no keys of its own; for another kind",
  ):
    config_utils.check({"x": 1}, "model.bottleneck", required=())
  assert config_utils.lookup({"x": 3}, "x", "w") == 3
  for name in ({"x": 1}, 3, "y"):
    with pytest.raises(errors.UserError, match="^w is "):
      config_utils.lookup({"x": 3}, name, "w")
  assert config_utils.plain({"a": {"b": (1, 2)}, "c": 3}) == {"a": {"b": (1, 2)}, "c": 3}
