"""Runs a motion model over evaluation windows (t - n, t, t + n) for all metrics.

The windows of a batch are spread over all devices. Several processes each read a part of every
batch, and then all have the same results.

Legend: M windows, B batch, H W image, N patches and D width of the encoder, P values of a picture,
Z latent width.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.experimental import multihost_utils

from como_jax import errors, trees
from como_jax.data import evaluation
from como_jax.data.batching import ProcessSlice
from como_jax.evaluate import consistency, reconstruction
from como_jax.models import pixels
from como_jax.parallel import distributed, rules
from como_jax.parallel import mesh as mesh_lib


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
  """The compiled evaluation of a model; call it with parameters and windows.

  Parameters that are on a mesh are used there; others are copied to all devices.
  """

  def __init__(self, model: Any):
    self._model = model
    self._draw = jax.jit(self._transfer)
    self._spread = functools.cache(self._compiled)

  def _compiled(self, function: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """A function of (parameters, frames), with the windows spread over the devices of a mesh."""

    def run(params, frames):
      with rules.activations(mesh):
        return function(params, frames)

    return jax.jit(run, out_shardings=mesh_lib.batch_sharding(mesh))

  def _all(self, params, frames):
    return self._latents(params, frames, pictures=True)

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
      {"pictures": out["pictures"], **trees.flatten({"z": out["z"], "columns": columns})}
      for _, out, columns in self._batches(self._motion, dict(params), windows)
    ]
    found = trees.unflatten(_joined(parts, windows))
    return Labels(found["z"], found["pictures"], found["columns"])

  def __call__(
    self, params, windows: evaluation.EvaluationWindows, *, pictures: bool = False
  ) -> MotionEvaluation:
    """Computes everything in one pass over the windows.

    Args:
      params: parameters of the model.
      windows: the windows.
      pictures: also `MotionEvaluation.pictures`.
    """
    parts = []
    function = self._all if pictures else self._latents
    for frames, out, columns in self._batches(function, params, windows):
      unit = frames.astype(np.float32) / 255
      scores = reconstruction.measure(out.pop("predicted"), unit[:, 2], current=unit[:, 1])
      parts.append(trees.flatten({"latents": out, "scores": scores, "columns": columns}))
    found = trees.unflatten(_joined(parts, windows))
    return MotionEvaluation(
      **found["latents"],
      frames=reconstruction.summarize([found["scores"]]),
      columns=found["columns"],
    )

  def _batches(self, run, params, windows: evaluation.EvaluationWindows):
    """Yields (frames, results of `run`, columns) of this process's part of each batch.

    Padding and windows that cannot be read are among them, see the columns "valid" and "damaged".
    """
    mesh, params = _placed(params)
    program, count = self._spread(run, mesh), jax.process_count()
    if count > 1:
      windows = windows.part(ProcessSlice(jax.process_index(), count))
    with windows.batches() as batches:
      for _ in range(windows.num_batches):
        columns = distributed.run_on_all_processes(lambda: _read(batches))
        frames = columns.pop("frames")
        out = program(params, mesh_lib.put_batch(mesh, _padded(frames, mesh)))
        rows = slice(len(frames))
        yield frames, jax.tree.map(lambda x, rows=rows: _own_rows(x)[rows], out), columns

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


def _placed(params: Any) -> tuple[jax.sharding.Mesh, Any]:
  """(The mesh on which parameters are, the parameters there)."""
  shardings = {getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(params)}
  meshes = {getattr(one, "mesh", None) for one in shardings}
  if len(meshes) == 1 and isinstance(mesh := meshes.pop(), jax.sharding.Mesh):
    return mesh, params
  mesh = mesh_lib.make()
  return mesh, jax.device_put(params, mesh_lib.replicated(mesh))


def _read(batches: Any) -> dict[str, np.ndarray]:
  """The next batch; with several processes every failure is told to the others."""
  try:
    return next(batches)
  except errors.UserError:
    raise
  except Exception as error:
    if jax.process_count() == 1:
      raise
    raise errors.UserError(f"{type(error).__name__}: {distributed.first_line(error)}") from error


def _padded(frames: np.ndarray, mesh: jax.sharding.Mesh) -> np.ndarray:
  """Frames of this process with black ones at the end, to be spread evenly over its devices."""
  parts = max(1, mesh.shape["data"] * mesh.shape["fsdp"] // jax.process_count())
  missing = -len(frames) % parts
  return np.pad(frames, [(0, missing)] + [(0, 0)] * (frames.ndim - 1)) if missing else frames


def _own_rows(x: jax.Array) -> np.ndarray:
  """The rows of this process, in order."""
  if x.is_fully_addressable:
    return jax.device_get(x)
  shards = {shard.index[0].start or 0: shard.data for shard in x.addressable_shards}
  return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def _joined(
  parts: list[dict[str, np.ndarray]], windows: evaluation.EvaluationWindows
) -> dict[str, np.ndarray]:
  """The rows of all batches and processes in order of the windows, those that are valid.

  Args:
    parts: of each batch, rows of this process by name; those of "columns/valid" and
      "columns/damaged" are left out of the result.
    windows: that were walked.

  Raises:
    errors.UserError: no window can be read.
  """
  found = _from_all_processes({name: np.stack([p[name] for p in parts]) for name in parts[0]})
  valid, damaged = found.pop("columns/valid"), int(found.pop("columns/damaged").sum())
  if damaged == windows.size:
    raise errors.UserError(
      f"none of the {windows.size} evaluation windows can be read: check the data with its "
      "checksums (shards.verify)"
    )
  if damaged and distributed.is_primary():
    print(f"evaluation: {damaged} of {windows.size} windows cannot be read and are left out")
  return {name: values[valid] for name, values in found.items()}


def _from_all_processes(own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Rows [batches, rows, ...] of this process -> of all [batches * processes * rows, ...].

  They are exchanged as bytes, so that not a bit changes.
  """
  if jax.process_count() == 1:
    return {name: values.reshape(-1, *values.shape[2:]) for name, values in own.items()}
  local = np.concatenate([np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in own.values()])
  everything = np.asarray(multihost_utils.process_allgather(local))
  found, first = {}, 0
  for name, values in own.items():
    part = np.ascontiguousarray(everything[:, first : first + values.nbytes]).view(values.dtype)
    rows = part.reshape(len(everything), *values.shape).swapaxes(0, 1)
    found[name] = rows.reshape(-1, *values.shape[2:])
    first += values.nbytes
  return found
