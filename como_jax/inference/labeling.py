"""The labels of one shard: its frames through the stream, part by part, and into files.

The stream starts anew at each part, so a label depends on its part alone.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from como_jax.data import label_file, labels, sequences
from como_jax.inference import latent_stream
from como_jax.inference.label_parts import Labeled, Part
from como_jax.train import rundir


class Meter:
  """Measures frames per second, and the time spent waiting for frames.

  The first full batch compiles, so the clock starts behind it.

  Attributes:
    started: when the clock was started; None: not yet.
    frames: frames since then.
    waited: seconds spent waiting for frames since then.
    total: frames from the start.
  """

  def __init__(self):
    self.started: float | None = None
    self.frames, self.waited, self.total = 0, 0.0, 0

  def clip(self, frames: int, waited: float) -> None:
    """Counts one more clip."""
    if self.started is not None:
      self.frames, self.waited = self.frames + frames, self.waited + waited
    self.total += frames

  def summary(self, stream: latent_stream.LatentStream, *, processes: int) -> dict[str, Any]:
    """The content of speed.json.

    Args:
      stream: of the frames.
      processes: number of processes of the run.
    """
    seconds = max(1e-9, time.monotonic() - self.started) if self.started else float("inf")
    return {
      "frames_per_s": round(self.frames / seconds, 2),
      "wait_share": round(min(1.0, self.waited / seconds), 4),
      "frames": self.total,
      "encoded": stream.encoded,
      "pairs": stream.paired,
      "processes": processes,
      **rundir.hardware(),
    }


def label(
  part: Part,
  plan: sequences.Plan,
  clips: Iterator[Mapping[str, np.ndarray]],
  stream: latent_stream.LatentStream,
  meter: Meter,
  progress: Any,
) -> Labeled:
  """Labels one part.

  Args:
    part: of the plan.
    plan: of the data.
    clips: of `sequences.iterate_clips`, at the first clip of the part; afterwards behind its last.
    stream: at its start.
    meter: told of each clip.
    progress: a progress bar (tqdm), told of each clip.
  """
  result = Labeled([], [])
  added = 0  # frames of this part in the stream so far
  for sequence in part.sequences:
    pairs = plan.pairs(sequence.segment)
    motion = labels.Motion(
      np.zeros((sequence.length, stream.latent_size), np.float32),
      np.zeros(sequence.length, bool),
      np.zeros(sequence.length, np.float32),
    )
    result.motions.append(motion)
    first = np.flatnonzero(pairs.valid)  # increasing, and so are their partners
    second = pairs.second[first]
    readable = np.zeros(sequence.length, bool)
    for row in plan.segments.rows(sequence.segment):
      before = time.monotonic()
      clip = next(clips)
      count = len(clip["frames"])
      meter.clip(count, time.monotonic() - before)
      start = plan.segments.first_frame(sequence.segment, row)
      readable[start : start + count] = clip["readable"]
      if not clip["readable"].all():
        result.damaged.append(_damage(clip, row, sequence.camera, plan.segments.table.path))
      complete = slice(*np.searchsorted(second, [start, start + count]))
      tickets = [
        (added - start + t, added - start + partner, (motion, t, pairs.difference[t]))
        for t, partner in zip(first[complete].tolist(), second[complete].tolist(), strict=True)
        if readable[t] and readable[partner]
      ]
      _keep(stream.add(clip["frames"], tickets))
      added += count
      if meter.started is None and stream.encoded:
        meter.started = time.monotonic()
      progress.update(count)
  _keep(stream.finish())
  return result


def _keep(finished: list[tuple[Any, np.ndarray]]) -> None:
  """Writes finished pairs (ticket, z) into the motions that their tickets name."""
  for (motion, t, difference), z in finished:
    motion.z[t], motion.valid[t], motion.difference[t] = z, True, difference


def _damage(
  clip: Mapping[str, np.ndarray], row: int, camera: str, table_path: str
) -> dict[str, Any]:
  """The entry of a damaged clip in `Labeled.damaged`."""
  return {
    "row": row,
    "camera": camera,
    "frames": int((~clip["readable"]).sum()),
    "reason": _without_folder(str(clip["damage"]), table_path),
  }


def _without_folder(reason: str, table_path: str) -> str:
  """Names of files instead of paths: a label set does not say where its data lay."""
  return reason.replace(os.path.dirname(table_path) + os.sep, "")


def write(
  folder: str,
  shard: int,
  plan: sequences.Plan,
  done: Sequence[tuple[Part, Labeled]],
  *,
  facts: Mapping[str, Any],
) -> dict[str, Any]:
  """Writes the labels of one shard, cut into its clips.

  Args:
    folder: of the label set.
    shard: number of the shard.
    plan: of the data.
    done: its parts in order, with their labels.
    facts: what labels depend on.

  Returns:
    The sidecar of the shard.
  """
  table = plan.segments.table
  by_row: dict[int, labels.Motions] = {}
  counts = {"left_out": 0, "at_end": 0}
  for part, labeled in done:
    for sequence, motion in zip(part.sequences, labeled.motions, strict=True):
      pairs = plan.pairs(sequence.segment)
      counts["left_out"] += pairs.left_out
      counts["at_end"] += pairs.at_end
      for row in plan.segments.rows(sequence.segment):
        start = plan.segments.first_frame(sequence.segment, row)
        frames = slice(start, start + int(table.length[row]))
        by_row.setdefault(row, {})[sequence.camera] = labels.Motion(
          *(array[frames] for array in motion)
        )
  rows = sorted(by_row, key=lambda row: int(table.clip[row]))
  damaged = sorted(
    (
      {
        "clip": int(table.clip[entry["row"]]),
        **{key: entry[key] for key in ("camera", "frames", "reason")},
      }
      for _, labeled in done
      for entry in labeled.damaged
    ),
    key=lambda entry: (entry["clip"], entry["camera"]),
  )
  return label_file.write_shard(
    folder,
    shard,
    ((int(table.start[row]), by_row[row]) for row in rows),
    facts=facts,
    damaged=damaged,
    **counts,
  )
