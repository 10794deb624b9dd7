"""Entries of a foreign config.json."""

import pytest

from como_jax import errors
from como_jax.convert import facts


def test_entries_are_read_as_their_type():
  config = facts.Facts(
    {"width": 8, "epsilon": 1, "none": None, "act": "relu", "on": True}, "x.json"
  )
  assert config.get("width", int) == 8 and config.get("none", int, 3) == 3
  assert config.get("epsilon", float) == 1.0 and config.get("on", bool) is True
  assert config.activation("act") == "relu" and config.activation("other", "gelu") == "gelu"
  config.must("width", 8), config.must("absent", 9)


@pytest.mark.parametrize(
  "value, kind",
  [("8", int), (None, int), (True, int), (-1, int), (1.5, int), ("x", float), (1, bool)],
)
def test_another_type_is_named(value, kind):
  with pytest.raises(errors.UserError, match=rf"^x.json: 'key' is .*, expected {kind.__name__}$"):
    facts.Facts({"key": value}, "x.json").get("key", kind)


def test_variants_that_are_not_implemented_are_named():
  config = facts.Facts({"width": 8, "act": "gelu_fast"}, "x.json")
  with pytest.raises(errors.UserError, match="'width' is 8; only 9 can be converted"):
    config.must("width", 9)
  with pytest.raises(errors.UserError, match="'act' is 'gelu_fast'; .*gelu"):
    config.activation("act")
