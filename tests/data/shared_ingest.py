"""An ingest that a test can hold at an episode: python -m tests.data.shared_ingest NAME FOLDER.

FOLDER/out is written. The process stops at episode i while FOLDER/hold-NAME-i is there, and makes
FOLDER/at-NAME-i before that.
"""

import pathlib
import sys
import time

from como_jax.data import ingest, ingest_settings, sources
from tests.data import makers

LENGTHS = (5, 6, 7, 8, 9, 4, 3)
LEASE = 1.0  # seconds


class Held(makers.Synthetic):
  """A source that stops at an episode."""

  def __init__(self, name="", folder=None):
    super().__init__(LENGTHS)
    self.name, self.folder = name, folder

  def __getitem__(self, i):
    if self.folder:
      (self.folder / f"at-{self.name}-{i}").touch()
      while (self.folder / f"hold-{self.name}-{i}").exists():
        time.sleep(0.01)
    return super().__getitem__(i)


def write(source, output, **work):
  """Two episodes a shard: shards 0 to 3."""
  storage = ingest_settings.StorageOptions(image_size=16, episodes_per_shard=2)
  settings = storage.settings(source, sources.SourceOptions())
  return ingest.write(source, str(output), settings, ingest.Work(progress=False, **work))


if __name__ == "__main__":
  folder = pathlib.Path(sys.argv[2])
  write(Held(sys.argv[1], folder), folder / "out", workers=int(sys.argv[3]), lease_seconds=LEASE)
