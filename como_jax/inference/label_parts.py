"""The parts of a shard: the units of work of labeling, and the files that keep their labels.

A part is a series of sequences of a shard, with so many frames that a killed run loses a few
minutes at most. The labels of a part are kept in a file of their own until the shard is whole.
"""

import dataclasses
import glob
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from como_jax.data import labels, sequences

# batches of frames in a part, at least; padding its last batch then costs 1.6 % on average
PART_BATCHES = 32


@dataclasses.dataclass(frozen=True)
class Part:
  """Consecutive sequences of a shard.

  Attributes:
    shard: number of the shard.
    sequences: its sequences.
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
    """Number of frames."""
    return sum(sequence.length for sequence in self.sequences)


@dataclasses.dataclass
class Labeled:
  """The labels of some sequences.

  Attributes:
    motions: labels of each sequence, in order.
    damaged: {"row" of the table, "camera", "frames" that cannot be read, "reason"}.
  """

  motions: list[labels.Motion]
  damaged: list[dict[str, Any]]


def parts(
  folder: str, plan: sequences.Plan, shard: int, *, batch_size: int, facts: Mapping[str, Any]
) -> list[Part]:
  """The parts of a shard, the same in every run with this batch size.

  Args:
    folder: of the label set.
    plan: of the data.
    shard: number of the shard.
    batch_size: frames of a batch.
    facts: what labels depend on.
  """
  groups: list[list[sequences.Sequence]] = [[]]
  frames = 0  # of the last group
  for sequence in plan.sequences(shard):
    if frames >= PART_BATCHES * batch_size:
      groups.append([])
      frames = 0
    groups[-1].append(sequence)
    frames += sequence.length
  result = []
  for number, group in enumerate(groups):
    file = (
      os.path.join(folder, f"labels-{shard:05d}.part-{number:05d}.npz") if len(groups) > 1 else None
    )
    depends = json.dumps(
      [facts, batch_size, [dataclasses.astuple(sequence) for sequence in group]], sort_keys=True
    )
    result.append(Part(shard, tuple(group), file, xxhash.xxh64_hexdigest(depends.encode())))
  return result


def remove_parts(folder: str, shard: int) -> None:
  """Deletes the parts of a shard that is whole."""
  for file in glob.glob(os.path.join(glob.escape(folder), f"labels-{shard:05d}.part-*.npz")):
    os.remove(file)


def save(part: Part, labeled: Labeled) -> None:
  """Writes a part's file atomically; a part that is the whole shard has none."""
  if part.file is None:
    return
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
  """Reads what `save` wrote.

  Returns:
    None where there is no file, where it is torn, or where its labels are of another model or other
    data.
  """
  if part.file is None:
    return None
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
