"""Reads video files of any kind as frames with times, and collects the codecs of the shards.

Frames are uint8 RGB [H, W, 3]. They are streamed: a video is never fully decoded into memory. A
file is either read to its end or refused (`UnreadableError`). Damaged or missing frames are always
reported, if the container or the decoder shows them.
"""

from __future__ import annotations  # PyAV is imported at its first use

import dataclasses
import functools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from como_jax.data import video_color, video_end, video_stream
from como_jax.data.images import (
  DECODING,
  Geometry,
  UnreadableError,
  decode_errors,
  decode_image,
  decode_jpeg,
  encode_jpeg,
  is_deep_gray,
  reduction,
  resize,
)
from como_jax.data.pyav import av
from como_jax.data.video_encode import H264Encoder, decode_h264

if TYPE_CHECKING:  # sources import this module
  from como_jax.data.sources.options import SourceOptions

__all__ = [
  "DECODING",
  "Geometry",
  "H264Encoder",
  "Info",
  "UnreadableError",
  "decode_errors",
  "decode_h264",
  "decode_image",
  "decode_jpeg",
  "encode_jpeg",
  "printable",
  "probe",
  "read",
  "read_at",
  "reduction",
  "resize",
  "timeline",
]

_PROBED = 256  # packets; the frame rate is computed from their times
_RECENT = 5  # gaps between frames; their median is the local interval of `read_at`
_GAP = 0.1  # seconds; the local interval of a video of one frame, which has no gap


@dataclasses.dataclass(frozen=True)
class Info:
  """Facts about a file's best video stream, known without decoding it.

  Attributes:
    fps: 1 / the typical interval between its first frames, from their time stamps. The typical
      interval is the mean of all intervals within a quarter of the median, because many containers
      round times to 1 ms. Without time stamps, the rate in the header.
    frames: number of frames that the header declares, 0 when it declares none.
    duration: seconds, 0 when unknown.
    pixel_format: FFmpeg's name of the pixel format, "" when unknown.
  """

  fps: float
  frames: int
  duration: float
  pixel_format: str = ""

  @property
  def deep_gray(self) -> bool:
    """Whether the pictures are gray with more than 8 bits per pixel, like depth."""
    return is_deep_gray(self.pixel_format)


def printable(path: str) -> str:
  r"""A path as printable text: bytes that are not UTF-8, and control characters, become `\xe9`."""
  text = os.fsencode(path).decode("utf-8", "backslashreplace")
  return "".join(
    character if ord(character) >= 32 and ord(character) != 127 else f"\\x{ord(character):02x}"
    for character in text
  )


def probe(path: str) -> Info:
  """Reads the headers, and the times of the first packets. Raises `UnreadableError`."""
  times = video_stream.packet_times(path, limit=_PROBED)
  with video_stream.open_video(path) as (container, stream):
    gaps = np.diff(times)
    typical = gaps[np.abs(gaps - np.median(gaps)) <= 0.25 * np.median(gaps)] if len(gaps) else gaps
    fps = 1 / float(typical.mean()) if typical.sum() > 0 else video_stream.header_rate(stream)
    end, start = (
      video_end.declared_end(container, stream),
      (stream.start_time or 0) * (stream.time_base or 0),
    )
    duration = max(0.0, end - float(start))
    return Info(fps, stream.frames, duration, stream.format.name if stream.format else "")


def timeline(path: str) -> np.ndarray:
  """Times of all frames of a file in seconds since the first, float64 [T], increasing.

  They come from the packets, almost without decoding. The whole file is read once. The result is
  cached for the last few files. Raises `UnreadableError`.
  """
  try:
    stat = os.stat(path)
  except OSError as error:
    raise UnreadableError("the file is missing") from error
  return _timeline(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(8)
def _timeline(path: str, size: int, changed: int) -> np.ndarray:
  times = video_stream.packet_times(path)
  times.flags.writeable = False
  return times


def read(
  path: str,
  geometry: Geometry,
  *,
  notes: list[str] | None = None,
  options: SourceOptions | None = None,
  start: float = 0.0,
  stop: float = np.inf,
) -> Iterator[tuple[float, np.ndarray]]:
  """Yields all frames of a video in order: (seconds since the first frame, [H, W, 3]).

  Args:
    path: any file that PyAV reads.
    geometry: size of the result.
    notes: receives one line for each remark about the video: a rate that varies, repaired time
      stamps, frames left out at the start, high dynamic range, several streams...
    options: only `hdr` is used.
    start: seconds; only frames from then on. A file of a common container is entered there.
    stop: seconds; only frames before that. With `start` or `stop`, what the container declares
      about its end is not checked.

  Raises:
    UnreadableError: the file is damaged, truncated or not a video. It may be raised after some
      frames; the caller must then discard them.
  """
  notes = [] if notes is None else notes
  convert, before, shortest, longest, where = None, None, np.inf, 0.0, 0.0
  frames = (
    video_stream.decode_from(path, start, notes) if start > 0 else video_stream.decode(path, notes)
  )
  for seconds, frame, stream in frames:
    if seconds < start:
      continue
    if seconds >= stop:
      break
    convert = convert or _converter(path, stream, geometry, notes, options)
    if before is not None:
      shortest = min(shortest, seconds - before)
      if seconds - before > longest:
        longest, where = seconds - before, before
    before = seconds
    yield seconds, convert(frame)
  if longest > 1.5 * shortest + 2e-3:
    notes.append(
      f"variable frame rate: {1e3 * shortest:.0f} to {1e3 * longest:.0f} ms between frames, "
      f"most after {where:.2f} s"
    )


def read_at(
  path: str,
  times: Sequence[float] | np.ndarray,
  geometry: Geometry,
  *,
  notes: list[str] | None = None,
  options: SourceOptions | None = None,
  whole: bool = False,
) -> Iterator[np.ndarray]:
  """Yields the frame nearest to each time, [H, W, 3]; of two equally near frames, the earlier.

  Only the part of the file with these frames is decoded. The local interval is the median of the
  last few gaps between frames of the file. When a time is further than half a local interval from
  any frame, the nearest frame is used and the time is counted in `notes`. A stream that declares no
  color matrix is read as BT.601, whatever its size, because LeRobot's tools write and read it so.

  Args:
    path: any file that PyAV reads.
    times: seconds since the file's first frame, not decreasing.
    geometry: size of the result.
    notes: as for `read`.
    options: only `hdr` is used.
    whole: True when the times should cover the file to its end. Frames after the last time are then
      reported in `notes`.

  Raises:
    UnreadableError: a time is more than two and a half local intervals from any frame (the video
      ends too early), times decrease or are not finite, or decoding fails.
  """
  seconds, notes = np.asarray(times, np.float64), [] if notes is None else notes
  if not len(seconds):
    return
  if not np.isfinite(seconds).all():
    raise UnreadableError(
      f"timestamp {int(np.argmin(np.isfinite(seconds)))} of {len(seconds)} is not finite"
    )
  if np.any(np.diff(seconds) < 0):
    raise UnreadableError("timestamps go backwards")
  convert, far, interval = None, 0, _GAP
  shown, image = None, None
  for t, (nearest, distance, interval) in enumerate(_nearest(path, seconds, notes)):
    if nearest is None or distance > 2.5 * interval:
      end = "nothing decoded" if nearest is None else f"nearest frame at {nearest[0]:.3f} s"
      row = f"frame {t} of {len(seconds)} at {seconds[t]:.3f} s"
      raise UnreadableError(f"no video frame for {row} ({end}): the video is too short")
    far += distance > 0.5 * interval + 1e-3
    if nearest is not shown or image is None:
      convert = convert or _converter(path, nearest[2], geometry, notes, options, untagged="ITU601")
      shown, image = nearest, convert(nearest[1])
    yield image
  if far:
    notes.append(
      f"{far} of {len(seconds)} timestamps are further than half a frame from the nearest video "
      "frame"
    )
  if whole:
    rest = int(np.sum(timeline(path) > seconds[-1] + 0.5 * interval + 1e-3))
    if rest:
      notes.append(
        f"the video goes on for {rest} frames after the last timestamp: they were not used"
      )


def _nearest(
  path: str, times: np.ndarray, notes: list[str]
) -> Iterator[tuple[tuple[float, av.VideoFrame, av.VideoStream] | None, float, float]]:
  """Yields the nearest frame of a file for each time.

  Yields:
    ((seconds, frame, stream) or None, distance from the time in seconds, local interval in
    seconds).
  """
  frames = video_stream.decode_from(path, times[0], notes)
  before, after = None, next(frames, None)
  gaps: deque[float] = deque(maxlen=_RECENT)
  for target in times:
    while after is not None and (after[0] < target or not gaps):
      before, after = after, next(frames, None)
      if after is not None:
        gaps.append(after[0] - before[0])
    candidates = [frame for frame in (before, after) if frame is not None]
    nearest = min(candidates, key=lambda frame: abs(frame[0] - target), default=None)
    interval = float(np.median(gaps)) if gaps else _GAP
    yield nearest, abs(nearest[0] - target) if nearest else np.inf, interval


def _converter(
  path: str,
  stream: av.VideoStream,
  geometry: Geometry,
  notes: list[str],
  options: SourceOptions | None,
  untagged: str = "",
) -> video_color.Converter:
  aspect = stream.sample_aspect_ratio
  return video_color.Converter(
    geometry,
    pixel_aspect=float(aspect) if aspect else 1.0,
    notes=notes,
    label=printable(os.path.basename(path)),
    hdr=options.hdr if options else "tonemap",
    untagged=untagged,
  )
