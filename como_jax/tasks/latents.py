"""Runs a motion model over evaluation windows (t - n, t, t + n) and gathers what every metric
reads.

Legend: M windows, B batch, H W image, N patches and D width of the encoder, P numbers of a picture,
Z numbers of a motion.
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
  """Latents and frame errors of M windows; `columns` holds the windows' ids and labels, each [M,
  ...].

  z is the motion t -> t + n; past is t - n -> t and future t + n -> t, the two that S-PCFC
  compares. pictures: what the frozen encoder says of the frames t and t + n, float16 [M, 2, P],
  where asked for.
  """

  z: np.ndarray
  past: np.ndarray
  future: np.ndarray
  frames: reconstruction.Reconstruction
  columns: dict[str, np.ndarray]
  pictures: np.ndarray | None = None

  def scalars(self) -> dict[str, float]:
    """What is logged during training; no action is needed for it."""
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
  """z of t -> t + n by several models [M, Z] and what their common encoder says of both frames (as
  in `MotionEvaluation`), with the windows' columns.
  """

  z: dict[str, np.ndarray]
  pictures: np.ndarray
  columns: dict[str, np.ndarray]


# numbers of a picture at most, so that thousands of pictures of the largest encoder fit in memory
PICTURE = 16_384
# what the probes predict -> column of the windows
TARGETS = {"action": "action", "state": "state_delta"}


def having(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
  """Bool [M]: the windows whose data have a target ("action" or "state")."""
  return (
    columns["has_" + name]
    if TARGETS[name] in columns
    else np.zeros(len(columns["has_" + name]), bool)
  )


class MotionEvaluator:
  """A model's compiled evaluation; call it with parameters and windows."""

  def __init__(self, model: Any):
    self._model = model
    self._run, self._label, self._draw = (
      jax.jit(self._latents, static_argnums=2),
      jax.jit(self._motion),
      jax.jit(self._onto),
    )

  def _latents(self, params, frames, pictures=False):
    model, images = self._model, pixels.normalize(frames)
    tokens = model.features(params, images)

    def motion(a, b):
      return model.encode(
        params, images[:, a], images[:, b], features=(tokens[:, a], tokens[:, b])
      ).z

    z = motion(1, 2)
    predicted = model.decode(params, images[:, 1], z, features=tokens[:, 1])["pixels"]
    found = {
      "z": z,
      "past": motion(0, 1),
      "future": motion(2, 1),
      "predicted": pixels.denormalize(predicted).clip(0, 1),
    }
    return found | ({"pictures": summary(tokens[:, 1:])} if pictures else {})

  def _motion(self, params, frames):
    images = pixels.normalize(frames[:, 1:])
    tokens = self._model.features(next(iter(params.values())), images)
    pair = tokens[:, 0], tokens[:, 1]
    z = {
      name: self._model.encode(one, images[:, 0], images[:, 1], features=pair).z
      for name, one in params.items()
    }
    return {"z": z, "pictures": summary(tokens)}

  def _onto(self, params, frames):
    images = pixels.normalize(frames)
    z = self._model.encode(params, images[:, 0], images[:, 1]).z
    return pixels.denormalize(self._model.decode(params, images[:, 2], z)["pixels"]).clip(0, 1)

  def labels(self, params: Mapping[str, Any], windows: evaluation.Evaluation) -> Labels:
    """Only z of t -> t + n by each of the models (name -> parameters), which share one encoder, in
    one walk over the windows.
    """
    parts = [(out, columns) for _, out, columns in self._walk(self._label, dict(params), windows)]
    out = jax.tree.map(lambda *values: np.concatenate(values), *[out for out, _ in parts])
    return Labels(out["z"], out["pictures"], _stacked([columns for _, columns in parts]))

  def __call__(
    self, params, windows: evaluation.Evaluation, *, pictures: bool = False
  ) -> MotionEvaluation:
    """Everything, in one walk over the windows."""
    latents, errors, columns = [], [], []
    for frames, out, rows in self._walk(
      lambda given, frames: self._run(given, frames, pictures), params, windows
    ):
      unit = frames.astype(np.float32) / 255
      errors.append(reconstruction.measure(out.pop("predicted"), unit[:, 2], current=unit[:, 1]))
      latents.append(out)
      columns.append(rows)
    return MotionEvaluation(
      **_stacked(latents), frames=reconstruction.summarize(errors), columns=_stacked(columns)
    )

  def _walk(self, run, params, windows: evaluation.Evaluation):
    """(frames, results of `run`, columns) of each batch, without its padding and without windows
    that cannot be read.

    Raises:
      errors.UserError: no window can be read.
    """
    params, damaged = jax.device_put(params), 0
    with windows.batches() as batches:
      for _ in range(windows.steps):
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
    """The motion of uint8 frames first -> second drawn onto other first frames (default: its own):
    uint8 [B, H, W, 3].
    """
    onto = first if onto is None else onto
    drawn = jax.device_get(self._draw(params, np.stack([first, second, onto], axis=1)))
    return np.asarray(np.rint(drawn * 255), np.uint8)


def summary(tokens: jax.Array, most: int = PICTURE) -> jax.Array:
  """An encoder's tokens [..., N+1, D], CLS first, as float16 [..., P]; P is (N+1) D or, where that
  is more than `most`, less: patches are averaged over the finest square grid that fits.
  """
  count, width = tokens.shape[-2] - 1, tokens.shape[-1]
  side = math.isqrt(count)
  if (count + 1) * width > most and side * side == count:
    cells = max(1, min(side, math.isqrt(max(1, most // width - 1))))
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


def names(manifest_names: list[str] | None, size: int, what: str) -> tuple[str, ...]:
  """Names of the dimensions of an action or state, numbered where a data set gives none."""
  if manifest_names and len(manifest_names) == size:
    return tuple(str(name) for name in manifest_names)
  return tuple(f"{what} {i}" for i in range(size))
