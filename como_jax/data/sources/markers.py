"""The files at the top of a folder by which its format is known: one line per format.

A folder of videos has none: it is what holds a video and no marker.
"""

import dataclasses
import fnmatch
import os

from como_jax.data import shards

LEROBOT = os.path.join("meta", "info.json")


@dataclasses.dataclass(frozen=True)
class Marker:
  """What is in every folder of one format.

  Attributes:
    title: what messages call the format.
    files: files that are all there: paths from the folder, or patterns of names such as "*.npz".
  """

  title: str
  files: tuple[str, ...]

  def __str__(self) -> str:
    return f"{' and '.join(self.files)} ({self.title})"

  def marks(self, folder: str) -> bool:
    """Whether `folder` holds all of these files."""
    return all(_holds(folder, file) for file in self.files)


# Keys as in `SOURCES`. A folder with the markers of two formats is of the one that stands first.
MARKERS: dict[str, Marker] = {
  "lerobot": Marker("LeRobot", (LEROBOT,)),
  "tfds": Marker("tensorflow-datasets", ("dataset_info.json", "features.json")),
  "shards": Marker("como_jax shards", (shards.MANIFEST,)),
}


def found(folder: str) -> list[str]:
  """The formats whose markers are in `folder`: keys of `MARKERS`, in their order."""
  return [name for name, marker in MARKERS.items() if marker.marks(folder)]


def _holds(folder: str, file: str) -> bool:
  if "*" not in file:
    return os.path.isfile(os.path.join(folder, file))
  try:
    return bool(fnmatch.filter(os.listdir(folder), file))
  except OSError:
    return False
