"""Data sets of tensorflow-datasets in the file format ArrayRecord, read without TensorFlow.

In an RLDS data set, an example is an episode whose feature `steps` holds images, actions, states
and instructions of each step. In any other data set, an example is an episode when it has a
sequence of images. The files hold no times, so `SourceOptions.frame_rate` is needed.

Legend: T steps of an episode, D numbers of an array.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from como_jax import errors
from como_jax.data import episode, video
from como_jax.data.sources import lerobot_images as images
from como_jax.data.sources import tfds_features as layout
from como_jax.data.sources.options import SourceOptions
from como_jax.data.sources.protocol import Source

if TYPE_CHECKING:  # it takes seconds, so it is imported when such a data set is opened
  from tensorflow_datasets.core import dataset_builder

FORMAT = "array_record"
_VIDEO = "tensorflow_datasets.core.features.video_feature.Video"


@dataclasses.dataclass(frozen=True)
class _Location:
  """An example: the name of its split, and its index there."""

  split: str
  index: int


class Tfds(Source):
  """A data set of tensorflow-datasets as a source, with all its splits.

  Cameras with depth are read when `SourceOptions.depth_range` is given. Features that are not read
  are listed in `skipped`.
  """

  def __init__(self, path: str, options: SourceOptions | None = None):
    self._root, self._options = path, options or SourceOptions()
    if not self._options.frame_rate:
      raise errors.UserError(
        f"{path}: data sets of tensorflow-datasets hold no times: set source option frame_rate to "
        "the frames per second of the recordings"
      )
    builder = _open(path)
    self._layout = layout.read(builder.info.features, self._options, path)
    self.cameras = tuple(camera.name for camera in self._layout.cameras)
    self.skipped = [
      {"name": name, "reason": reason} for name, reason in self._layout.not_read.items()
    ]
    self._locations = [
      _Location(split, i)
      for split, facts in sorted(builder.info.splits.items())
      for i in range(facts.num_examples)
    ]
    if not self._locations:
      raise errors.UserError(f"{path}: the data set of tensorflow-datasets holds no example")
    self.names = tuple(f"{location.split}_{location.index:06d}" for location in self._locations)
    kind = "RLDS" if self._layout.steps else "plain"
    self.info: dict[str, Any] = {
      "format": "tfds",
      "description": f"tensorflow-datasets {builder.info.full_name}, {kind}, "
      f"{len(self.names)} episodes at {self._options.frame_rate:g} frames a second",
      "action_names": None,
      "state_names": None,
    }

  def __getstate__(self) -> dict[str, Any]:
    return {key: value for key, value in self.__dict__.items() if key != "_splits"}

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> episode.RawEpisode:
    steps = self._steps(i)
    notes: list[str] = []
    arrays, count = self._arrays(i, steps, notes)
    cameras: dict[str, episode.Camera] = {
      camera.name: functools.partial(self._frames, i, camera, count)
      for camera in self._layout.cameras
    }
    return episode.RawEpisode(
      self.names[i],
      self._task(steps, count),
      cameras,
      arrays,
      notes,
      continuous=bool(self._layout.steps),
    )

  def fingerprint(self) -> str:
    """Hash that changes when a file of the data set changes."""
    files = sorted(
      name
      for name in os.listdir(self._root)
      if os.path.isfile(os.path.join(self._root, name)) and not name.startswith(".")
    )
    return episode.fingerprint(self._root, files)

  @functools.cached_property
  def _splits(self) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The examples by split; images are not decoded."""
    builder: Any = _open(self._root)  # a decorator of the library hides the signature
    decoders = self._layout.decoders()
    return {
      split: builder.as_data_source(split, decoders=decoders)
      for split in {location.split for location in self._locations}
    }

  def _steps(self, i: int) -> layout.Steps:
    """The values of episode i. Raises `video.UnreadableError`."""
    location = self._locations[i]
    try:
      return self._layout.steps_of(self._splits[location.split][location.index])
    except Exception as error:  # of array_record, protobuf and tensorflow-datasets
      raise video.UnreadableError(
        f"{self.names[i]}: the record cannot be read ({error})"
      ) from error

  def _arrays(
    self, i: int, steps: layout.Steps, notes: list[str]
  ) -> tuple[dict[str, np.ndarray], int]:
    """(action and state, float32 [T, D]; T).

    T is smaller than the number of steps when the episode is cut before a step that is not finite.

    Raises:
      video.UnreadableError: there is no step, an array has another length, or is not finite.
    """
    count, arrays = len(steps), {}
    if not count:
      raise video.UnreadableError(f"{self.names[i]}: the episode has no step")
    for role, vector in self._layout.vectors.items():
      values = np.asarray(steps.column(vector), np.float32)
      values = values.reshape(len(values), -1)
      if len(values) != len(steps):
        raise video.UnreadableError(
          f"{self.names[i]}: {len(steps)} frames but {len(values)} values of {vector.name!r}"
        )
      arrays[role] = values
      bad = np.flatnonzero(~np.isfinite(values).all(1))
      if not len(bad):
        continue
      text = f"feature {vector.name!r} is not finite at step {bad[0]}, {len(bad)} of {len(values)}"
      if self._options.invalid_rows != "cut_episode" or bad[0] < 2:
        raise video.UnreadableError(
          f"{self.names[i]}: {text}; source option invalid_rows = 'cut_episode' keeps two and more "
          "steps before"
        )
      notes.append(f"{text}: cut before it")
      count = min(count, int(bad[0]))
    return {role: values[:count] for role, values in arrays.items()}, count

  def _task(self, steps: layout.Steps, count: int) -> str | list[str]:
    """The instruction of an episode, or a list with one per frame when it changes."""
    texts = steps.texts(count)
    return texts[0] if len(set(texts)) == 1 else texts

  def _frames(
    self, i: int, camera: layout.Feature, count: int, geometry: video.Geometry
  ) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (seconds, frame) of a camera; images of steps are decoded one by one."""
    for t, data in enumerate(self._steps(i).column(camera)[:count]):
      try:
        image = (
          video.decode_image(data, geometry, self._options)
          if isinstance(data, bytes)
          else geometry.apply(_rgb(data))
        )
      except (video.UnreadableError, *images.ERRORS) as error:
        raise video.UnreadableError(
          f"{self.names[i]}: camera {camera.name!r}: the image at step {t} cannot be used "
          f"({images.reason(error)})"
        ) from error
      yield t / self._options.frame_rate, image


def _rgb(image: np.ndarray) -> np.ndarray:
  """Converts [H, W, 1], [H, W, 3] or [H, W, 4] to RGB; transparent pixels become black."""
  if image.shape[-1] == 4:
    opacity = image[..., 3:].astype(np.uint16)
    return ((image[..., :3] * opacity + 127) // 255).astype(np.uint8)
  return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def _open(path: str) -> "dataset_builder.DatasetBuilder":
  """Opens a data set. Raises `errors.UserError` when it cannot be read without TensorFlow."""
  import tensorflow_datasets

  try:
    with open(os.path.join(path, "features.json"), encoding="utf-8") as file:
      if _VIDEO in file.read():
        raise errors.UserError(
          f"{path}: a feature of this data set is of the class Video, which tensorflow-datasets "
          "reads with TensorFlow only: store it as a Sequence of Image"
        )
    builder = tensorflow_datasets.builder_from_directory(path)
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
  except errors.UserError:
    raise
  except Exception as error:  # whatever the files lead to
    raise errors.UserError(
      f"{path} is not a readable data set of tensorflow-datasets ({str(error).splitlines()[0]})"
    ) from error
  if FORMAT not in formats:
    raise errors.UserError(
      f"{path}: the data set of tensorflow-datasets is in the file format "
      f"{', '.join(sorted(formats)) or 'unknown'}, expected {FORMAT}: convert it with "
      "python -m tensorflow_datasets.scripts.convert_format"
    )
  return builder
