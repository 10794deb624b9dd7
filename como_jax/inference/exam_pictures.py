"""Reads the pictures of an exam set; their tokens, optical flow, and latents of a motion model.

Legend: V views of three pictures, P = 2V pairs, H W pixels, N patches, D width of the encoder, Z
latent width.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from como_jax import models
from como_jax.data import video
from como_jax.exam import exam_set
from como_jax.exam import pictures as pictures_lib
from como_jax.models import pixels
from como_jax.models.motion import flow


def frames(folder: pathlib.Path, size: int) -> np.ndarray:
  """Reads the pictures of a set.

  Args:
    folder: folder of the tier.
    size: H = W in pixels; 0: as they are stored.

  Returns:
    uint8 [V, 3, H, W, 3].
  """
  path = str(folder / pictures_lib.PICTURES)
  pictures = np.stack([frame for _, frame in video.read(path, video.Geometry(size))])
  return pictures.reshape(-1, 3, *pictures.shape[1:])


def load(folder: pathlib.Path, model: Any, parameters: Any) -> pictures_lib.Pictures:
  """Reads a set with its tokens, at the size of the encoder.

  Args:
    folder: folder of the tier.
    model: a motion model.
    parameters: its parameters, of which only the encoder is used.
  """
  pictures = frames(folder, model.image_size)
  encode = jax.jit(
    lambda images: model.encode_frames(parameters, pixels.normalize(images))[:, 1:].astype(
      "float16"
    )
  )

  def tokens(images: np.ndarray) -> np.ndarray:
    flat = batched(encode, 128)(images.reshape(-1, *images.shape[2:]))
    return flat.reshape(*images.shape[:2], *flat.shape[1:])

  with np.load(folder / exam_set.TABLE) as file:
    return pictures_lib.Pictures(
      pictures,
      frames(folder, 0),
      tokens(pictures),
      dict(file),
      tokens(pictures_lib.shifted(pictures)),
    )


def write_pairs(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Writes pictures for other models: "frames" uint8 [V, 3, H, W, 3], "shifted" [V, 2, H, W, 3].

  Row 2v of their z is pictures 0 -> 1 of view v, row 2v + 1 is pictures 1 -> 2. Row v of their
  z_shifted is pictures 0 -> 1 of "shifted".

  Args:
    folder: folder of the tier.
    path: the file to write.
  """
  pictures = frames(folder, 0)
  np.savez(path, frames=pictures, shifted=pictures_lib.shifted(pictures))
  print(
    f"wrote {path}: frames {list(pictures.shape)} uint8; row 2v of z is the motion of frames[v, 0] "
    "-> frames[v, 1], row 2v + 1 of frames[v, 1] -> frames[v, 2]. Score an .npz with z "
    f"[{2 * len(pictures)}, Z]: python -m como_jax.exam score LATENTS.npz"
  )
  print(
    f"shifted {[len(pictures), 2, *pictures.shape[2:]]} uint8: frames 0 and 1 of each view, both "
    f"moved by 1/{1 / pictures_lib.SHIFT:.0f} of their side, in which the motion is the same. "
    f"Row v of z_shifted [{len(pictures)}, Z], which that .npz may hold too, is the motion of "
    "shifted[v, 0] -> shifted[v, 1]."
  )


def batched(run: Callable[..., jax.Array], size: int) -> Callable[..., np.ndarray]:
  """Wraps a function of arrays [n, ...] so that it is always called for batches of one size.

  So it is compiled only once.

  Args:
    run: arrays [size, ...] -> array [size, ...].
    size: rows of a batch.
  """

  def run_in_batches(*arrays: np.ndarray) -> np.ndarray:
    count, parts = len(arrays[0]), []
    for begin in range(0, count, size):
      rows = np.minimum(np.arange(begin, begin + size), count - 1)
      parts.append(np.asarray(run(*(values[rows] for values in arrays)))[: count - begin])
    return np.concatenate(parts)

  return run_in_batches


def moved_cells(
  first: np.ndarray, second: np.ndarray, *, size: int = 4, batch_size: int = 256
) -> np.ndarray:
  """Optical flow between pictures, averaged over square cells.

  Args:
    first: uint8 [P, H, W, 3].
    second: uint8 [P, H, W, 3].
    size: side of a cell in pixels.
    batch_size: pairs of a batch.

  Returns:
    [P, H / size, W / size, 2].
  """
  side = first.shape[1] // size
  cells_of = batched(
    jax.jit(
      lambda first, second: flow.mean_per_cell(flow.optical_flow(first / 255, second / 255), side)
    ),
    batch_size,
  )
  return cells_of(first, second).reshape(-1, side, side, 2)


def latents(
  parameters: Any, config: dict, folder: pathlib.Path, *, views: int = 16, alone: bool = False
) -> dict[str, np.ndarray]:
  """Latents of a motion model: z, z_ba [P, Z], z_ac, z_aa and z_shifted [V, Z].

  Each picture is encoded once, and its tokens are used for all its pairs. With inputs "rgb_diff",
  the difference of the pixels of each pair is encoded too.

  Args:
    parameters: parameters of the model.
    config: config of its run, with "model".
    folder: folder of the tier.
    views: number of views of a batch.
    alone: only z, without the other latents.
  """
  model = models.build(config["model"])
  pictures_of_views = frames(folder, config["model"]["image_size"])
  # Pairs of indices into the three pictures of a view and its two shifted pictures.
  pairs = pictures_lib.PAIRS[:2] if alone else (*pictures_lib.PAIRS, (3, 4))
  sides = np.array(pairs).T

  @jax.jit
  def encode(parameters: Any, pictures: jax.Array) -> jax.Array:
    pictures = pixels.normalize(pictures)
    tokens = model.encode_frames(parameters, pictures)
    images, pair_tokens = (
      tuple(values[:, side].reshape(-1, *values.shape[2:]) for side in sides)
      for values in (pictures, tokens)
    )
    z = model.encode(parameters, *images, tokens=pair_tokens).z
    return z.reshape(len(pictures), len(pairs), -1)

  def encode_views(pictures: np.ndarray, indices: np.ndarray) -> jax.Array:
    if not alone:
      pictures = np.concatenate([pictures, pictures_lib.shifted(pictures, indices)], axis=1)
    return encode(parameters, pictures)

  parameters = jax.device_put(parameters)
  z = batched(encode_views, views)(pictures_of_views, np.arange(len(pictures_of_views)))
  return pictures_lib.by_name(list(z.swapaxes(0, 1)))
