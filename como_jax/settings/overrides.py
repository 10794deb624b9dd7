"""`--config.key=value`: from the words of a command line to changes of a config."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from como_jax import errors
from como_jax.settings import entries, limits, renames, values

PREFIX = "config."


def words(argv: Sequence[str], switches: Sequence[str]) -> Iterator[tuple[str, str | None]]:
  """(name without dashes, its text) of every flag.

  A flag is "--name=text", "--name text", or "--switch" alone (text None).

  Args:
    argv: without the program's name.
    switches: flags that take no text.

  Raises:
    errors.UserError: a word that belongs to no flag.
  """
  rest = list(argv)
  while rest:
    word = rest.pop(0)
    if not re.match(r"--?[A-Za-z]", word):
      raise errors.UserError(
        f"unexpected argument {word!r}: flags start with --, values of keys are given as "
        "--config.key=value"
      )
    name, equals, text = word.lstrip("-").partition("=")
    if equals:
      yield name, text
    elif name in switches or not rest or re.match(r"--?[A-Za-z]", rest[0]):
      yield name, None
    else:
      yield name, rest.pop(0)


def apply(config: Any, name: str, text: str | None, *, task: str) -> None:
  """Changes one key.

  Text that is no value of the key's kind is refused here; what the value may be is for
  `limits.check`.

  Args:
    config: an unlocked ConfigDict.
    name: of the flag, "config.train.steps" or "config.data.mixture[0].weight".
    text: of the value; None where the flag stands alone, which switches a bool on.
    task: of the config.

  Raises:
    errors.UserError: naming the key and the nearest one, or the text and what is expected.
  """
  node, key = _find(config, name, task)
  here = node[key]
  dotted = re.sub(r"\[\d+\]", "", name.removeprefix(PREFIX))
  if dotted == "task":
    raise errors.UserError(
      f"--{name}={text}: a config's task cannot be changed, choose another config file: "
      f"--config=configs/{text or task}.py"
    )
  if text is None and not isinstance(here, bool):
    raise errors.UserError(f"--{name} has no value: write --{name}=VALUE")
  text = "true" if text is None else text
  if isinstance(node, dict):  # an entry of a mixture, which is checked as a whole
    node[key] = _guess(text)
    return
  with node.ignore_type():
    if hasattr(here, "keys"):
      merge(node, key, _dict(name, text, here), name)
      return
    rule = limits.rule(task, dotted, here, node.get_type(key) if here is None else None)
    if text == "None":
      node[key] = None
      return
    try:
      node[key] = values.read_several(text) if rule.several else values.read(text, rule.kind)
    except values.Unreadable as error:
      expected = f"a tuple of dicts: {entries.FORM}" if dotted == limits.MIXTURE else rule
      raise errors.UserError(f"--{name}={text}, expected {expected}") from error


def merge(node: Any, key: str, given: dict[str, Any], name: str) -> None:
  """Puts what is given into a section, which keeps its other keys.

  Another `kind` is another section and replaces it whole.

  Raises:
    errors.UserError: a key that the section does not have, if it takes no others.
  """
  section = node[key]
  if "kind" in section and given.get("kind", section["kind"]) != section["kind"]:
    node[key] = type(node)(given)
    return
  for inner, value in given.items():
    if inner not in section and not limits.is_open(name.removeprefix(PREFIX)):
      dotted = f"{name.removeprefix(PREFIX)}.{inner}"
      raise errors.UserError(
        f"--{name}: it has no {inner!r}: {renames.nearest('', dotted, section)}"
      )
    if inner in section and hasattr(section[inner], "keys") and isinstance(value, dict):
      merge(section, inner, value, f"{name}.{inner}")
    else:
      section[inner] = type(node)(value) if isinstance(value, dict) else value


def _find(config: Any, name: str, task: str) -> tuple[Any, Any]:
  """(section, key) that a flag names; every part must exist."""
  node, walked = config, "config"
  steps: list[tuple[Any, Any]] = []
  for part in name.split(".")[1:]:
    key = part.partition("[")[0]
    if not hasattr(node, "keys") or key not in node:
      dotted = f"{walked}.{key}".removeprefix(PREFIX)
      near = renames.nearest(task, dotted, node.keys() if hasattr(node, "keys") else ())
      raise errors.UserError(f"config key --{name} is unknown: {walked} has no {key!r}: {near}")
    steps.append((node, key))
    node, walked = node[key], f"{walked}.{key}"
    for index in map(int, re.findall(r"\[(\d+)\]", part)):
      if not isinstance(node, (tuple, list)) or index >= len(node):
        count = len(node) if isinstance(node, (tuple, list)) else "no"
        raise errors.UserError(
          f"config key --{name}: {walked} has {count} entries, index {index} is too large"
        )
      steps.append((node, index))
      node = node[index]
  if isinstance(steps[-1][1], int):
    raise errors.UserError(f"--{name}: give the whole of {walked}, or a key of one of its entries")
  return steps[-1]


def _dict(name: str, text: str, section: Any) -> dict[str, Any]:
  try:
    return values.read_dict(text)
  except values.Unreadable as error:
    keys = ", ".join(section) or "any"
    raise errors.UserError(
      f"--{name}={text}, expected a key of it (--{name}.KEY=VALUE; keys: {keys}) or a dict, whose "
      "keys are changed and the others kept"
    ) from error


def _guess(text: str) -> Any:
  """A value whose kind is not known: what Python reads in it, else the text."""
  try:
    return values.read_dict(text)
  except values.Unreadable:
    pass
  try:
    value = values.read_several(text)
  except values.Unreadable:
    return text
  return value[0] if len(value) == 1 and text.strip()[:1] not in "([" else value
