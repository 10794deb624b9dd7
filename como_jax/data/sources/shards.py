"""Shards as a source, to ingest them again with another size, codec or clip length."""

import functools
from collections.abc import Iterator

import numpy as np

from como_jax.data import episode, reader, shards, video
from como_jax.data.sources.options import SourceOptions
from como_jax.data.sources.protocol import Source


class Shards(Source):
  """A folder of shards as a source.

  Frames that an earlier ingest left out of an episode end a shot.
  """

  def __init__(self, path: str, options: SourceOptions | None = None):
    del options  # como_jax shards are never ambiguous
    self._path = path
    manifest = shards.read_manifest(path)
    self._table = shards.read_table(path)
    used = np.unique(self._table.episode)
    self.names = tuple(self._table.episodes[i] for i in used)
    self._episode_ids = [int(i) for i in used]
    self.cameras = tuple(manifest["cameras"])
    self.skipped: list[dict[str, str]] = []
    self.info = {
      "format": "shards",
      "robot_type": manifest["source"].get("robot_type"),
      "description": f"como_jax shards of {manifest['source']['description']}",
      "action_names": manifest["action"]["names"],
      "state_names": manifest["state"]["names"],
    }

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> episode.RawEpisode:
    table = self._table
    of_episode = table.episode == self._episode_ids[i]
    rows, segments = np.flatnonzero(of_episode), shards.segments(table, of_episode)
    source = reader.SegmentReader(self._path, segments)
    arrays = {}
    for name in ("action", "state"):
      parts = [source.read_array(s, name, 0, segments.length(s)) for s in range(len(segments))]
      present = [part for part in parts if part is not None]
      if len(present) == len(parts):
        arrays[name] = np.concatenate(present)
    task = [table.tasks[table.task[row]] for row in rows for _ in range(int(table.length[row]))]
    cameras = {name: functools.partial(_frames, source, name) for name in self.cameras}
    cuts = np.cumsum([segments.length(s) for s in range(len(segments))])[:-1]
    return episode.RawEpisode(
      self.names[i],
      task[0] if len(set(task)) == 1 else task,
      cameras,
      arrays,
      group=table.groups[table.group[rows[0]]],
      cuts=tuple(int(t) for t in cuts),
    )

  def fingerprint(self) -> str:
    """Hash that changes when the shards change."""
    return episode.fingerprint(self._path, [shards.MANIFEST, shards.RECORDS])


def _frames(
  source: reader.SegmentReader, camera: str, geometry: video.Geometry
) -> Iterator[tuple[float, np.ndarray]]:
  for s in range(len(source.segments)):
    seconds = source.times(s).seconds_at(np.arange(source.segments.length(s)))
    for t, second in enumerate(seconds):
      size, _ = source.frame_size(s, camera, [t], to=(0, 0))
      yield (
        float(second),
        geometry.apply(source.images(s, camera, [t], to=geometry.inner(*size))[0]),
      )
