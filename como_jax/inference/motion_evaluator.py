"""Runs a motion model over evaluation windows (t - n, t, t + n) for all metrics.

Legend: M windows, B batch, H W image, N patches and D width of the encoder, P values of a picture,
Z latent width.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from como_jax import errors
from como_jax.data import evaluation
from como_jax.evaluate import consistency, reconstruction
from como_jax.models import pixels


@dataclasses.dataclass(frozen=True)
class MotionEvaluation:
  """Latents and frame errors of M windows.

  Attributes:
    z: latents of t -> t + n [M, Z].
    past: latents of t - n -> t [M, Z]; S-PCFC compares past and future.
    future: latents of t + n -> t [M, Z].
    frames: errors of the predicted frames.
    columns: ids and labels of the windows, each [M, ...].
    pictures: `summary` of the tokens of the frames t and t + n, float16 [M, 2, P]; None: not
      requested.
  """

  z: np.ndarray
  past: np.ndarray
  future: np.ndarray
  frames: reconstruction.Reconstruction
  columns: dict[str, np.ndarray]
  pictures: np.ndarray | None = None

  def scalars(self) -> dict[str, float]:
    """The metrics that are logged during training; they need no actions."""
    return {
      "s_pcfc": consistency.s_pcfc(self.past, self.future).mean,
      "effective_rank": consistency.effective_rank(self.z).entropy,
      "psnr": self.frames.psnr,
      "psnr_copy_last": self.frames.copy_psnr,
      "copy_ratio": self.frames.ratio,
      "copy_ratio_moving": self.frames.moving_ratio,
    }


@dataclasses.dataclass(frozen=True)
class Labels:
  """Latents of t -> t + n of several models that have the same encoder.

  Attributes:
    z: name of the model -> [M, Z].
    pictures: `summary` of the tokens of both frames, as in `MotionEvaluation`.
    columns: ids and labels of the windows, each [M, ...].
  """

  z: dict[str, np.ndarray]
  pictures: np.ndarray
  columns: dict[str, np.ndarray]


# Maximum P, so that thousands of pictures of the largest encoder fit in memory.
PICTURE = 16_384


class MotionEvaluator:
  """The compiled evaluation of a model; call it with parameters and windows."""

  def __init__(self, model: Any):
    self._model = model
    self._run, self._label, self._draw = (
      jax.jit(self._latents, static_argnums=2),
      jax.jit(self._motion),
      jax.jit(self._transfer),
    )

  def _latents(self, params, frames, pictures=False):
    model, images = self._model, pixels.normalize(frames)
    tokens = model.encode_frames(params, images)

    def motion(a, b):
      return model.encode(params, images[:, a], images[:, b], tokens=(tokens[:, a], tokens[:, b])).z

    z = motion(1, 2)
    predicted = model.decode(params, images[:, 1], z, tokens=tokens[:, 1])["pixels"]
    result = {
      "z": z,
      "past": motion(0, 1),
      "future": motion(2, 1),
      "predicted": pixels.denormalize(predicted).clip(0, 1),
    }
    return result | ({"pictures": summary(tokens[:, 1:])} if pictures else {})

  def _motion(self, params, frames):
    images = pixels.normalize(frames[:, 1:])
    tokens = self._model.encode_frames(next(iter(params.values())), images)
    pair = tokens[:, 0], tokens[:, 1]
    z = {
      name: self._model.encode(values, images[:, 0], images[:, 1], tokens=pair).z
      for name, values in params.items()
    }
    return {"z": z, "pictures": summary(tokens)}

  def _transfer(self, params, frames):
    images = pixels.normalize(frames)
    z = self._model.encode(params, images[:, 0], images[:, 1]).z
    return pixels.denormalize(self._model.decode(params, images[:, 2], z)["pixels"]).clip(0, 1)

  def labels(self, params: Mapping[str, Any], windows: evaluation.EvaluationWindows) -> Labels:
    """Computes only z of t -> t + n for several models, in one pass over the windows.

    Args:
      params: name of the model -> parameters; the models have the same encoder.
      windows: the windows.
    """
    parts = [
      (out, columns) for _, out, columns in self._batches(self._label, dict(params), windows)
    ]
    out = jax.tree.map(lambda *values: np.concatenate(values), *[out for out, _ in parts])
    return Labels(out["z"], out["pictures"], _stacked([columns for _, columns in parts]))

  def __call__(
    self, params, windows: evaluation.EvaluationWindows, *, pictures: bool = False
  ) -> MotionEvaluation:
    """Computes everything in one pass over the windows.

    Args:
      params: parameters of the model.
      windows: the windows.
      pictures: also `MotionEvaluation.pictures`.
    """
    latents, errors, columns = [], [], []
    for frames, out, rows in self._batches(
      lambda values, frames: self._run(values, frames, pictures), params, windows
    ):
      unit = frames.astype(np.float32) / 255
      errors.append(reconstruction.measure(out.pop("predicted"), unit[:, 2], current=unit[:, 1]))
      latents.append(out)
      columns.append(rows)
    return MotionEvaluation(
      **_stacked(latents), frames=reconstruction.summarize(errors), columns=_stacked(columns)
    )

  def _batches(self, run, params, windows: evaluation.EvaluationWindows):
    """Yields (frames, results of `run`, columns) of each batch.

    Padding and windows that cannot be read are left out.

    Raises:
      errors.UserError: no window can be read.
    """
    params, damaged = jax.device_put(params), 0
    with windows.batches() as batches:
      for _ in range(windows.num_batches):
        batch = next(batches)
        valid, frames = batch.pop("valid"), batch.pop("frames")
        damaged += int(batch.pop("damaged").sum())
        out = jax.device_get(run(params, frames))
        yield (
          frames[valid],
          jax.tree.map(lambda x, valid=valid: x[valid], out),
          {name: value[valid] for name, value in batch.items()},
        )
    if damaged == windows.size:
      raise errors.UserError(
        f"none of the {windows.size} evaluation windows can be read: check the data with its "
        "checksums (shards.verify)"
      )
    if damaged:
      print(f"evaluation: {damaged} of {windows.size} windows cannot be read and are left out")

  def predict(
    self, params, first: np.ndarray, second: np.ndarray, onto: np.ndarray | None = None
  ) -> np.ndarray:
    """Applies the motion first -> second to other frames.

    Args:
      params: parameters of the model.
      first: uint8 [B, H, W, 3].
      second: uint8 [B, H, W, 3].
      onto: frames to which the motion is applied, uint8 [B, H, W, 3]; None: `first`.

    Returns:
      The predicted frames, uint8 [B, H, W, 3].
    """
    onto = first if onto is None else onto
    drawn = jax.device_get(self._draw(params, np.stack([first, second, onto], axis=1)))
    return np.asarray(np.rint(drawn * 255), np.uint8)


def summary(tokens: jax.Array, max_values: int = PICTURE) -> jax.Array:
  """Flattens the tokens of a picture, and averages patches if there are too many values.

  Args:
    tokens: tokens of an encoder, CLS first [..., N+1, D].
    max_values: if (N+1) D is larger, patches are averaged over the finest square grid that fits.

  Returns:
    float16 [..., P]; P is (N+1) D, or less with averaging.
  """
  count, width = tokens.shape[-2] - 1, tokens.shape[-1]
  side = math.isqrt(count)
  if (count + 1) * width > max_values and side * side == count:
    cells = max(1, min(side, math.isqrt(max(1, max_values // width - 1))))
    weights = np.zeros((cells, side), np.float32)
    for cell, part in enumerate(np.array_split(np.arange(side), cells)):
      weights[cell, part] = 1 / len(part)
    grid = tokens[..., 1:, :].reshape(*tokens.shape[:-2], side, side, width)
    grid = jnp.einsum("ah,bw,...hwd->...abd", weights, weights, grid).reshape(
      *tokens.shape[:-2], cells * cells, width
    )
    tokens = jnp.concatenate([tokens[..., :1, :], grid], axis=-2)
  return tokens.reshape(*tokens.shape[:-2], -1).astype(jnp.float16)


def _stacked(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
