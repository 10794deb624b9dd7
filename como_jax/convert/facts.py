"""A foreign config.json, whose entries are checked when they are read."""

from collections.abc import Mapping
from typing import Any

from como_jax import errors

# The activations of models.text.layers.
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")


class Facts:
  """A config.json whose entries are checked when they are read.

  Attributes:
    what: its name in messages.
  """

  def __init__(self, config: Mapping[str, Any], what: str):
    self._config, self.what = config, what

  def get(self, key: str, kind: type, default: Any = None) -> Any:
    """An entry, checked for its type.

    Args:
      key: name of the entry.
      kind: expected type; an int must not be negative.
      default: value if the entry is missing or null.

    Raises:
      errors.UserError: another type, or no entry and no default.
    """
    value = self._config.get(key)
    value = default if value is None else value
    good = isinstance(value, (int, float) if kind is float else kind) and (
      kind is bool or not isinstance(value, bool)
    )
    if not good or kind is int and value < 0:
      raise errors.UserError(f"{self.what}: {key!r} is {value!r}, expected {kind.__name__}")
    return kind(value)

  def must(self, key: str, expected: Any) -> None:
    """Checks that an entry, if present, has the expected value.

    Raises:
      errors.UserError: another value, which means a variant of the model that is not implemented.
    """
    if self._config.get(key, expected) != expected:
      raise errors.UserError(
        f"{self.what}: {key!r} is {self._config[key]!r}; only {expected!r} can be converted"
      )

  def activation(self, key: str, default: str | None = None) -> str:
    """An entry that names one of `ACTIVATIONS`, else errors.UserError."""
    name = self.get(key, str, default)
    if name not in ACTIVATIONS:
      raise errors.UserError(
        f"{self.what}: {key!r} is {name!r}; {errors.nearest(name, ACTIVATIONS)}"
      )
    return name
