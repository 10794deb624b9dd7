"""LPIPS: distance between two images in the features of VGG16.

Moto and CoMo only print an LPIPS, without a gradient and on wrongly scaled images. Here it is a
loss with a gradient, on correctly scaled pixels. It is off if no weights are given.

The weights file, .npz or .safetensors, holds the VGG16 convolutions of torchvision and the linear
heads of LPIPS under their usual names: "features.{i}.weight" [out, in, 3, 3] and
"features.{i}.bias" [out] for i in CONVOLUTIONS, and "lin{k}.model.1.weight" [1, C, 1, 1] for
k = 0..4 ("lin{k}.weight" is accepted too).

Legend: B batch, P pairs, F frames, H W image, C channels.
Source: Zhang et al., arXiv 1801.03924.
"""

import os
from collections.abc import Iterator, Mapping

import einops
import jax
import jax.numpy as jnp
import numpy as np

from como_jax import errors, storage
from como_jax.objectives import terms

# Blocks of convolutions between poolings. The features after the last ReLU of each block are
# compared.
CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))

# From the pixels of the model (ImageNet normalization) to [0, 1], to [-1, 1], and to the input
# layer of LPIPS.
IMAGENET_MEAN, IMAGENET_STD = (
  np.array([0.485, 0.456, 0.406], np.float32),
  np.array([0.229, 0.224, 0.225], np.float32),
)
SHIFT, SCALE = (
  np.array([-0.030, -0.088, -0.188], np.float32),
  np.array([0.458, 0.448, 0.450], np.float32),
)

Weights = Mapping[str, jax.Array]

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def load(path: str) -> dict[str, np.ndarray]:
  """Reads the weights file.

  Args:
    path: the weights file; "": the term is off.

  Returns:
    "conv{i}/kernel" [3, 3, in, out], "conv{i}/bias" [out] and "head{k}" [C], float32; an empty dict
    if `path` is "".

  Raises:
    errors.UserError: no such file, unknown suffix, or a weight that is missing or misshapen.
  """
  if not path:
    return {}
  path = str(storage.local_copy(path))
  if not os.path.isfile(path):
    raise errors.UserError(
      f"objectives.perceptual.weights_path: no file {path!r} (VGG16 and LPIPS weights)"
    )
  if path.endswith(".npz"):
    with np.load(path, allow_pickle=False) as archive:
      stored = {name: archive[name] for name in archive.files}
  elif path.endswith(".safetensors"):
    import safetensors.numpy  # an optional dependency, needed only for such files

    stored = safetensors.numpy.load_file(path)
  else:
    raise errors.UserError(
      f"objectives.perceptual.weights_path {path!r} ends in neither .npz nor .safetensors"
    )

  def get(name: str, rank: int) -> np.ndarray:
    if name not in stored:
      raise errors.UserError(f"{path}: no weight {name!r}; {errors.nearest(name, stored)}")
    if stored[name].ndim != rank:
      raise errors.UserError(f"{path}: {name} has shape {stored[name].shape}, expected {rank} axes")
    return np.asarray(stored[name], np.float32)

  weights = {}
  for index, block in enumerate(CONVOLUTIONS):
    for i in block:
      weights[f"conv{i}/kernel"] = einops.rearrange(
        get(f"features.{i}.weight", 4), "o i p q -> p q i o"
      )
      weights[f"conv{i}/bias"] = get(f"features.{i}.bias", 1)
    name = f"lin{index}.weight" if f"lin{index}.weight" in stored else f"lin{index}.model.1.weight"
    weights[f"head{index}"] = get(name, 4).reshape(-1)
  return weights


def distance(
  weights: Weights, a: jax.Array, b: jax.Array, *, dtype: str = "float32", stop_target: bool = False
) -> jax.Array:
  """LPIPS of two sets of frames [F].

  Args:
    weights: see `load`.
    a: ImageNet-normalized frames [F, H, W, 3], at least 16x16 pixels.
    b: as `a`.
    dtype: of the convolutions, a key of `DTYPES`; features are compared in float32.
    stop_target: whether b has no gradient. The network then runs on a and b apart, and backward
      only for a.
  """
  total = jnp.zeros(a.shape[0], jnp.float32)
  if stop_target:
    pairs = zip(
      _features(weights, _scale(a), dtype),
      _features(weights, _scale(jax.lax.stop_gradient(b)), dtype),
      strict=True,
    )
  else:
    both = jnp.concatenate([_scale(a), _scale(b)], axis=0)
    pairs = (jnp.split(unit, 2, axis=0) for unit in _features(weights, both, dtype))
  for index, (first, second) in enumerate(pairs):
    head = weights[f"head{index}"][None, None, None]
    total = total + jnp.mean(jnp.sum(jnp.square(first - second) * head, axis=-1), axis=(1, 2))
  return total


def _features(weights: Weights, x: jax.Array, dtype: str) -> Iterator[jax.Array]:
  """The features of each block, of unit length over the channels, float32.

  Args:
    weights: see `load`.
    x: scaled frames [F, H, W, 3].
    dtype: of the convolutions.
  """
  x = x.astype(DTYPES[dtype])
  for index, block in enumerate(CONVOLUTIONS):
    if index:
      x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    for i in block:
      x = jax.lax.conv_general_dilated(
        x,
        weights[f"conv{i}/kernel"].astype(x.dtype),
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
      )
      x = jax.nn.relu(x + weights[f"conv{i}/bias"].astype(x.dtype)[None, None, None])
    wide = x.astype(jnp.float32)
    # The small number is inside the root: locations where all channels are zero are common, and
    # their gradient must not be NaN.
    yield wide * jax.lax.rsqrt(jnp.sum(jnp.square(wide), axis=-1, keepdims=True) + 1e-10)


def perceptual(
  outputs: Mapping[str, jax.Array],
  batch: Mapping[str, jax.Array],
  *,
  weights: Weights,
  dtype: str = "float32",
  stop_target: bool = False,
) -> terms.Terms:
  """LPIPS of "pixels" against "target" [B, P, H, W, 3].

  Args:
    outputs: "pixels" and "target".
    batch: as for `terms.over_pairs`.
    weights: see `load`; 59 MB, so they are an argument of the compiled step, not a constant in it.
    dtype: as for `distance`.
    stop_target: as for `distance`. The target is data, so its gradient is not used in training.

  Raises:
    errors.UserError: an output is missing, or the dtype is unknown.
  """
  if dtype not in DTYPES:
    raise errors.UserError(
      f"objectives.perceptual.dtype is {dtype!r}; {errors.nearest(str(dtype), DTYPES)}"
    )
  if not weights:
    return {}
  terms.need(outputs, "perceptual", ("pixels", "target"), "use a model of kind 'motion'")
  pixels, target = outputs["pixels"], outputs["target"]
  flat = (-1, *pixels.shape[2:])
  values = distance(
    weights, pixels.reshape(flat), target.reshape(flat), dtype=dtype, stop_target=stop_target
  )
  return {"perceptual": terms.over_pairs(values.reshape(pixels.shape[:2]), batch)}


def _scale(frames: jax.Array) -> jax.Array:
  """Converts ImageNet-normalized frames to inputs of LPIPS.

  They are not clipped to [0, 1], because clipping would remove the gradient of pixels outside.
  """
  unit = (
    frames.astype(jnp.float32) * IMAGENET_STD[None, None, None] + IMAGENET_MEAN[None, None, None]
  )
  return (2.0 * unit - 1.0 - SHIFT[None, None, None]) / SCALE[None, None, None]
