"""Video files of any kind as frames with times: what sources read, and the codecs of our shards in
one place.

Frames are uint8 RGB [H, W, 3]. Everything streams: an hour of video never sits decoded in memory. A
file is either read to its end or refused (`Unreadable`); damaged or missing frames are never passed
on in silence where the container or the decoder lets us notice.
"""

import dataclasses
import functools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from como_jax.data import video_color, video_end, video_stream
from como_jax.data.images import (
  DECODE_ERRORS,
  DECODING,
  Geometry,
  Unreadable,
  decode_image,
  decode_jpeg,
  encode_jpeg,
  is_deep_gray,
  reduction,
  resize,
)
from como_jax.data.video_encode import H264Encoder, decode_h264

if TYPE_CHECKING:  # sources import this module
  from como_jax.data.sources.options import SourceOptions

__all__ = [
  "DECODE_ERRORS",
  "DECODING",
  "Geometry",
  "H264Encoder",
  "Info",
  "Unreadable",
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

_PROBED = 256  # packets whose times tell the rate
_RECENT = 5  # gaps between frames whose median is the local interval of `read_at`
_GAP = 0.1  # seconds; where a video of one frame does not tell


@dataclasses.dataclass(frozen=True)
class Info:
  """What is known of a file's best video stream without decoding it.

  Attributes:
    fps: 1 / the usual interval of its first frames, by time stamps; of the header where there are
      none. The usual one is the mean of those within a quarter of the median, for many containers
      round to 1 ms.
    frames: number of frames that the header declares, 0 when it does not.
    duration: seconds, 0 when unknown.
    pixel_format: FFmpeg's name of it, "" when unknown.
  """

  fps: float
  frames: int
  duration: float
  pixel_format: str = ""

  @property
  def deep_gray(self) -> bool:
    return is_deep_gray(self.pixel_format)


def printable(path: str) -> str:
  r"""A path as text that any file can hold: bytes that are not UTF-8 and control characters as
  `\xe9`.
  """
  text = os.fsencode(path).decode("utf-8", "backslashreplace")
  return "".join(
    one if ord(one) >= 32 and ord(one) != 127 else f"\\x{ord(one):02x}" for one in text
  )


def probe(path: str) -> Info:
  """Reads the headers, and the times of the first packets. Raises `Unreadable`."""
  times = video_stream.packet_times(path, limit=_PROBED)
  with video_stream.open_video(path) as (container, stream):
    gaps = np.diff(times)
    usual = gaps[np.abs(gaps - np.median(gaps)) <= 0.25 * np.median(gaps)] if len(gaps) else gaps
    fps = 1 / float(usual.mean()) if usual.sum() > 0 else video_stream.header_rate(stream)
    end, begin = (
      video_end.declared_end(container, stream),
      (stream.start_time or 0) * (stream.time_base or 0),
    )
    duration = max(0.0, end - float(begin))
    return Info(fps, stream.frames, duration, stream.format.name if stream.format else "")


def timeline(path: str) -> np.ndarray:
  """Seconds of all frames of a file since the first, float64 [T], increasing; from its packets,
  hardly decoded.

  The whole file is read once; the answer is kept for the files asked about last. Raises
  `Unreadable`.
  """
  try:
    stat = os.stat(path)
  except OSError as error:
    raise Unreadable("the file is missing") from error
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
  options: "SourceOptions | None" = None,
) -> Iterator[tuple[float, np.ndarray]]:
  """All frames of a video in order with their times: (seconds since the first frame, [H, W, 3]).

  Args:
    path: any file PyAV reads.
    geometry: size of the result.
    notes: receives a line for each thing a reader of the data should know: a rate that varies,
      repaired time stamps, frames left out at the start, high dynamic range, several streams...
    options: their `hdr`.

  Raises:
    Unreadable: damaged, truncated or not a video; possibly only after some frames, which the caller
      must then discard.
  """
  notes = [] if notes is None else notes
  convert, before, shortest, longest, where = None, None, np.inf, 0.0, 0.0
  for seconds, frame, stream in video_stream.decode(path, notes):
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
  times: Sequence[float],
  geometry: Geometry,
  *,
  notes: list[str] | None = None,
  options: "SourceOptions | None" = None,
  whole: bool = False,
) -> Iterator[np.ndarray]:
  """The frame nearest to each of the times, [H, W, 3], of two equally near ones the earlier.

  Only the part of the file that holds them is decoded. How far a frame may lie is judged by the
  file's own time stamps: the local interval is the median of the last few gaps between frames. A
  time further than half of it from any frame is served by the nearest one and counted in `notes`.
  Streams that do not state a color matrix are taken as BT.601 whatever their size: so LeRobot's
  tools write and read them.

  Args:
    path: any file PyAV reads.
    times: seconds since the file's first frame, not decreasing.
    geometry: size of the result.
    notes: as of `read`.
    options: their `hdr`.
    whole: the times are meant to cover the file to its end: what goes on after them is noted.

  Raises:
    Unreadable: a time lies more than two and a half intervals from any frame (the video ends
      early), times decrease or are not finite, or decoding fails.
  """
  times, notes = np.asarray(times, np.float64), [] if notes is None else notes
  if not len(times):
    return
  if not np.isfinite(times).all():
    raise Unreadable(
      f"timestamp {int(np.argmin(np.isfinite(times)))} of {len(times)} is not finite"
    )
  if np.any(np.diff(times) < 0):
    raise Unreadable("timestamps go backwards")
  convert, far = None, 0
  shown, image = None, None
  for t, (nearest, distance, interval) in enumerate(_nearest(path, times, notes)):
    if nearest is None or distance > 2.5 * interval:
      end = "nothing decoded" if nearest is None else f"nearest frame at {nearest[0]:.3f} s"
      row = f"frame {t} of {len(times)} at {times[t]:.3f} s"
      raise Unreadable(f"no video frame for {row} ({end}): the video is too short")
    far += distance > 0.5 * interval + 1e-3
    if nearest is not shown:
      convert = convert or _converter(path, nearest[2], geometry, notes, options, untagged="ITU601")
      shown, image = nearest, convert(nearest[1])
    yield image
  if far:
    notes.append(
      f"{far} of {len(times)} timestamps are further than half a frame from the nearest video frame"
    )
  if whole:
    rest = int(np.sum(timeline(path) > times[-1] + 0.5 * interval + 1e-3))
    if rest:
      notes.append(
        f"the video goes on for {rest} frames after the last timestamp: they were not used"
      )


def _nearest(path: str, times: np.ndarray, notes: list[str]):
  """((seconds, frame, stream) or None, seconds between it and the time, local interval) for each of
  the times.
  """
  stream = video_stream.decode_from(path, times[0], notes)
  before, after = None, next(stream, None)
  gaps = deque(maxlen=_RECENT)

  def step():
    nonlocal before, after
    before, after = after, next(stream, None)
    if after is not None:
      gaps.append(after[0] - before[0])

  for target in times:
    while after is not None and (after[0] < target or not gaps):
      step()
    near = [one for one in (before, after) if one is not None]
    nearest = min(near, key=lambda one: abs(one[0] - target), default=None)
    interval = float(np.median(gaps)) if gaps else _GAP
    yield nearest, abs(nearest[0] - target) if nearest else np.inf, interval


def _converter(path, stream, geometry, notes, options, untagged: str = "") -> video_color.Converter:
  aspect = stream.sample_aspect_ratio
  return video_color.Converter(
    geometry,
    pixel_aspect=float(aspect) if aspect else 1.0,
    notes=notes,
    label=printable(os.path.basename(path)),
    hdr=options.hdr if options else "tonemap",
    untagged=untagged,
  )
