"""Image tokens of a frozen encoder, computed once for every frame and then looked up.

For data that fit into memory.

Legend: ... leading axes, H W image, N+1 tokens of an image, D their width. Policies have images [B,
T, C, H, W, 3] (T history, C camera slots), the motion model "frames" [B, K, H, W, 3] and "jittered"
[B, K-1, H, W, 3].
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm
import xxhash

from como_jax import errors, trees
from como_jax.models.motion import inputs

Batch = Mapping[str, np.ndarray]
# key of images in a batch -> key of their tokens
IMAGES = {"images": "tokens"}
MOTION_IMAGES = {"frames": "frame_tokens", "jittered": "jittered_tokens"}


class TokenCache:
  """Puts tokens [..., N+1, D] in the place of a batch's images [..., H, W, 3].

  Images are identified by their content, so it does not matter where they come from. They must come
  again unchanged; an augmented image never does.
  """

  def __init__(
    self,
    model: Any,
    params: Mapping[str, Any],
    *,
    batch_size: int = 64,
    names: Mapping[str, str] = IMAGES,
    kept: tuple[str, ...] = (),
    dtype: str | None = None,
  ):
    """Starts with no images.

    Args:
      model: has `encode_images(params, images)`.
      params: with "encoder".
      batch_size: images of one pass; the number is constant, so that the tokens of an image do not
        depend on the other images of the pass.
      names: name of images in a batch -> name of their tokens.
      kept: names of images that stay beside their tokens.
      dtype: dtype in which tokens are kept; None: as the model gives them.
    """
    self._params, self._size, self._known = {"encoder": params["encoder"]}, batch_size, {}
    self._names, self._kept = dict(names), kept

    def encode(params, images):
      tokens = model.encode_images(params, images[:, None, None])[:, 0, 0]
      return tokens if dtype is None else tokens.astype(dtype)

    self._encode = jax.jit(encode)

  def __len__(self) -> int:
    """Different images so far."""
    return len(self._known)

  def __call__(self, batch: Batch) -> dict[str, np.ndarray]:
    """The batch with tokens; images that are new are encoded."""
    present = {name: tokens for name, tokens in self._names.items() if name in batch}
    return {
      **self._rest(batch),
      **{tokens: self._tokens(batch[name]) for name, tokens in present.items()},
    }

  def _rest(self, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {
      name: value for name, value in batch.items() if name not in self._names or name in self._kept
    }

  def _tokens(self, images: np.ndarray) -> np.ndarray:
    images = np.ascontiguousarray(images)
    flat = images.reshape((-1, *images.shape[-3:]))
    names = [xxhash.xxh3_128_digest(image) for image in flat]
    fresh = {name: i for i, name in enumerate(names) if name not in self._known}
    rows = list(fresh.values())
    for start in range(0, len(rows), self._size):
      part = rows[start : start + self._size]
      padded = flat[np.resize(part, self._size)]
      self._known.update(
        zip((names[i] for i in part), np.asarray(self._encode(self._params, padded)), strict=False)
      )
    tokens = np.stack([self._known[name] for name in names])
    return tokens.reshape((*images.shape[:-3], *tokens.shape[1:]))

  def spec(self, batch: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a batch with tokens, from those of one with images."""
    example = next(iter(self._known.values()))
    tokens = {
      self._names[name]: jax.ShapeDtypeStruct((*spec.shape[:-3], *example.shape), example.dtype)
      for name, spec in batch.items()
      if name in self._names
    }
    return {**self._rest(batch), **tokens}

  def fill(self, examples: Any) -> "TokenCache":
    """Encodes all images of the examples beforehand.

    Args:
      examples: `EvaluationExamples` or `EvaluationWindows`.

    Returns:
      This cache.
    """
    with examples.batches() as batches:
      for _ in tqdm.trange(examples.num_batches, desc="tokens", unit="batch", mininterval=10.0):
        self(next(batches))
    print(f"image tokens: {len(self)} images encoded, once")
    return self

  def over(self, batches: Iterator[Batch]) -> "_CachedBatches":
    """An iterator over batches, closable as they are, with tokens in them."""
    return _CachedBatches(self, batches)


class _CachedBatches:
  """See `TokenCache.over`."""

  def __init__(self, tokens: TokenCache, batches: Any):
    self._tokens, self._batches = tokens, batches

  def __iter__(self) -> "_CachedBatches":
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    return self._tokens(next(self._batches))

  def close(self) -> None:
    self._batches.close()


def of_motion_data(config: Any, model: Any, start: Mapping[str, Any], data: Any) -> TokenCache:
  """The tokens of every training image of a motion model, encoded once.

  Args:
    config: of the training.
    model: the motion model.
    start: parts of the parameters that are given.
    data: its `TrainingData`.

  Raises:
    errors.UserError: the model does not use tokens, or they would change during training.
  """
  if inputs.INPUTS[model.qformer.inputs].pixel_difference:
    raise errors.UserError(
      "config.train.cache_tokens needs a model that encodes frames, "
      f"config.model.idm.inputs={model.qformer.inputs} encodes their differences"
    )
  check("train.cache_tokens", config, model, start)
  # optical flow is computed from pixels, so both kinds of images stay beside their tokens
  flow = model.linear_path is not None and model.linear_path.source == "flow"
  kept = tuple(MOTION_IMAGES) if flow else ("frames",)
  images = data.windows("train", frames=1, batch_size=64, max_windows=None)
  return TokenCache(model, start, names=MOTION_IMAGES, kept=kept, dtype="float16").fill(images)


def check(key: str, config: Any, model: Any, start: Mapping[str, Any]) -> None:
  """Refuses to keep tokens that do not stay the same.

  Args:
    key: that asked for it, for messages.
    config: of a training task.
    model: with `frozen`.
    start: parts of the parameters that are given.

  Raises:
    errors.UserError: naming what to change.
  """
  frozen = tuple(model.frozen if config.train.frozen is None else config.train.frozen)
  augmented = [
    f"config.data.augment.{name}.on" for name, section in config.data.augment.items() if section.on
  ]
  why = ""
  if "encoder" not in start:
    why = "a given encoder: set config.encoder_weights" + (
      " or config.init" if "init" in config else ""
    )
  elif trees.split({"encoder": start["encoder"]}, frozen)[0]:
    why = "a frozen encoder: leave config.train.frozen out"
  elif augmented:
    why = f"images that stay as they are: switch off {', '.join(augmented)}"
  if why:
    raise errors.UserError(f"config.{key} needs {why}")
