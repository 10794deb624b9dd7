"""Reads the frames and arrays of an episode, measures them and encodes them clip by clip.

Legend: T frames of the episode.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from como_jax.data import (
  clip_coder,
  clip_plan,
  frame_filters,
  frame_measures,
  shard_file,
  shards,
  summaries,
  video,
)
from como_jax.data import episode as episodes
from como_jax.data.ingest_settings import Settings
from como_jax.data.times import FrameTimes

_LOOK = 224  # pixels; smallest side of the pictures in which bars are detected
_SAME_TIME = 1e-3  # seconds; largest difference between the times of two cameras


class Encoded:
  """An episode that was fully read and encoded; `clips` yields its clips.

  It is a context manager, which removes its temporary file.

  Attributes:
    counts: number of frames by "kept" and the reasons for leaving them out.
    notes: remarks.
  """

  def __init__(
    self,
    raw: episodes.RawEpisode,
    settings: Settings,
    plan: clip_plan.Plan,
    blobs: clip_coder.Blobs,
  ):
    self._raw, self._settings, self._plan, self._blobs = raw, settings, plan, blobs
    self.counts, self.notes = dict(plan.counts), list(plan.notes)

  def __enter__(self) -> "Encoded":
    return self

  def __exit__(self, *unused) -> None:
    self._blobs.close()

  def clips(self) -> Iterator[tuple[shard_file.Clip, dict]]:
    """Yields (clip, its row of the table without the columns that depend only on the episode)."""
    raw, plan, codec = self._raw, self._plan, self._settings.codec
    per, blob = shard_file.CODECS[codec], 0
    for segment in plan.segments:
      whole = FrameTimes.from_seconds(plan.seconds[segment[0].first : segment[-1].last])
      for span in segment:
        length, source = span.last - span.first, plan.source[span.first : span.last]
        frames = {}
        numbers = source if codec == "jpeg" else range(blob, blob - (-length // per))
        blob += len(numbers)
        for name in self._settings.cameras:
          height, width = self._blobs.sizes[name][source[0]]
          frames[name] = shard_file.Frames(
            codec, length, height, width, [self._blobs.read(name, int(i)) for i in numbers]
          )
        arrays = {name: np.ascontiguousarray(array[source]) for name, array in raw.arrays.items()}
        times = whole.slice(span.first - segment[0].first, span.last - segment[0].first)
        row = {
          "start": span.first,
          "length": length,
          "first": times.first,
          "interval": times.interval,
          "seconds": None,
          "shot": span.shot,
          "task": span.task,
          "has_action": "action" in arrays,
          "has_state": "state" in arrays,
          "dims": {name: int(array.shape[1]) for name, array in arrays.items()},
          **plan.facts(span),
        }
        statistics = {name: summaries.summarize(array) for name, array in arrays.items()}
        if times.explicit is not None:
          arrays[shards.SECONDS] = times.explicit
          row["seconds"] = times.explicit.tolist()
        yield (
          shard_file.Clip(span.first, length, frames, arrays, plan.frame_facts(span), statistics),
          row,
        )


def encode(raw: episodes.RawEpisode, settings: Settings, report: Callable[[int], None]) -> Encoded:
  """Reads, measures and encodes a whole episode.

  `report` is called from time to time with the number of frames since the last call.

  Raises:
    video.UnreadableError: the episode cannot be used. The message says why.
  """
  missing = [name for name in settings.cameras if name not in raw.cameras]
  if missing:
    raise video.UnreadableError(f"camera {missing[0]!r} is missing")
  filters = frame_filters.FilterOptions(**settings.filters)
  geometry = dict.fromkeys(settings.cameras, video.Geometry(settings.image_size, settings.resize))
  plan, measurers = None, _measurers(raw, settings, filters)
  # Frames that are coded together must be in one clip, and bars must be known before pictures are
  # resized. In these two cases everything is read twice.
  if settings.codec != "jpeg" or filters.crop_bars:
    plan, geometry = _read_first(raw, settings, filters, geometry, measurers)
  blobs = clip_coder.Blobs(settings.cameras)
  try:
    coder = (
      clip_coder.FrameCoder(settings, blobs)
      if plan is None or settings.codec == "jpeg"
      else clip_coder.ClipCoder(settings, blobs, plan)
    )
    seconds, reported = [], 0
    for t, (second, images) in enumerate(_frames(raw, settings, geometry)):
      seconds.append(second)
      coder.add(t, images)
      if plan is None:
        _measure(measurers, second, images)
      if t - reported >= 128:
        report(t - reported)
        reported = t
    if plan is None:
      plan = _plan(raw, settings, filters, seconds, measurers)
    _check_sizes(raw, settings, plan, blobs, len(seconds))
    report(len(seconds) - reported)
  except BaseException:
    blobs.close()
    raise
  return Encoded(raw, settings, plan, blobs)


def _read_first(
  raw: episodes.RawEpisode,
  settings: Settings,
  filters: frame_filters.FilterOptions,
  geometry: dict[str, video.Geometry],
  measurers: dict[str, frame_measures.FrameMeasurer],
) -> tuple[clip_plan.Plan, dict[str, video.Geometry]]:
  """Reads an episode once to divide it and to find the bars around its pictures.

  Args:
    raw: the episode.
    settings: of the ingest.
    filters: with `crop_bars`, the bars are found.
    geometry: of the stored frames by camera, with bars.
    measurers: by camera; they measure all frames.

  Returns:
    (the plan, the geometry without the bars).
  """
  measured_geometry = (
    geometry
    if not filters.crop_bars
    else dict.fromkeys(settings.cameras, video.Geometry(max(_LOOK, settings.image_size)))
  )
  seconds = []
  for second, images in _frames(raw, settings, measured_geometry):
    seconds.append(second)
    _measure(measurers, second, images)
  plan = _plan(raw, settings, filters, seconds, measurers)
  if filters.crop_bars:
    geometry = {
      name: dataclasses.replace(
        geometry[name], bars=_shares(plan.measures[name].bars, measured_geometry[name].size)
      )
      for name in settings.cameras
    }
  return plan, geometry


def _plan(
  raw: episodes.RawEpisode,
  settings: Settings,
  filters: frame_filters.FilterOptions,
  seconds: Sequence[float],
  measurers: dict[str, frame_measures.FrameMeasurer],
) -> clip_plan.Plan:
  """The plan of an episode whose frames were all read."""
  return clip_plan.make(
    raw, np.array(seconds), measurers, filters=filters, clip_frames=settings.clip_frames
  )


def _check_sizes(
  raw: episodes.RawEpisode,
  settings: Settings,
  plan: clip_plan.Plan,
  blobs: clip_coder.Blobs,
  count: int,
) -> None:
  """Raises `video.UnreadableError` when an array is too short or frames of a clip differ in size.

  Args:
    raw: the episode.
    settings: of the ingest.
    plan: of the episode.
    blobs: its frames.
    count: number of its frames.
  """
  for name, array in raw.arrays.items():
    if len(array) < count:
      raise video.UnreadableError(f"{count} frames but {len(array)} values of {name!r}")
  for name in settings.cameras:
    for segment in plan.segments:
      for span in segment:
        if len({blobs.sizes[name][i] for i in plan.source[span.first : span.last]}) > 1:
          raise video.UnreadableError(
            f"camera {name!r}: the frame size changes between frames {span.first} and {span.last}"
          )


def _measurers(
  raw: episodes.RawEpisode, settings: Settings, filters: frame_filters.FilterOptions
) -> dict[str, frame_measures.FrameMeasurer]:
  """One measurer per camera, {} when nothing is to be measured."""
  needed = (
    settings.measure == "on"
    or filters != frame_filters.FilterOptions()
    or (settings.measure == "auto" and not raw.continuous)
  )
  return (
    {name: frame_measures.FrameMeasurer(filters.still_seconds) for name in settings.cameras}
    if needed
    else {}
  )


def _measure(
  measurers: dict[str, frame_measures.FrameMeasurer], second: float, images: Sequence[np.ndarray]
) -> None:
  for measurer, image in zip(measurers.values(), images, strict=False):
    measurer.add(second, image)


def _shares(bars: tuple[int, int, int, int], size: int) -> tuple[float, float, float, float]:
  """Converts bars (top, bottom, left, right) from pixels of a square to shares of its sides."""
  top, bottom, left, right = bars
  return top / size, bottom / size, left / size, right / size


def _frames(
  raw: episodes.RawEpisode, settings: Settings, geometry: Mapping[str, video.Geometry]
) -> Iterator[tuple[float, tuple[np.ndarray, ...]]]:
  """Yields (seconds, image of each camera) for all frames.

  Raises `video.UnreadableError` when the cameras disagree or the times do not increase.
  """
  total, before = 0, -np.inf
  for frames in itertools.zip_longest(
    *(raw.cameras[name](geometry[name]) for name in settings.cameras)
  ):
    if any(frame is None for frame in frames):
      ended = [name for name, frame in zip(settings.cameras, frames, strict=True) if frame is None]
      raise video.UnreadableError(
        f"the cameras have different numbers of frames ({ended[0]!r} ends at {total})"
      )
    second = frames[0][0]
    for name, (other, _) in zip(settings.cameras, frames, strict=True):
      if abs(other - second) > _SAME_TIME:
        raise video.UnreadableError(
          f"frame {total}: camera {settings.cameras[0]!r} is at {second:.4f} s, {name!r} at "
          f"{other:.4f} s"
        )
    if not second > before:
      raise video.UnreadableError(
        f"time does not go on: frame {total - 1} at {before:.6f} s, frame {total} at {second:.6f} s"
      )
    yield second, tuple(image for _, image in frames)
    total, before = total + 1, second
  if not total:
    raise video.UnreadableError("the episode has no frame")
