"""Reads the frames and arrays of an episode, measures them, divides them into clips, encodes them.

Legend: T frames of the episode.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import episode as episodes
from como_jax.data import (
  frame_codec,
  frame_filters,
  frame_measures,
  shard_file,
  shards,
  summaries,
  video,
)
from como_jax.data.times import FrameTimes

# Bytes. If the encoded frames of an episode are larger, they go to a temporary file.
_SPOOL = 1 << 28
_LOOK = 224  # pixels; smallest side of the pictures in which bars are detected
_SAME_TIME = 1e-3  # seconds; largest difference between the times of two cameras


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings that the bytes of a shard depend on, see `ingest.run`."""

  image_size: int
  resize: str
  codec: str
  quality: int
  clip_frames: int
  cameras: tuple[str, ...]
  episodes_per_shard: int
  options: dict[str, Any]  # of the source
  measure: str = "auto"
  filters: dict[str, Any] = dataclasses.field(default_factory=dict)

  def check(self) -> "Settings":
    """Returns the settings; raises `errors.UserError` for a value that is not valid."""
    for name, valid in (
      ("resize", ("squash", "crop", "pad")),
      ("codec", shard_file.CODECS),
      ("measure", ("auto", "on", "off")),
    ):
      if getattr(self, name) not in valid:
        raise errors.UserError(
          f"ingest {name} {getattr(self, name)!r}: {errors.nearest(getattr(self, name), valid)}"
        )
    limits = {
      "image_size": (0, 8192),
      "clip_frames": (1, 100_000),
      "episodes_per_shard": (1, 1_000_000),
      "quality": (1, 100) if self.codec == "jpeg" else (0, 51),
    }
    for name, (low, high) in limits.items():
      if not low <= getattr(self, name) <= high:
        raise errors.UserError(f"ingest {name} is {getattr(self, name)}, expected {low} to {high}")
    frame_filters.check(self.filters)
    return self


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
    plan: "_Plan",
    spool,
    locations: dict[str, list[tuple[int, int]]],
    sizes: dict[str, list[tuple[int, int]]],
  ):
    self._raw, self._settings, self._plan, self._spool, self._locations, self._sizes = (
      raw,
      settings,
      plan,
      spool,
      locations,
      sizes,
    )
    self.counts, self.notes = dict(plan.counts), list(plan.notes)

  def __enter__(self) -> "Encoded":
    return self

  def __exit__(self, *unused) -> None:
    self._spool.close()

  def clips(self) -> Iterator[tuple[shard_file.Clip, dict]]:
    """Yields (clip, its row of the table without the columns that depend only on the episode)."""
    raw, plan, codec = self._raw, self._plan, self._settings.codec
    per, blob = shard_file.CODECS[codec], 0
    for segment in plan.segments:
      whole = FrameTimes.of(plan.seconds[segment[0].first : segment[-1].last])
      for span in segment:
        length, source = span.last - span.first, plan.source[span.first : span.last]
        frames = {}
        numbers = source if codec == "jpeg" else range(blob, blob - (-length // per))
        blob += len(numbers)
        for name in self._settings.cameras:
          height, width = self._sizes[name][source[0]]
          frames[name] = shard_file.Frames(
            codec, length, height, width, [self._blob(name, int(i)) for i in numbers]
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

  def _blob(self, camera: str, i: int) -> bytes:
    offset, size = self._locations[camera][i]
    self._spool.seek(offset)
    return self._spool.read(size)


@dataclasses.dataclass(frozen=True)
class Span:
  """Frames first to last (exclusive) of an episode that become one clip."""

  first: int
  last: int
  shot: int
  task: str


@dataclasses.dataclass
class _Plan:
  """How an episode is divided.

  Attributes:
    source: numbers of the source's frames that are counted, in order: all T frames, or those that
      do not repeat the frame before. The numbers in spans are indices into this array.
    seconds: times of the counted frames.
    segments: clips of each run without a cut or a gap, in order.
    measures: by camera; {} when nothing was measured.
    counts, notes: as in `Encoded`.
  """

  source: np.ndarray
  seconds: np.ndarray
  segments: list[list[Span]]
  measures: dict[str, frame_measures.FrameMeasures]
  counts: dict[str, int]
  notes: list[str]

  def facts(self, span: Span) -> dict:
    """Measured columns of a clip's row; NaN when nothing was measured.

    Motion: mean over the frames, the largest of all cameras. Global motion: mean speed of the whole
    picture, the smallest of all cameras. Shares of frames that are still, repeated in all cameras.
    """
    part, views = self.source[span.first : span.last], list(self.measures.values())
    if not views:
      return {
        "motion": np.nan,
        "global_motion": np.nan,
        "still": np.nan,
        "repeated": np.nan,
        "duplicate": False,
      }
    return {
      "motion": float(max(view.motion[part].mean() for view in views)),
      "global_motion": float(min(frame_filters.camera_speed(view)[part].mean() for view in views)),
      "still": float(np.all([view.still[part] for view in views], 0).mean()),
      "repeated": float(np.all([view.repeated[part] for view in views], 0).mean()),
      "duplicate": False,
    }

  def frame_facts(self, span: Span) -> dict[str, np.ndarray]:
    """Values measured for each frame of a clip: name -> [T of the clip, ...]."""
    frames = self.source[span.first : span.last]
    return {
      f"{name}/{camera}": getattr(measures, name)[frames]
      for camera, measures in self.measures.items()
      for name in ("motion", "global_motion", "picture_hash", "still", "repeated")
    }


def encode(raw: episodes.RawEpisode, settings: Settings, report: Callable[[int], None]) -> Encoded:
  """Reads, measures and encodes a whole episode.

  `report` is called from time to time with the number of frames since the last call.

  Raises:
    video.Unreadable: the episode cannot be used. The message says why.
  """
  missing = [name for name in settings.cameras if name not in raw.cameras]
  if missing:
    raise video.Unreadable(f"camera {missing[0]!r} is missing")
  filters = frame_filters.FilterOptions(**settings.filters)
  geometry = dict.fromkeys(settings.cameras, video.Geometry(settings.image_size, settings.resize))
  plan, measurers = None, _measurers(raw, settings, filters)
  # Frames that are coded together must be in one clip, and bars must be known before pictures are
  # resized. In these two cases everything is read twice.
  if settings.codec != "jpeg" or filters.crop_bars:
    measured_geometry = (
      geometry
      if not filters.crop_bars
      else dict.fromkeys(settings.cameras, video.Geometry(max(_LOOK, settings.image_size)))
    )
    seconds = []
    for second, images in _frames(raw, settings, measured_geometry):
      seconds.append(second)
      _measure(measurers, second, images)
    plan = _plan(raw, settings, filters, np.array(seconds), measurers)
    if filters.crop_bars:
      geometry = {
        name: dataclasses.replace(
          geometry[name], bars=_shares(plan.measures[name].bars, measured_geometry[name].size)
        )
        for name in settings.cameras
      }
  spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115  its caller closes it
  locations: dict[str, list[tuple[int, int]]] = {name: [] for name in settings.cameras}
  sizes: dict[str, list[tuple[int, int]]] = {name: [] for name in settings.cameras}

  def keep(name: str, data: bytes) -> None:
    locations[name].append((spool.tell(), len(data)))
    spool.write(data)

  try:
    seconds, written = [], 0
    spans = (
      []
      if plan is None or settings.codec == "jpeg"
      else [span for segment in plan.segments for span in segment]
    )
    starts, stops = (
      {int(plan.source[getattr(span, edge) - last]) for span in spans}
      for edge, last in (("first", 0), ("last", 1))
    )
    stored = {int(i) for span in spans for i in plan.source[span.first : span.last]}
    encoders = None
    for t, (second, images) in enumerate(_frames(raw, settings, geometry)):
      seconds.append(second)
      if t in starts:
        encoders = {
          name: frame_codec.FrameEncoder(settings.codec, settings.quality)
          for name in settings.cameras
        }
      for name, image in zip(settings.cameras, images, strict=True):
        sizes[name].append(image.shape[:2])
        if settings.codec == "jpeg":
          keep(name, video.encode_jpeg(image, settings.quality))
        elif t in stored:
          encoders[name].add(image)
      if t in stops:
        for name in settings.cameras:
          for data in encoders[name].finish().blobs:
            keep(name, data)
      if plan is None:
        _measure(measurers, second, images)
      if t - written >= 128:
        report(t - written)
        written = t
    if plan is None:
      plan = _plan(raw, settings, filters, np.array(seconds), measurers)
    for name, array in raw.arrays.items():
      if len(array) < len(seconds):
        raise video.Unreadable(f"{len(seconds)} frames but {len(array)} values of {name!r}")
    for name in settings.cameras:
      for segment in plan.segments:
        for span in segment:
          if len({sizes[name][i] for i in plan.source[span.first : span.last]}) > 1:
            raise video.Unreadable(
              f"camera {name!r}: the frame size changes between frames {span.first} and {span.last}"
            )
    report(len(seconds) - written)
  except BaseException:
    spool.close()
    raise
  return Encoded(raw, settings, plan, spool, locations, sizes)


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
  return tuple(pixels / size for pixels in bars)


def _frames(
  raw: episodes.RawEpisode, settings: Settings, geometry: Mapping[str, video.Geometry]
) -> Iterator[tuple[float, tuple[np.ndarray, ...]]]:
  """Yields (seconds, image of each camera) for all frames.

  Raises `video.Unreadable` when the cameras disagree or the times do not increase.
  """
  total, before = 0, -np.inf
  for frames in itertools.zip_longest(
    *(raw.cameras[name](geometry[name]) for name in settings.cameras)
  ):
    if any(frame is None for frame in frames):
      ended = [name for name, frame in zip(settings.cameras, frames, strict=True) if frame is None]
      raise video.Unreadable(
        f"the cameras have different numbers of frames ({ended[0]!r} ends at {total})"
      )
    second = frames[0][0]
    for name, (other, _) in zip(settings.cameras, frames, strict=True):
      if abs(other - second) > _SAME_TIME:
        raise video.Unreadable(
          f"frame {total}: camera {settings.cameras[0]!r} is at {second:.4f} s, {name!r} at "
          f"{other:.4f} s"
        )
    if not second > before:
      raise video.Unreadable(
        f"time does not go on: frame {total - 1} at {before:.6f} s, frame {total} at {second:.6f} s"
      )
    yield second, tuple(image for _, image in frames)
    total, before = total + 1, second
  if not total:
    raise video.Unreadable("the episode has no frame")


def _plan(
  raw: episodes.RawEpisode,
  settings: Settings,
  filters: frame_filters.FilterOptions,
  seconds: np.ndarray,
  measurers: dict[str, frame_measures.FrameMeasurer],
) -> _Plan:
  """Divides an episode into segments and clips."""
  count = len(seconds)
  tasks = [raw.task] * count if isinstance(raw.task, str) else list(raw.task)
  if len(tasks) < count:
    raise video.Unreadable(f"{count} frames but {len(tasks)} instructions")
  known = np.zeros(count, bool)
  known[[t for t in raw.cuts if 0 < t < count]] = True
  measures = {name: measurer.finish() for name, measurer in measurers.items()}
  measures = {
    name: dataclasses.replace(camera, cut=known | (camera.cut & (not raw.continuous)))
    for name, camera in measures.items()
  }
  keep, repeated, counts, notes, cut = (
    np.ones(count, bool),
    np.zeros(count, bool),
    {"kept": count},
    [],
    known,
  )
  if measures:
    result = frame_filters.filter_frames(list(measures.values()), filters)
    keep, counts, cut = (
      result.keep,
      result.counts,
      np.any([camera.cut for camera in measures.values()], axis=0),
    )
    repeated = result.reason == frame_filters.Reason.REPEATED
    new_cuts = int(cut.sum() - known.sum())
    if new_cuts:
      notes.append(f"{new_cuts} cuts between shots: no pair of frames crosses one")
    if not keep.any():
      reasons = ", ".join(
        f"{number} {reason}" for reason, number in counts.items() if reason != "kept"
      )
      raise video.Unreadable(f"the filters leave no frame ({reasons})")
  # A repeated frame is not counted, so that the frames around it are consecutive.
  source = np.flatnonzero(~repeated)
  segments = cut_clips(
    keep[source], np.cumsum(cut)[source], [tasks[t] for t in source], settings.clip_frames
  )
  return _Plan(source, seconds[source], segments, measures, counts, notes)


def cut_clips(
  keep: np.ndarray, shot: np.ndarray, tasks: Sequence[str], max_frames: int
) -> list[list[Span]]:
  """Divides the frames of an episode into clips, by segment.

  Args:
    keep: frames to store, bool [T].
    shot: number of the shot, int [T].
    tasks: instruction of each frame.
    max_frames: largest number of frames in a clip.
  """
  segments: list[list[Span]] = []
  begin = None
  for t in range(len(keep) + 1):
    inside = t < len(keep) and keep[t]
    if begin is not None:
      border = not inside or shot[t] != shot[begin]
      if border or tasks[t] != tasks[begin] or t - begin == max_frames:
        segments[-1].append(Span(begin, t, int(shot[begin]), tasks[begin]))
        begin = None
        if inside and not border:
          begin = t
    if inside and begin is None:
      segments.append([])
      begin = t
  return segments
