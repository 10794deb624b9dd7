"""LeRobot data sets, v2.0, v2.1 and v3.0, with videos or with images inside the parquet files.

They are read with pyarrow and PyAV only. The path templates come from meta/info.json; none is
hard-coded. Layout: huggingface/lerobot, docs/source/lerobot-dataset-v3.mdx and
src/lerobot/datasets/.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import episode, pyav, video
from como_jax.data.sources import lerobot_clock as clock
from como_jax.data.sources import lerobot_features as layout
from como_jax.data.sources import lerobot_images as images
from como_jax.data.sources import lerobot_json
from como_jax.data.sources import lerobot_meta as meta
from como_jax.data.sources import lerobot_paths as paths
from como_jax.data.sources import lerobot_tables as tables
from como_jax.data.sources.lerobot_stretch import Stretch
from como_jax.data.sources.options import SourceOptions
from como_jax.data.sources.protocol import Source


class LeRobot(Source):
  """A LeRobot data set as a source, with all cameras, and action and state when it has them.

  Problems of the whole data set are listed in `skipped`, and problems of an episode in its notes.
  An episode that cannot be read correctly raises `video.UnreadableError`. `SourceOptions` can
  change how some of these cases are handled.
  """

  def __init__(self, path: str, options: SourceOptions | None = None):
    options = options or SourceOptions()
    paths.check_root(path)
    self._root, self._options = path, options
    self._info = layout.read_info(path)
    self._features, self._v3 = self._info["features"], self._info["major"] == 3
    self.skipped: list[dict[str, str]] = []
    self._tasks = meta.read_tasks(path, self._v3, self.skipped)
    self._episodes = meta.read_episodes(path, self._v3, self.skipped)
    self.skipped += meta.wrong_totals(self._info, self._episodes)
    self._paths = paths.Paths(path, self._info)
    where = os.path.join(path, layout.INFO)
    self._cameras = layout.cameras(self._features, options, where)
    sample = self._sample()
    self._cameras = self._without_depth(self._cameras, sample)
    self._damaged = self._paths.check(
      self._episodes, [camera.key for camera in self._cameras if camera.video]
    )
    keys = {"action": options.action_key, "state": options.state_key}
    vectors = {role: layout.vector(role, self._features, key, where) for role, key in keys.items()}
    self._vectors = {role: vector for role, vector in vectors.items() if vector is not None}
    self._sizes = {role: self._size(vector, sample) for role, vector in self._vectors.items()}
    self._list_unused(sample)
    self._files = paths.list_files(path, self._info)
    self.skipped += self._paths.unused(self._files, self._episodes, self._features)
    for name in layout.find_nested(path):
      self._skip(name, "a LeRobot data set of its own: give its folder")
    video_keys = [camera.key for camera in self._cameras if camera.video]
    self._shared = self._paths.stretches(self._episodes, video_keys, self._damaged)
    self._probed: dict[str, video.Info] = {}

    self.cameras = tuple(camera.name for camera in self._cameras)
    self.names = tuple(f"episode_{row['episode_index']:06d}" for row in self._episodes)
    vector_texts = [
      f"{role} from {vector.key!r}" if vector else f"no {role}" for role, vector in vectors.items()
    ]
    self.info = {
      "format": "lerobot",
      "robot_type": self._info.get("robot_type"),
      "action_names": self._names("action"),
      "state_names": self._names("state"),
      "description": f"LeRobot {self._info['codebase_version']} data set, "
      f"robot {self._info.get('robot_type') or 'unknown'}, {', '.join(vector_texts)}",
    }

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {"_files": [], "_probed": {}}  # workers do not need them

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> episode.RawEpisode:
    row = self._episodes[i]
    episode_index, notes = row["episode_index"], []
    try:
      if episode_index in self._damaged:
        raise video.UnreadableError(self._damaged[episode_index])
      return self._read(i, row, episode_index, notes)
    except video.UnreadableError as error:
      raise video.UnreadableError(f"episode {episode_index}: {error}") from error

  def _read(self, i: int, row: dict, episode_index: int, notes: list[str]) -> episode.RawEpisode:
    path = self._paths.data(row)
    existing = tables.column_types(path)
    names = [
      *(vector.key for vector in self._vectors.values()),
      "timestamp",
      "frame_index",
      "task_index",
    ]
    counted = self._options.timestamps == "frame_index" or "timestamp" not in existing
    columns = tables.read_episode(
      path,
      episode_index,
      names,
      single_episode=not self._v3,
      length=row.get("length"),
      optional={"timestamp" if counted else "frame_index": notes},
    )
    rows = len(columns["episode_index"])
    arrays, kept = self._arrays(columns, path, notes)
    columns = {name: values[:kept] for name, values in columns.items()}
    times = clock.row_times(columns, self._info["fps"], self._options, notes)
    video_cameras = [camera for camera in self._cameras if camera.video]
    stretches = [self._stretch(camera, row, rows) for camera in video_cameras]
    if not counted:
      clock.check_steps(columns, times, stretches, rows, notes)
    times, picture_seconds = clock.locate_pictures(
      times, stretches, rows=rows, fps=self._info["fps"], options=self._options, notes=notes
    )
    cameras: dict[str, episode.Camera] = {}
    videos = iter(zip(stretches, picture_seconds, strict=True))
    for camera in self._cameras:
      if camera.video:
        cameras[camera.name] = functools.partial(
          self._video, *next(videos), times, episode_index, notes
        )
      elif camera.key not in existing:
        raise video.UnreadableError(
          f"{tables.short(path)} has no column {camera.key!r} of camera {camera.name!r}"
        )
      else:
        cameras[camera.name] = functools.partial(self._images, path, episode_index, camera, times)
    task = meta.episode_task(row, columns, self._tasks, notes)
    first_task = task if isinstance(task, str) else task[0]
    return episode.RawEpisode(
      episode=self.names[i],
      task=task,
      cameras=cameras,
      arrays=arrays,
      notes=notes,
      group=meta.group(row, first_task),
    )

  def fingerprint(self) -> str:
    """Hash that changes when a file of the data set changes."""
    return episode.fingerprint(self._root, self._files or paths.list_files(self._root, self._info))

  def _names(self, role: str) -> list[str] | None:
    vector = self._vectors.get(role)
    if vector is None or not vector.names or len(vector.names) != self._sizes[role]:
      return None
    return vector.names

  def _sample(self) -> str:
    """Path of the first data file that can be read, "" where there is none.

    All data files are assumed to have the same columns as this file.
    """
    for row in self._episodes[:100]:
      with contextlib.suppress(video.UnreadableError):
        path = self._paths.data(row)
        tables.column_types(path)
        return path
    return ""

  def _size(self, vector: layout.Vector, sample: str) -> int | None:
    """Number of values in a row of a vector: from meta/info.json, else from the first data file."""
    if vector.size is not None or not sample:
      return vector.size
    with contextlib.suppress(video.UnreadableError, ValueError):
      cells = tables.first_cell(sample, vector.key)
      return None if cells is None else tables.to_matrix(cells).shape[1]
    return None

  def _list_unused(self, sample: str) -> None:
    """Adds to `skipped` the features and columns that are not read, and names that do not fit."""
    for role, vector in self._vectors.items():
      if vector.names and self._names(role) is None:
        self._skip(
          layout.INFO,
          f"feature {vector.key!r} has {len(vector.names)} names for {self._sizes[role]} numbers: "
          "the names are not used",
        )
    used = [vector.key for vector in self._vectors.values()]
    if left := layout.unused(self._features, used):
      self._skip(
        layout.INFO,
        f"features not used: {', '.join(left)} (source options action_key and state_key choose)",
      )
    if sample:
      known = {*self._features, *tables.INDICES, "timestamp"}
      if left := [name for name in tables.column_types(sample) if name not in known]:
        self._skip(
          tables.short(sample),
          f"columns not used, {layout.INFO} does not describe them: {', '.join(left)}",
        )

  def _skip(self, name: str, reason: str) -> None:
    self.skipped.append({"name": name, "reason": reason})

  def _without_depth(self, cameras: list[layout.Camera], sample: str) -> list[layout.Camera]:
    """The cameras that can be read: color cameras and, with a depth_range, depth images."""
    kept, has_range = [], bool(self._options.depth_range)
    for camera in cameras:
      deep = camera.depth or self._looks_deep(camera, sample)
      if not deep or (has_range and not camera.video):
        kept.append(camera)
        continue
      reason = (
        "depth video is not read"
        if camera.video
        else ("its images are depth, source option depth_range = (nearest, farthest) scales them")
      )
      if self._options.camera_keys:
        raise errors.UserError(
          f"{self._root}: source option camera_keys: {camera.name!r} ({camera.key}): {reason}"
        )
      self._skip(f"camera {camera.name}", f"left out: {reason}")
    for key, feature in self._features.items():
      if feature.get("dtype") in ("video", "image") and key not in [
        camera.key for camera in cameras
      ]:
        self._skip(f"camera {layout.camera_name(key)}", "not among the source option camera_keys")
    if not kept:
      raise errors.UserError(
        f"{self._root}: the LeRobot data set has only depth cameras; source option depth_range = "
        "(nearest, farthest) scales those that are images"
      )
    return kept

  def _looks_deep(self, camera: layout.Camera, sample: str) -> bool:
    """Whether the first picture of a camera is gray with more than 8 bits.

    False when the picture cannot be read; the error is reported when its episode is read.
    """
    with contextlib.suppress(video.UnreadableError, *pyav.errors(), *images.ERRORS):
      if camera.video:
        return video.probe(self._first_video(camera.key)).deep_gray
      cells = tables.first_cell(sample, camera.key) if sample else None
      return cells is not None and images.is_deep(images.read(self._root, cells[0].as_py()))
    return False

  def _first_video(self, key: str) -> str:
    """The first existing video file of a camera, among the first 100 episodes.

    Raises `video.UnreadableError` when there is none.
    """
    for row in self._episodes[:100]:
      with contextlib.suppress(video.UnreadableError):
        path = self._paths.video(row, key)
        if os.path.isfile(path):
          return path
    raise video.UnreadableError("no file")

  def _arrays(
    self, columns: dict[str, np.ndarray], path: str, notes: list[str]
  ) -> tuple[dict[str, np.ndarray], int]:
    """(action and state, float32 [T, D]; T), checked. Raises `video.UnreadableError`.

    T is smaller than the number of rows when the episode is cut before a row that is not finite.
    """
    kept, arrays = len(columns["episode_index"]), {}
    for role, vector in self._vectors.items():
      if vector.key not in columns:
        raise video.UnreadableError(
          f"{tables.short(path)} has no column {vector.key!r}, which {layout.INFO} describes"
        )
      with np.errstate(over="ignore"):
        values = columns[vector.key].astype(np.float32)
      if self._sizes[role] not in (None, values.shape[1]):
        raise video.UnreadableError(
          f"column {vector.key!r} of {tables.short(path)} has {values.shape[1]} numbers a row, "
          f"those of the data set have {self._sizes[role]}"
        )
      bad = np.flatnonzero(~np.isfinite(values).all(1))
      if len(bad):
        text = (
          f"column {vector.key!r} of {tables.short(path)} is null or not finite at frame {bad[0]}, "
          f"{len(bad)} of {len(values)} rows"
        )
        if self._options.invalid_rows != "cut_episode":
          raise video.UnreadableError(
            f"{text}; source option invalid_rows = 'cut_episode' keeps the frames before"
          )
        if bad[0] < 2:
          raise video.UnreadableError(f"{text}: nothing is left before it")
        notes.append(f"{text}: cut before it")
        kept = min(kept, int(bad[0]))
      arrays[role] = values
    return {role: values[:kept] for role, values in arrays.items()}, kept

  def _stretch(self, camera: layout.Camera, row: dict, rows: int) -> Stretch:
    """The part of a video file with the pictures of one camera for one episode.

    Raises `video.UnreadableError` naming the camera and the file.
    """
    path = self._paths.video(row, camera.key)
    where = f"camera {camera.name!r}, {os.path.relpath(path, self._root)}"
    try:
      info = self._probed.get(path) or video.probe(path)
    except video.UnreadableError as error:
      reason = f"the file is {lerobot_json.POINTER}" if lerobot_json.is_pointer(path) else error
      raise video.UnreadableError(f"{where}: {reason}") from error
    if info.deep_gray:
      raise video.UnreadableError(
        f"{where}: its pictures are {info.pixel_format}, depth video is not read; source option "
        "camera_keys leaves a camera out"
      )
    if not self._v3:
      return Stretch(where, path, 0.0, None, False, rows, 0.0, 0, info)
    self._probed[path] = info
    return Stretch(where, path, *self._shared[camera.key, row["episode_index"]], info)

  def _video(
    self,
    stretch: Stretch,
    picture_seconds: np.ndarray,
    times: np.ndarray,
    episode_index: int,
    notes: list[str],
    geometry: video.Geometry,
  ) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (seconds, frame) of a video feature.

    Args:
      stretch: the part of the file.
      picture_seconds: seconds in the file of the picture of each row, [T].
      times: of the rows, [T]; the yielded seconds.
      episode_index: of the episode, for messages.
      notes: receives remarks.
      geometry: size of the frames.
    """
    video_notes: list[str] = []
    try:
      pictures = video.read_at(
        stretch.path, picture_seconds, geometry, notes=video_notes, options=self._options
      )
      for seconds, image in zip(times, pictures, strict=True):
        yield float(seconds), image
    except video.UnreadableError as error:
      raise video.UnreadableError(f"episode {episode_index}: {stretch.where}: {error}") from error
    finally:
      notes += [f"{stretch.where}: {note}" for note in video_notes]

  def _images(
    self,
    path: str,
    episode_index: int,
    camera: layout.Camera,
    times: np.ndarray,
    geometry: video.Geometry,
  ) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (seconds, frame) of an image feature, streamed from the parquet file."""
    cells = (
      cell
      for batch in tables.batches(
        path, episode_index, [camera.key], batch_size=32, single_episode=not self._v3
      )
      for cell in batch.column(camera.key).to_pylist()
    )
    where = f"camera {camera.name!r} in {tables.short(path)}"
    for t, seconds in enumerate(times):
      try:
        image = video.decode_image(images.read(self._root, next(cells)), geometry, self._options)
      except StopIteration as error:
        raise video.UnreadableError(
          f"episode {episode_index}: {where} has no frame {t} of {len(times)}"
        ) from error
      except (video.UnreadableError, *images.ERRORS) as error:
        text = f"{where}: the image at frame {t} cannot be used ({images.reason(error)})"
        raise video.UnreadableError(f"episode {episode_index}: {text}") from error
      yield float(seconds), image
