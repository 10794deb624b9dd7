"""Data: numpy, Grain and codecs only.

No module in this package asks JAX for its devices or process index. Both are arguments.

Importing this package does not import Grain, so ingest workers start faster. Only `pipeline`,
`policy_pipeline`, `sequences` and `evaluation` import Grain.
"""

import dataclasses
import os
from typing import Any

from como_jax.data import index, shards


@dataclasses.dataclass(frozen=True)
class DataSet:
  """One entry of a mixture.

  Attributes:
    path: folder of como_jax shards (`ingest.ensure_shards` makes one from any data).
    weight: share of the mixture, relative to the other entries.
    offset_seconds: time between the frames of a window.
    cameras: names to use, empty = all.
    name: used in messages and reports; "" = the folder's name.
  """

  path: str
  weight: float = 1.0
  offset_seconds: float = 0.5
  cameras: tuple[str, ...] = ()
  name: str = ""

  @property
  def label(self) -> str:
    """The name in messages and reports."""
    return self.name or os.path.basename(os.path.normpath(self.path))


def describe(
  dataset: DataSet, *, frames: int = 2, validation_fraction: float = 0.1
) -> dict[str, Any]:
  """Describes a data set in plain JSON values, for logs and reports.

  Args:
    dataset: the data set.
    frames: number of frames of a window.
    validation_fraction: share of the episodes that are for validation.

  Returns:
    name, source, image_size, codec, cameras, tasks (number), fps (sorted list, derived from the
    times), seconds, episodes, clips, frames, quarantined, windows {"train", "validation"} of
    `frames` frames, offset_seconds, stride_frames (sorted list), segments_without_window,
    windows_left_out, action and state {"size", "names", "statistics"}, fingerprint.
  """
  manifest, table = shards.read_manifest(dataset.path), shards.read_table(dataset.path)
  validation = index.split(table, validation_fraction)
  counts, windows = {}, {}
  for which, keep in (("train", ~validation), ("validation", validation)):
    if keep.any():
      windows[which] = index.windows(
        table,
        frames=frames,
        offset_seconds=dataset.offset_seconds,
        keep=keep,
        cameras=tuple(dataset.cameras),
        name=dataset.label,
        warn=False,
      )
    counts[which] = len(windows[which]) if which in windows else 0
  return {
    "name": dataset.label,
    "source": manifest["source"]["description"],
    "image_size": manifest["image_size"],
    "codec": manifest["codec"],
    "cameras": list(dataset.cameras) or list(table.cameras),
    "tasks": len(set(table.tasks) - {""}),
    "fps": sorted({round(float(rate), 3) for rate in table.rates if rate}),
    "seconds": table.seconds,
    **manifest["counts"],
    "windows": counts,
    "offset_seconds": dataset.offset_seconds,
    "stride_frames": index.frames_apart(table, dataset.offset_seconds),
    "segments_without_window": sum(part.segments_without for part in windows.values()),
    "windows_left_out": sum(part.left_out for part in windows.values()),
    "action": manifest["action"],
    "state": manifest["state"],
    "fingerprint": manifest["source"]["fingerprint"],
  }
