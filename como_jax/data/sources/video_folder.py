"""A folder of video files of any kind, searched recursively; every file is an episode with one camera."""

import functools
import json
import os
import warnings

from como_jax import errors
from como_jax.data import episode, video

EXTENSIONS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".ogv", ".3gp")
CAMERA = "camera"
ANNOTATIONS = "lang_annotations.json"  # {"file.mp4": "instruction"} beside the files


def find(root: str, *, limit: int | None = None) -> list[str]:
  """Paths of the video files below a folder, relative, "/"-separated and sorted; stops early at `limit`."""
  found = []
  for folder, children, files in os.walk(root, followlinks=True):
    children[:] = sorted(child for child in children if not child.startswith("."))
    for name in sorted(files):
      if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
        found.append(os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/"))
        if limit and len(found) >= limit:
          return found
  return sorted(found)


class VideoFolder:
  """Any codec and container PyAV reads; rotation is honoured; a varying frame rate is treated as its nominal
  average."""

  def __init__(self, path: str):
    self._root = path
    self.names = tuple(find(path))
    if not self.names:
      raise errors.UserError(f"no video file below {path}: expected one of {' '.join(EXTENSIONS)}")
    self.cameras = (CAMERA,)
    self.info = {"format": "video_folder", "description": f"folder of {len(self.names)} video files"}
    self._tasks = self._read_tasks()

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> episode.RawEpisode:
    path = os.path.join(self._root, self.names[i])
    info, notes = video.probe(path), []
    cameras = {CAMERA: functools.partial(video.read, path, notes=notes)}
    return episode.RawEpisode(self.names[i], info.fps, self._tasks.get(self.names[i], ""), cameras, {}, notes)

  def fingerprint(self) -> str:
    folders = {os.path.dirname(name) for name in self.names}
    notes = sorted(
      os.path.join(folder, ANNOTATIONS)
      for folder in folders
      if os.path.isfile(os.path.join(self._root, folder, ANNOTATIONS))
    )
    return episode.fingerprint(self._root, [*self.names, *notes])

  def _read_tasks(self) -> dict[str, str]:
    tasks = {}
    for folder in sorted({os.path.dirname(name) for name in self.names}):
      path = os.path.join(self._root, folder, ANNOTATIONS)
      if not os.path.isfile(path):
        continue
      try:
        with open(path, encoding="utf-8") as file:
          entries = json.load(file)
        tasks.update(
          {
            os.path.join(folder, name).replace(os.sep, "/"): text
            for name, text in entries.items()
            if isinstance(text, str)
          }
        )
      except (ValueError, AttributeError) as error:
        warnings.warn(f'{path} is ignored: expected {{"file.mp4": "instruction"}} ({error})', stacklevel=2)
    return tasks
