"""Data: numpy, Grain and codecs only.

No module in this package asks JAX for its devices or process index. Both are arguments.

Importing this package does not import Grain, so ingest workers start faster. Only `stream` and what
needs it (the pipelines, the mixtures, `sequences`, `evaluation`) import Grain.
"""

import dataclasses
import os


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
