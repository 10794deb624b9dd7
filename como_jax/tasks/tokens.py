"""Image tokens of a frozen encoder, computed once for every frame and looked up from then on: for data that fit into memory.

Legend: B batch, T history, C camera slots, H W image, N+1 tokens of an image, D their width.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm
import xxhash

Batch = Mapping[str, np.ndarray]


class Tokens:
  """Puts "tokens" [B, T, C, N+1, D] in the place of a batch's "images" [B, T, C, H, W, 3].

  Images are known by their content, so it does not matter where they come from, only that they come again unchanged: an
  augmented image never does.
  """

  def __init__(self, model: Any, params: Mapping[str, Any], *, batch_size: int = 64):
    """Args:
    model: has `tokens(params, images)`.
    params: with "encoder".
    batch_size: images of one pass; always as many, so that an image's tokens do not depend on its company.
    """
    self._params, self._size, self._known = {"encoder": params["encoder"]}, batch_size, {}
    self._encode = jax.jit(lambda params, images: model.tokens(params, images[:, None, None])[:, 0, 0])

  def __len__(self) -> int:
    """Different images so far."""
    return len(self._known)

  def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
    """The batch with tokens; images that are new are encoded."""
    images = np.ascontiguousarray(batch["images"])
    flat = images.reshape((-1, *images.shape[3:]))
    names = [xxhash.xxh3_128_digest(one) for one in flat]
    fresh = {name: i for i, name in enumerate(names) if name not in self._known}
    places = list(fresh.values())
    for start in range(0, len(places), self._size):
      part = places[start:start + self._size]
      padded = flat[np.resize(part, self._size)]
      self._known.update(zip((names[i] for i in part), np.asarray(self._encode(self._params, padded))))
    tokens = np.stack([self._known[name] for name in names])
    return {**{name: value for name, value in batch.items() if name != "images"}, "tokens": tokens.reshape((*images.shape[:3], *tokens.shape[1:]))}

  def spec(self, batch: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch with tokens, from those of one with images."""
    images = batch["images"]
    one = next(iter(self._known.values()))
    tokens = jax.ShapeDtypeStruct((*images.shape[:3], *one.shape), one.dtype)
    return {**{name: value for name, value in batch.items() if name != "images"}, "tokens": tokens}

  def fill(self, walk: Any) -> "Tokens":
    """Encodes all images of a walk (`data.policy.Evaluation`) beforehand."""
    with walk.batches() as batches:
      for _ in tqdm.trange(walk.steps, desc="tokens", unit="batch", mininterval=10.0):
        self(next(batches))
    return self

  def over(self, batches: Iterator[Batch]) -> "_Over":
    """An iterator over batches, closable as they are, with tokens in them."""
    return _Over(self, batches)


class _Over:
  """See `Tokens.over`."""

  def __init__(self, tokens: Tokens, batches: Any):
    self._tokens, self._batches = tokens, batches

  def __iter__(self) -> "_Over":
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    return self._tokens(next(self._batches))

  def close(self) -> None:
    self._batches.close()
