"""A stream of frames through a frozen motion model, which encodes each frame once.

The tokens of a frame wait on the device for the frame that is n later, and the pair becomes a
latent motion. Both programs have one shape each, so each is compiled once: `batch_size` frames to
tokens, `pairs_batch` pairs to z. The tokens are in a ring of whole batches that both read and
write on the device; only frames go in and only z comes out.

Legend: B frames of a batch, P pairs of a batch, R batches in the ring, N patches, D width, H W
image, Z numbers of a motion.
"""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from como_jax.models import pixels
from como_jax.models.motion import inputs
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules

_AHEAD = 3  # batches of pairs the device may be behind the host


class LatentStream:
  """Frames in, latent motions out, in the order the pairs were named.

  Frames are numbered from 0 as they are added; pairs are named by those numbers.

  Attributes:
    image_size: H = W.
    latent_size: Z.
    encoded: frames that went through the device, padding included.
    paired: pairs that went through the device, padding included.
  """

  def __init__(
    self,
    model: Any,
    params: Any,
    *,
    batch_size: int,
    pairs_batch: int,
    reach: int,
    mesh: jax.sharding.Mesh,
  ):
    """Compiles nothing yet; puts the parameters on the devices.

    Args:
      model: the motion model.
      params: its parameters; those of the forward dynamics are not used.
      batch_size: B, a multiple of the devices over which the batch is sharded.
      pairs_batch: P, a multiple as B.
      reach: the largest number of frames between the two of a pair.
      mesh: devices of this process.
    """
    self._batch, self._pairs, self.image_size, self.latent_size = (
      batch_size,
      pairs_batch,
      model.image_size,
      model.latent.size,
    )
    self._slots = -(-(batch_size + pairs_batch + reach) // batch_size)
    self._model, self._mesh = model, mesh
    needed = {name: params[name] for name in ("encoder", "idm")}
    self._params = jax.device_put(needed, rules.shardings(needed, mesh))
    self._rows = mesh_lib.batch_sharding(mesh)
    self._difference = inputs.INPUTS[model.qformer.inputs].pixel_difference
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, ("data", "fsdp")))
    self._encode = jax.jit(self._encode_batch, donate_argnums=1, out_shardings=spread)
    self._pair = jax.jit(self._pair_batch, out_shardings=mesh_lib.replicated(mesh))
    frames = jax.ShapeDtypeStruct((batch_size, self.image_size, self.image_size, 3), jnp.uint8)
    tokens = jax.eval_shape(
      lambda p, x: model.encode_frames(p, pixels.normalize(x)), needed, frames
    )
    stored = {"tokens": tokens} | ({"frames": frames} if self._difference else {})
    self._ring = {
      name: jnp.zeros((self._slots, *leaf.shape), leaf.dtype, device=spread)
      for name, leaf in stored.items()
    }
    self.encoded = self.paired = 0
    self._reset()

  def _reset(self) -> None:
    self._buffer = np.empty((self._batch, self.image_size, self.image_size, 3), np.uint8)
    self._filled, self._written = 0, 0  # frames in the buffer; frames on the device
    # (first, second, ticket) whose second frame is in the buffer
    self._named: collections.deque = collections.deque()
    self._waiting: collections.deque = collections.deque()  # the same, both on the device
    self._running: collections.deque = collections.deque()  # (z on the device, tickets)
    self._done: list[tuple[Any, np.ndarray]] = []

  def add(
    self, frames: np.ndarray, pairs: list[tuple[int, int, Any]]
  ) -> list[tuple[Any, np.ndarray]]:
    """Adds frames and names the pairs that they complete.

    Args:
      frames: uint8 [k, H, W, 3], any k.
      pairs: (number of the first frame, of the second, ticket), in order of the second, which is
        among these frames.

    Returns:
      (ticket, z float32 [Z]) of pairs that are finished, each once.
    """
    self._named.extend(pairs)
    begin = 0  # of the frames that are not in the buffer yet
    while begin < len(frames):
      count = min(self._batch - self._filled, len(frames) - begin)
      self._buffer[self._filled : self._filled + count] = frames[begin : begin + count]
      self._filled, begin = self._filled + count, begin + count
      if self._filled == self._batch:
        self._send()
    done, self._done = self._done, []
    return done

  def finish(self) -> list[tuple[Any, np.ndarray]]:
    """Finishes the rest, with padding in the last batches.

    The stream then starts anew at frame 0, so later results do not depend on earlier frames.

    Returns:
      (ticket, z), as `add`.
    """
    if self._filled:
      self._buffer[self._filled :] = 0
      self._send()
    while self._waiting:
      self._run()
    while self._running:
      self._collect()
    done = self._done
    self._reset()
    return done

  def _send(self) -> None:
    """Encodes the buffer.

    Pairs whose first frame would be overwritten are run before, even if their batch is not full.
    """
    oldest = self._written + self._batch - self._slots * self._batch  # of those that stay
    while self._waiting and self._waiting[0][0] < oldest:
      self._run()
    slot = self._written // self._batch % self._slots
    frames = jax.device_put(self._buffer, self._rows)
    self._ring = self._encode(self._params, self._ring, frames, np.int32(slot))
    self._buffer = np.empty_like(self._buffer)  # the device may still read the other one
    self._filled, self._written = 0, self._written + self._batch
    self.encoded += self._batch
    while self._named and self._named[0][1] < self._written:
      self._waiting.append(self._named.popleft())
    while len(self._waiting) >= self._pairs:
      self._run()

  def _run(self) -> None:
    """Starts one batch of waiting pairs."""
    chosen = [self._waiting.popleft() for _ in range(min(self._pairs, len(self._waiting)))]
    numbers = np.zeros((2, self._pairs), np.int64)
    numbers[:, : len(chosen)] = np.array([pair[:2] for pair in chosen]).T
    indices = np.stack([numbers // self._batch % self._slots, numbers % self._batch], -1).astype(
      np.int32
    )
    indices = jax.device_put(
      indices,
      jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec(None, ("data", "fsdp"))),
    )
    self._running.append(
      (self._pair(self._params, self._ring, indices), [pair[2] for pair in chosen])
    )
    self.paired += self._pairs
    if len(self._running) > _AHEAD:
      self._collect()

  def _collect(self) -> None:
    z, tickets = self._running.popleft()
    self._done.extend(zip(tickets, np.asarray(z), strict=False))

  def _encode_batch(self, params, ring, frames, slot):
    with rules.activations(self._mesh):
      new = {
        "tokens": self._model.encode_frames(params, pixels.normalize(frames)),
        "frames": frames,
      }
      return {
        name: jax.lax.dynamic_update_index_in_dim(batches, new[name], slot, 0)
        for name, batches in ring.items()
      }

  def _pair_batch(self, params, ring, indices):
    with rules.activations(self._mesh):
      first, second = (
        {name: batches[frame[:, 0], frame[:, 1]] for name, batches in ring.items()}
        for frame in (indices[0], indices[1])
      )
      if self._difference:
        images = pixels.normalize(first["frames"]), pixels.normalize(second["frames"])
      else:  # the tokens are enough; XLA drops the images
        images = (jnp.zeros((self._pairs, self.image_size, self.image_size, 3)),) * 2
      return self._model.encode(params, *images, tokens=(first["tokens"], second["tokens"])).z
