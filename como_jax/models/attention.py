"""Multi-head attention, by XLA or by a fused kernel that does not store its scores in memory.

Legend: B batch, N query tokens, S key tokens, H heads, d head dimension.

The fused kernels are those of libraries: cuDNN's on NVIDIA (through `jax.nn`), Pallas' flash
attention on TPU (in `jax.experimental`). `KERNELS` names the choices of `model.attention_kernel`.
XLA is used wherever no fused kernel can run, whatever the choice is.
"""

import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import spmd
from jax.ad_checkpoint import checkpoint_name

from como_jax import errors

# "xla" never fuses, "fused" fuses wherever a kernel can run, "auto" where it is expected to be
# faster (see `_worth`).
KERNELS = ("auto", "xla", "fused")

# The name of XLA's results and the operations of fused kernels, for the policies of `stacks.REMAT`.
RESULT = "attention"
FUSED_OPERATIONS = ("dot_product_attention_fwd_wrapper", "pallas_call")

_BLOCK = 512  # tokens of a tile of the TPU kernel at most; tiles are multiples of _LANES
_LANES = 128


def split_heads(x: jax.Array, num_heads: int) -> jax.Array:
  """[B, N, D] -> [B, N, H, D/H].

  Args:
    x: [B, N, D].
    num_heads: H.

  Raises:
    errors.UserError: the number of heads does not divide the width.
  """
  if x.shape[-1] % num_heads:
    raise errors.UserError(
      f"attention: width {x.shape[-1]} is not a multiple of num_heads {num_heads}"
    )
  x = x.reshape((*x.shape[:-1], num_heads, x.shape[-1] // num_heads))
  return spmd.with_logical_constraint(x, ("batch", "token", "heads", None))


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array | None = None,
  *,
  kernel: str = "auto",
  num_tokens: int | None = None,
) -> jax.Array:
  """softmax(query key' / sqrt(d)) value for each head.

  The three inputs have one dtype; the scores are float32.

  Args:
    query: [B, N, H, d].
    key: [B, S, H, d].
    value: [B, S, H, d].
    mask: bool, True = may attend, [B or 1, 1 or H, N or 1, S or 1]; no row may be all False.
    kernel: one of KERNELS.
    num_tokens: only the first `num_tokens` of the S key tokens are real: nobody attends to the
      padding after them. None: all are. Not together with a mask.

  Returns:
    [B, N, H, d]; where the queries have the same padding, their results there are of no meaning,
    but finite.

  Raises:
    ValueError: both a mask and `num_tokens`.
  """
  if num_tokens is not None:
    if mask is not None:
      raise ValueError("attention: a mask and num_tokens exclude each other")
    mask = (jnp.arange(key.shape[1]) < num_tokens)[None, None, None]
  library = _library(query, key, mask) if kernel != "xla" else None
  fused = {"cudnn": _cudnn, "pallas": _pallas}[library] if library else None
  if fused is None or (kernel == "auto" and not _worth(fused, query, key)):
    return _xla(query, key, value, mask)
  if fused is _cudnn and num_tokens is not None:
    return _cudnn(query, key, value, None, num_tokens=num_tokens)
  return fused(query, key, value, mask)


def _worth(fused: Callable, query: jax.Array, key: jax.Array) -> bool:
  """Whether a fused kernel is expected to be faster than XLA.

  Neither rule was measured on its hardware. cuDNN: XLA writes and reads the float32 scores several
  times, and they are the largest part of attention's memory traffic unless there are only a few
  query tokens. Pallas: a tile takes about 0.5 us whatever its content and is padded to multiples of
  128. So the kernel is not faster than XLA at the 200 tokens of a ViT; from 512 tokens on, the
  traffic of the scores dominates.
  """
  return query.shape[1] >= 32 if fused is _cudnn else min(query.shape[1], key.shape[1]) >= 512


def _library(query: jax.Array, key: jax.Array, mask: jax.Array | None) -> str | None:
  """The library whose fused kernel can run on the traced device: "cudnn", "pallas" or None."""
  mesh = jax.sharding.get_abstract_mesh()
  device = getattr(mesh, "abstract_device", None) if not mesh.empty else jax.local_devices()[0]
  if device is None:  # a mesh that was made without devices
    return None
  splits = [1 if mesh.empty else _size(mesh, axes) for axes in _mesh_axes("batch", "heads")]
  if query.shape[0] % splits[0] or query.shape[2] % splits[1]:
    return None
  if device.platform == "tpu":
    # the examples may lie on several devices, and XLA cannot split a kernel over them
    if mesh.empty and jax.device_count() > 1:
      return None
    size = query.shape[-1]
    return (
      "pallas"
      if (mask is None or mask.shape[1:3] == (1, 1)) and (size <= _LANES or size % _LANES == 0)
      else None
    )
  if device.platform in ("gpu", "cuda") and "nvidia" in device.device_kind.lower():
    half = query.dtype == key.dtype == jnp.bfloat16
    return (
      "cudnn"
      if half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128 and _cudnn_runs()
      else None
    )
  return None


@functools.cache
def _cudnn_runs() -> bool:
  """Whether this machine's GPU and cuDNN compute a small example.

  With an old cuDNN a run must become slower, not fail.
  """
  if jax.default_backend() != "gpu":  # traced for a GPU of another machine
    return True
  small = np.zeros((1, 2, 1, 64), jnp.bfloat16)
  try:
    # This may be called within a trace: computed at once, and without the mesh of the trace.
    with (
      jax.ensure_compile_time_eval(),
      jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())),
    ):
      jax.block_until_ready(
        jax.jit(jax.grad(lambda x: _cudnn(x, x, x, None).astype(jnp.float32).sum()))(small)
      )
  except Exception as error:
    warnings.warn(
      f"attention: cuDNN's fused kernel does not run here, XLA computes it ({repr(error)[:200]})",
      stacklevel=2,
    )
    return False
  return True


def _mesh_axes(*names: str | None) -> jax.sharding.PartitionSpec:
  """The mesh axes of logical axis names."""
  spec = spmd.logical_to_mesh_axes(names)
  assert spec is not None  # as it would be without names
  return spec


def _size(mesh: jax.sharding.AbstractMesh, axes: str | tuple[str, ...] | None) -> int:
  """Number of parts into which mesh axes split an array axis."""
  size = 1
  for axis in (axes,) if isinstance(axes, str) else axes or ():
    size *= mesh.shape[axis]
  return size


def _xla(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Attention by XLA.

  The sums of the softmax are divided out after the product with the values, on N x d values instead
  of N x S, and so is their gradient. Heads come before tokens from the start: batched products use
  this order, forward and backward.
  """
  query, key, value = (x.swapaxes(1, 2) for x in (query * query.shape[-1] ** -0.5, key, value))
  # Explicit, so that the products of the backward pass also use bfloat16: the gradient of the
  # scores is float32.
  precision = (
    jax.lax.DotAlgorithmPreset.BF16_BF16_F32 if query.dtype == key.dtype == jnp.bfloat16 else None
  )
  scores = jnp.einsum(
    "bhnd,bhsd->bhns", query, key, precision=precision, preferred_element_type=jnp.float32
  )
  if mask is not None:
    scores = jnp.where(mask, scores, -0.7 * float(jnp.finfo(jnp.float32).max))
  weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
  y = jnp.einsum("bhns,bhsd->bhnd", weights.astype(value.dtype), value).astype(jnp.float32)
  y = y / jnp.sum(weights, axis=-1, keepdims=True)
  return checkpoint_name(y.astype(value.dtype).swapaxes(1, 2), RESULT)


def _cudnn(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array | None,
  *,
  num_tokens: int | None = None,
) -> jax.Array:
  """CuDNN's flash attention; in JAX its backward pass needs an even number of tokens.

  Lengths are cheaper than a mask, which it reads for every pair of tokens.
  """
  (batch, tokens), num_keys = query.shape[:2], key.shape[1]
  query, key, value = _pad(query, tokens % 2), _pad(key, num_keys % 2), _pad(value, num_keys % 2)
  query_lengths = key_lengths = None
  if mask is not None:
    mask = jnp.broadcast_to(mask, (*mask.shape[:3], num_keys))
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, num_keys % 2)))
    if mask.shape[2] == tokens:
      # no row may be empty
      mask = jnp.pad(mask, ((0, 0), (0, 0), (0, tokens % 2), (0, 0)), mode="edge")
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
  elif num_tokens is not None or (tokens | num_keys) % 2:
    real = num_keys if num_tokens is None else num_tokens
    # queries of the same padding are skipped
    queries = min(tokens, real) if tokens == num_keys else tokens
    query_lengths, key_lengths = jnp.full((batch,), queries), jnp.full((batch,), real)
  return jax.nn.dot_product_attention(
    query,
    key,
    value,
    mask=mask,
    query_seq_lengths=query_lengths,
    key_value_seq_lengths=key_lengths,
    implementation="cudnn",
  )[:, :tokens]


def _pallas(
  query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None
) -> jax.Array:
  """Pallas' flash attention on padded tokens, each device with its own examples and heads.

  The mask is [B or 1, 1, 1, S].
  """
  # Imported here because it takes seconds. The import needs no TPU.
  from jax.experimental.pallas.ops.tpu import flash_attention as flash

  (batch, tokens), num_keys = query.shape[:2], key.shape[1]
  (queries, query_tile), (keys, key_tile) = _tiles(tokens), _tiles(num_keys)
  tiles = flash.BlockSizes(
    block_q=query_tile,
    block_k_major=key_tile,
    block_k=key_tile,
    block_b=1,
    block_q_major_dkv=query_tile,
    block_k_major_dkv=key_tile,
    block_k_dkv=key_tile,
    block_q_dkv=query_tile,
    block_k_major_dq=key_tile,
    block_k_dq=key_tile,
    block_q_dq=query_tile,
  )
  scale = query.shape[-1] ** -0.5
  valid = jnp.ones((1, num_keys), bool) if mask is None else mask[:, 0, 0]
  # padding belongs to no example's segment
  valid = jnp.pad(jnp.broadcast_to(valid, (batch, num_keys)), ((0, 0), (0, keys - num_keys)))

  def local(query: jax.Array, key: jax.Array, value: jax.Array, valid: jax.Array) -> jax.Array:
    segments = flash.SegmentIds(
      jnp.ones((query.shape[0], queries), jnp.int32), valid.astype(jnp.int32)
    )
    return flash.flash_attention(
      query, key, value, segment_ids=segments, sm_scale=scale, block_sizes=tiles
    )

  query, key, value = (
    x.swapaxes(1, 2)
    for x in (
      _pad(query, queries - tokens),
      _pad(key, keys - num_keys),
      _pad(value, keys - num_keys),
    )
  )
  if not jax.sharding.get_abstract_mesh().empty:
    heads = _mesh_axes("batch", "heads", None, None)
    local = jax.shard_map(
      local,
      in_specs=(heads, heads, heads, _mesh_axes("batch", None)),
      out_specs=heads,
      check_vma=False,
    )
  return local(query, key, value, valid).swapaxes(1, 2)[:, :tokens]


def _tiles(tokens: int) -> tuple[int, int]:
  """(tokens with padding, tokens of a tile): as few tiles as possible, each small."""
  count = -(-tokens // _BLOCK)
  tile = -(-tokens // (count * _LANES)) * _LANES
  return count * tile, tile


def _pad(x: jax.Array, count: int) -> jax.Array:
  """[B, N, H, d] -> [B, N + count, H, d]."""
  if not count:
    return x
  return jnp.pad(x, ((0, 0), (0, count), (0, 0), (0, 0)))
