"""The labels of one shard: its frames through the stream, part by part, and into files.

A part is a run of sequences of a shard with so many frames that a killed run loses a few minutes at
most. The labels of a part are kept in a file of their own until the shard is whole. The stream
starts anew at each part, so what a label is depends on its part alone.
"""

import dataclasses
import glob
import json
import os
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from como_jax.data import labels, sequences
from como_jax.inference import latent_stream
from como_jax.train import rundir

# batches of frames in a part, at least; padding its last batch then costs 1.6 % on average
PART_BATCHES = 32


@dataclasses.dataclass(frozen=True)
class Part:
  """Consecutive sequences of a shard.

  Attributes:
    file: where its labels are kept until the shard is whole; None where the part is the whole
      shard.
    facts: hash of what its labels depend on.
  """

  shard: int
  sequences: tuple[sequences.Sequence, ...]
  file: str | None
  facts: str

  @property
  def frames(self) -> int:
    return sum(one.length for one in self.sequences)


@dataclasses.dataclass
class Labeled:
  """What is known of the frames of some sequences.

  Attributes:
    motions: labels of each sequence, in order.
    damaged: {"row" of the table, "camera", "frames" that cannot be read, "reason"}.
  """

  motions: list[labels.Motion]
  damaged: list[dict[str, Any]]


def parts(
  folder: str, plan: sequences.Plan, shard: int, *, batch_size: int, facts: Mapping[str, Any]
) -> list[Part]:
  """The parts of a shard, the same in every run with this batch size."""
  groups: list[list[sequences.Sequence]] = [[]]
  held = 0
  for one in plan.sequences(shard):
    if held >= PART_BATCHES * batch_size:
      groups.append([])
      held = 0
    groups[-1].append(one)
    held += one.length
  found = []
  for number, group in enumerate(groups):
    file = (
      os.path.join(folder, f"labels-{shard:05d}.part-{number:05d}.npz") if len(groups) > 1 else None
    )
    depends = json.dumps(
      [facts, batch_size, [dataclasses.astuple(one) for one in group]], sort_keys=True
    )
    found.append(Part(shard, tuple(group), file, xxhash.xxh64_hexdigest(depends.encode())))
  return found


def remove_parts(folder: str, shard: int) -> None:
  """Deletes the parts of a shard that is whole."""
  for file in glob.glob(os.path.join(glob.escape(folder), f"labels-{shard:05d}.part-*.npz")):
    os.remove(file)


class Meter:
  """Frames a second without the first clip, and the time spent waiting for frames."""

  def __init__(self):
    self.begin, self.frames, self.waited, self.total = None, 0, 0.0, 0

  def clip(self, frames: int, waited: float) -> None:
    """One more clip is on its way; the first full batch compiles, so the clock starts behind it."""
    if self.begin is not None:
      self.frames, self.waited = self.frames + frames, self.waited + waited
    self.total += frames

  def summary(self, stream: latent_stream.LatentStream, *, processes: int) -> dict[str, Any]:
    seconds = max(1e-9, time.monotonic() - self.begin) if self.begin else float("inf")
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
  progress,
) -> Labeled:
  """One part through the stream.

  Args:
    part: of the plan.
    clips: of `sequences.walk`, standing at the part's first one; it is left behind its last one.
    stream: at its start.
    meter, progress: told of each clip.
  """
  found = Labeled([], [])
  at = 0  # frames of this part in the stream so far
  for one in part.sequences:
    pairs, table = plan.pairs(one.segment), plan.segments.table
    motion = labels.Motion(
      np.zeros((one.length, stream.latent_size), np.float32),
      np.zeros(one.length, bool),
      np.zeros(one.length, np.float32),
    )
    found.motions.append(motion)
    first = np.flatnonzero(pairs.valid)  # increasing, and so are their partners
    second = pairs.second[first]
    readable = np.zeros(one.length, bool)
    for row in plan.segments.rows(one.segment):
      before = time.monotonic()
      read = next(clips)
      count = len(read["frames"])
      meter.clip(count, time.monotonic() - before)
      place = plan.segments.begin(one.segment, row)
      readable[place : place + count] = read["readable"]
      if lost := int((~read["readable"]).sum()):
        found.damaged.append(
          {
            "row": row,
            "camera": one.camera,
            "frames": lost,
            "reason": _without_folder(str(read["damage"]), table.path),
          }
        )
      complete = slice(*np.searchsorted(second, [place, place + count]))
      named = [
        (at - place + t, at - place + partner, (motion, t, pairs.difference[t]))
        for t, partner in zip(first[complete].tolist(), second[complete].tolist(), strict=True)
        if readable[t] and readable[partner]
      ]
      _keep(stream.add(read["frames"], named))
      at += count
      if meter.begin is None and stream.encoded:
        meter.begin = time.monotonic()
      progress.update(count)
  _keep(stream.finish())
  return found


def _keep(done) -> None:
  for (motion, t, difference), z in done:
    motion.z[t], motion.valid[t], motion.difference[t] = z, True, difference


def _without_folder(reason: str, table_path: str) -> str:
  """Names of files instead of paths: a label set does not say where its data lay."""
  return reason.replace(os.path.dirname(table_path) + os.sep, "")


def save(part: Part, labeled: Labeled) -> None:
  """Writes a part's file at once or not at all."""
  arrays = {
    f"{name}/{i}": value
    for i, motion in enumerate(labeled.motions)
    for name, value in motion._asdict().items()
  }
  temporary = f"{part.file}.{os.getpid()}.tmp"
  with open(temporary, "wb") as file:
    np.savez(
      file, facts=np.array(part.facts), damaged=np.array(json.dumps(labeled.damaged)), **arrays
    )
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, part.file)


def load(part: Part) -> Labeled | None:
  """What `save` wrote; None where there is none, where it is torn, or where its labels are of
  another model or other data.
  """
  try:
    with np.load(part.file) as file:  # a zip archive: every array has a checksum
      if str(file["facts"]) != part.facts:
        return None
      motions = [
        labels.Motion(*(file[f"{name}/{i}"] for name in labels.Motion._fields))
        for i in range(len(part.sequences))
      ]
      return Labeled(motions, json.loads(str(file["damaged"])))
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None


def write(
  folder: str,
  shard: int,
  plan: sequences.Plan,
  done: Sequence[tuple[Part, Labeled]],
  *,
  facts: Mapping[str, Any],
) -> dict[str, Any]:
  """The labels of one shard from those of its parts, cut into its clips; returns the sidecar."""
  table = plan.segments.table
  by_row: dict[int, labels.Motions] = {}
  counts = {"left_out": 0, "at_end": 0}
  for part, labeled in done:
    for one, motion in zip(part.sequences, labeled.motions, strict=True):
      pairs = plan.pairs(one.segment)
      counts["left_out"] += pairs.left_out
      counts["at_end"] += pairs.at_end
      for row in plan.segments.rows(one.segment):
        begin = plan.segments.begin(one.segment, row)
        here = slice(begin, begin + int(table.length[row]))
        by_row.setdefault(row, {})[one.camera] = labels.Motion(*(array[here] for array in motion))
  rows = sorted(by_row, key=lambda row: int(table.clip[row]))
  damaged = sorted(
    (
      {
        "clip": int(table.clip[one["row"]]),
        **{key: one[key] for key in ("camera", "frames", "reason")},
      }
      for _, labeled in done
      for one in labeled.damaged
    ),
    key=lambda one: (one["clip"], one["camera"]),
  )
  return labels.write_shard(
    folder,
    shard,
    ((int(table.start[row]), by_row[row]) for row in rows),
    facts=facts,
    damaged=damaged,
    **counts,
  )
