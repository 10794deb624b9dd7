"""The shards of an ingest as units of work that several processes share."""

import dataclasses
import glob
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from como_jax import errors
from como_jax.data import ingest_manifest, shard_writer, shards, sources
from como_jax.data.ingest_settings import Settings
from como_jax.units import beam
from como_jax.units import folder as units
from como_jax.units import lease as leases

_MERGE = "manifest"  # name of the last unit: it puts the others together


def is_done(output: str, shard: int) -> bool:
  """Whether a shard is finished: its sidecar is there, and so is the file that it names, if any.

  A shard without a file has only a short sidecar, which is read.
  """
  sidecar = shard_writer.sidecar_path(output, shard)
  if not os.path.isfile(sidecar):
    return False
  if os.path.isfile(os.path.join(output, shards.shard_name(shard))):
    return True
  content = shard_writer.read_json(sidecar)
  return isinstance(content, dict) and content.get("file", "") is None


def remove_torn(output: str, shard: int) -> None:
  """Removes a sidecar that cannot be read, as older versions could leave it."""
  path = shard_writer.sidecar_path(output, shard)
  if os.path.isfile(path) and not shard_writer.read_json(path):
    os.remove(path)


@dataclasses.dataclass(frozen=True)
class StageShard:
  """The function that workers run: it writes a shard and its sidecar into the staging folder."""

  source: sources.Source
  staging: str
  settings: Settings

  def __call__(
    self, unit: shard_writer.Unit, report: Callable[[shard_writer.Progress], None]
  ) -> dict[str, Any] | None:
    """Writes a shard; returns its sidecar.

    None means that the staging folder has been removed: others have finished the data set while
    this process was stopped.
    """
    try:
      return shard_writer.WriteShard(self.source, self.staging, self.settings)(unit, report)
    except FileNotFoundError:
      if os.path.isdir(self.staging):
        raise
      return None


@dataclasses.dataclass(frozen=True)
class PlaceShard:
  """The function that Apache Beam runs (`units.beam`): it writes a shard that is not there yet."""

  source: sources.Source
  output: str
  settings: Settings

  def __call__(self, unit: shard_writer.Unit) -> None:
    """Writes a shard and its sidecar."""

    def make(staging: str) -> list[str]:
      StageShard(self.source, staging, self.settings)(unit, lambda progress: None)
      return files(staging, unit.shard)

    if not is_done(self.output, unit.shard):
      beam.place(self.output, make)


def files(staging: str, shard: int) -> list[str]:
  """Names of the files of a shard in a staging folder; the sidecar, which says it is done, last."""
  last = os.path.basename(shard_writer.sidecar_path("", shard))
  stem = last.removesuffix("json")
  names = [
    name
    for name in sorted(os.listdir(staging))
    if name.startswith(stem) and name != last and not name.endswith(".tmp")
  ]
  return [*names, last]


class Shards:
  """The shards that are missing; iterating claims them, see `workers.run`."""

  def __init__(self, folder: units.SharedFolder, missing: Sequence[shard_writer.Unit]):
    self.folder, self.missing = folder, list(missing)
    self._leases: dict[int, leases.Lease] = {}

  def __len__(self) -> int:
    return len(self.missing)

  def __iter__(self) -> Iterator[shard_writer.Unit | None]:
    by_name = {f"shard-{unit.shard:05d}": unit for unit in self.missing}
    for claimed in self.folder.claims(
      by_name, lambda name: is_done(self.folder.output, by_name[name].shard)
    ):
      if claimed:
        self._leases[claimed[1].shard] = claimed[0]
      yield claimed and claimed[1]

  def publish(self, sidecar: dict[str, Any]) -> bool:
    """Publishes a shard that was written; False when another process has taken it meanwhile."""
    shard = sidecar["shard"]
    return self.folder.publish(self._leases.pop(shard), files(self.folder.staging, shard))


def merge(
  folder: units.SharedFolder, settings: Settings, source: sources.Source, count: int
) -> dict[str, Any]:
  """Writes the manifest when all shards are there, or waits for the process that writes it.

  Args:
    folder: of the shards.
    settings: of the ingest.
    source: that was read.
    count: number of shards.

  Raises:
    errors.UserError: no episode could be read.
  """
  output = folder.output
  path = os.path.join(output, shards.MANIFEST)
  while True:
    lease = folder.claim(_MERGE, lambda: os.path.isfile(path))
    manifest = lease and _merge(folder, lease, settings, source, count)
    if manifest:
      return manifest
    if os.path.isfile(path):
      return shards.read_manifest(output)
    time.sleep(folder.poll)


def _merge(
  folder: units.SharedFolder,
  lease: leases.Lease,
  settings: Settings,
  source: sources.Source,
  count: int,
) -> dict[str, Any] | None:
  """Writes the manifest; None when another process has done so while this one was stopped."""
  sidecars = [
    shard_writer.read_json(shard_writer.sidecar_path(folder.output, shard))
    for shard in range(count)
  ]
  try:
    manifest = ingest_manifest.write(folder.output, settings, source, sidecars, into=folder.staging)
  except errors.UserError:  # a rerun tries again
    folder.clear()
    raise
  except FileNotFoundError:
    if os.path.isdir(folder.staging):
      raise
    return None
  if not folder.publish(lease, ingest_manifest.FILES):
    return None
  folder.clear()
  for stale in glob.glob(os.path.join(glob.escape(folder.output), "*.tmp")):
    os.remove(stale)
  return manifest
