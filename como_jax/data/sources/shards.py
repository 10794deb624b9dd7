"""Shards as a source, to ingest them again at another size, codec or clip length."""

import functools
from collections.abc import Iterator

import numpy as np

from como_jax.data import episode, reader, shards, video


class Shards:
  """One episode for each of theirs; what an earlier ingest left out of an episode ends a shot."""

  def __init__(self, path: str, options=None):
    del options  # nothing is left open by our own files
    self._path = path
    manifest = shards.read_manifest(path)
    self._table = shards.read_table(path)
    used = np.unique(self._table.episode)
    self.names = tuple(self._table.episodes[i] for i in used)
    self._numbers = [int(i) for i in used]
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
    mine = table.episode == self._numbers[i]
    rows, found = np.flatnonzero(mine), shards.segments(table, mine)
    source = reader.SegmentReader(self._path, found)
    arrays = {}
    for name in ("action", "state"):
      parts = [source.numbers(s, name, 0, found.length(s)) for s in range(len(found))]
      if all(part is not None for part in parts):
        arrays[name] = np.concatenate(parts)
    task = [table.tasks[table.task[row]] for row in rows for _ in range(int(table.length[row]))]
    cameras = {name: functools.partial(_frames, source, name) for name in self.cameras}
    cuts = np.cumsum([found.length(s) for s in range(len(found))])[:-1]
    return episode.RawEpisode(
      self.names[i],
      task[0] if len(set(task)) == 1 else task,
      cameras,
      arrays,
      group=table.groups[table.group[rows[0]]],
      cuts=tuple(int(t) for t in cuts),
    )

  def fingerprint(self) -> str:
    return episode.fingerprint(self._path, [shards.MANIFEST, shards.RECORDS])


def _frames(source, camera: str, geometry: video.Geometry) -> Iterator[tuple[float, np.ndarray]]:
  for s in range(len(source.segments)):
    seconds = source.times(s).at(np.arange(source.segments.length(s)))
    for t, second in enumerate(seconds):
      size, _ = source.frame_size(s, camera, [t], to=(0, 0))
      yield (
        float(second),
        geometry.apply(source.images(s, camera, [t], to=geometry.inner(*size))[0]),
      )
