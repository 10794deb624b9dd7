"""Runs a motion model over evaluation windows (t - n, t, t + n) and gathers what every metric reads.

Legend: M windows, B batch, H W image, Z numbers of a motion, A action dimensions, S state dimensions.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from como_jax import errors
from como_jax.data import evaluation
from como_jax.evaluate import consistency, reconstruction
from como_jax.models import pixels


@dataclasses.dataclass(frozen=True)
class Measured:
  """Latents and frame errors of M windows; `columns` holds the windows' ids and labels, each [M, ...].

  z is the motion t -> t + n; past is t - n -> t and future t + n -> t, the two that S-PCFC compares.
  """

  z: np.ndarray
  past: np.ndarray
  future: np.ndarray
  frames: reconstruction.Reconstruction
  columns: dict[str, np.ndarray]

  def scalars(self) -> dict[str, float]:
    """What is logged during training; no action is needed for it."""
    return {"s_pcfc": consistency.s_pcfc(self.past, self.future).mean,
            "effective_rank": consistency.effective_rank(self.z).entropy,
            "psnr": self.frames.psnr, "psnr_copy_last": self.frames.copy_psnr, "copy_ratio": self.frames.ratio,
            "copy_ratio_moving": self.frames.moving_ratio}


TARGETS = {"action": "action", "state": "state_delta"}  # what the probes predict -> column of the windows


def having(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
  """bool [M]: the windows whose data have a target ("action" or "state")."""
  return columns["has_" + name] if TARGETS[name] in columns else np.zeros(len(columns["has_" + name]), bool)


def target(columns: dict[str, np.ndarray], name: str) -> np.ndarray | None:
  """Of the N windows that have it, [N, A] mean action over the pair t -> t + n ("action") or [N, S] change of the robot's state
  ("state"); None when no window has one."""
  has = having(columns, name)
  return columns[TARGETS[name]][has, 1] if has.any() else None


class Measure:
  """A model's compiled evaluation; call it with parameters and windows."""

  def __init__(self, model: Any):
    self._model = model
    self._run, self._label, self._draw = jax.jit(self._latents), jax.jit(self._motion), jax.jit(self._onto)

  def _latents(self, params, frames):
    model, images = self._model, pixels.normalise(frames)
    tokens = model.features(params, images)
    def motion(a, b):
      return model.encode(params, images[:, a], images[:, b], features=(tokens[:, a], tokens[:, b])).z
    z = motion(1, 2)
    predicted = model.decode(params, images[:, 1], z, features=tokens[:, 1])["pixels"]
    return {"z": z, "past": motion(0, 1), "future": motion(2, 1), "predicted": pixels.denormalise(predicted).clip(0, 1)}

  def _motion(self, params, frames):
    first, second = pixels.normalise(frames[:, 1]), pixels.normalise(frames[:, 2])
    return self._model.encode(params, first, second).z

  def _onto(self, params, frames):
    images = pixels.normalise(frames)
    z = self._model.encode(params, images[:, 0], images[:, 1]).z
    return pixels.denormalise(self._model.decode(params, images[:, 2], z)["pixels"]).clip(0, 1)

  def labels(self, params, windows: evaluation.Evaluation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Only z of t -> t + n [M, Z], and the windows' columns."""
    parts = [(z, columns) for _, z, columns in self._walk(self._label, params, windows)]
    return np.concatenate([z for z, _ in parts]), _stacked([columns for _, columns in parts])

  def __call__(self, params, windows: evaluation.Evaluation) -> Measured:
    """Everything, in one walk over the windows."""
    latents, errors, columns = [], [], []
    for frames, out, rows in self._walk(self._run, params, windows):
      unit = frames.astype(np.float32) / 255
      errors.append(reconstruction.measure(out.pop("predicted"), unit[:, 2], current=unit[:, 1]))
      latents.append(out)
      columns.append(rows)
    return Measured(**_stacked(latents), frames=reconstruction.summarise(errors), columns=_stacked(columns))

  def _walk(self, run, params, windows: evaluation.Evaluation):
    """(frames, results of `run`, columns) of each batch, without its padding and without windows that cannot be read.

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
        yield frames[valid], jax.tree.map(lambda x, valid=valid: x[valid], out), {name: value[valid] for name, value in batch.items()}
    if damaged == windows.size:
      raise errors.UserError(f"none of the {windows.size} evaluation windows can be read: check the data with its checksums (shards.verify)")
    if damaged:
      print(f"evaluation: {damaged} of {windows.size} windows cannot be read and are left out")

  def predict(self, params, first: np.ndarray, second: np.ndarray, onto: np.ndarray | None = None) -> np.ndarray:
    """The motion of uint8 frames first -> second drawn onto other first frames (default: its own): uint8 [B, H, W, 3]."""
    onto = first if onto is None else onto
    drawn = jax.device_get(self._draw(params, np.stack([first, second, onto], axis=1)))
    return np.asarray(np.rint(drawn * 255), np.uint8)


def _stacked(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def names(manifest_names: list[str] | None, size: int, what: str) -> tuple[str, ...]:
  """Names of the dimensions of an action or state, numbered where a data set gives none."""
  if manifest_names and len(manifest_names) == size:
    return tuple(str(name) for name in manifest_names)
  return tuple(f"{what} {i}" for i in range(size))
