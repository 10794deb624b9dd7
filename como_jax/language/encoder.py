"""An encoder of texts, with a cache in memory and on disk.

Legend: n texts, l tokens of one text, L tokens of a text at most, E language width.
"""

import collections
import pathlib
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from como_jax import errors
from como_jax.language import cache as cache_lib

# Embeddings kept in memory, so that a policy does not read the disk at every control step.
_REMEMBERED = 1024


@runtime_checkable
class WarmUp(Protocol):
  """What computes embeddings with programs that can be compiled before they are needed."""

  def warm_up(self) -> None:
    """Compiles them all."""
    ...


class Encoder:
  """Encodes texts: texts -> (tokens float32 [n, L, E], mask bool [n, L]).

  Attributes:
    width, num_tokens: E and L.
    fingerprint: changes with the weights, the tokenizer and every setting that changes embeddings.
  """

  def __init__(
    self,
    embed: Callable[[Sequence[str]], list[np.ndarray]],
    *,
    width: int,
    num_tokens: int,
    fingerprint: str,
    cache: pathlib.Path | None = None,
  ):
    """Adds a cache to `embed`: texts that are not empty -> float32 [l, E] each, 0 <= l <= L.

    `cache` is its folder; None: no cache on disk. For the other parameters see the class.
    """
    self.width, self.num_tokens, self.fingerprint = width, num_tokens, fingerprint
    self._embed, self._cache = embed, cache
    self._memory: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()

  def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encodes texts; a text that is empty or blank has a mask of False and tokens of 0."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
      raise errors.UserError(f"the language encoder takes a list of texts, not {texts!r:.80}")
    stripped = [text.strip() for text in texts]
    embeddings = self._lookup(list(dict.fromkeys(text for text in stripped if text)))
    tokens = np.zeros((len(texts), self.num_tokens, self.width), np.float32)
    mask = np.zeros((len(texts), self.num_tokens), bool)
    for row, text in enumerate(stripped):
      if text:
        length = len(embeddings[text])
        tokens[row, :length], mask[row, :length] = embeddings[text], True
    return tokens, mask

  def warm_up(self) -> None:
    """Compiles the encoder for every length of a text; for "hash" it does nothing."""
    if isinstance(self._embed, WarmUp):
      self._embed.warm_up()

  def _lookup(self, texts: list[str]) -> dict[str, np.ndarray]:
    embeddings = {text: value for text in texts if (value := self._recall_cached(text)) is not None}
    new = [text for text in texts if text not in embeddings]
    for text, value in zip(new, self._embed(new) if new else [], strict=True):
      embeddings[text] = value
      if self._cache is not None:
        cache_lib.write(self._cache, text, value)
    for text, value in embeddings.items():
      self._memory[text] = value
      self._memory.move_to_end(text)
    while len(self._memory) > _REMEMBERED:
      self._memory.popitem(last=False)
    return embeddings

  def _recall_cached(self, text: str) -> np.ndarray | None:
    if text in self._memory:
      return self._memory[text]
    return (
      None
      if self._cache is None
      else cache_lib.read(self._cache, text, self.num_tokens, self.width)
    )
