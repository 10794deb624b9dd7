"""Docstrings as Markdown: two shapes side by side, `[B, N][D]`, are no link to "D"."""

from typing import Any

import griffe


class Shapes(griffe.Extension):
  """Parts neighboring brackets of all docstrings by a space of no width."""

  def on_instance(self, *, obj: griffe.Object, **unused: Any) -> None:
    """Called once for each module, class, function and attribute."""
    if obj.docstring:
      text = obj.docstring.value
      obj.docstring.value = text.replace("][", "]\u200b[").replace("] [", "]\u200b [")
