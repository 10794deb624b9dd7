"""Reads all frames of a container's best stream with their times, and refuses damaged files.

Times come only from presentation time stamps, because headers are often wrong. At the end of a file
two things are checked: every packet gave a picture, and the container's declarations hold
(`video_end`). A file is read to its end or refused. Everything left out or repaired is in `notes`.
"""

from __future__ import annotations  # PyAV is imported at its first use

import contextlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator

import numpy as np

from como_jax.data import ffmpeg_log, transport_stream, video_end, video_pictures
from como_jax.data.images import UnreadableError, decode_errors
from como_jax.data.pyav import Disposition, InputContainer, PictureType, av

DEFAULT_RATE = 25.0  # frames per second of a stream without time stamps and without a declared rate
# Largest number of consecutive frames without a usable time stamp that get interpolated times.
_HELD = 8
# Decoders that conceal errors and mark the frame. Other decoders are set to fail. These would then
# also refuse whole files when an edit has removed a reference frame.
_MARKING = {
  "h264",
  "mpeg1video",
  "mpeg2video",
  "mpeg4",
  "h263",
  "flv",
  "flv1",
  "msmpeg4v1",
  "msmpeg4v2",
  "msmpeg4",
}
_MARKING |= {"msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1"}
_SEEKABLE = ("mov", "matroska", "mpegts")  # containers whose packets have presentation times


def reason(error: Exception) -> str:
  """Text for an exception that was raised because a video cannot be read."""
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return f"not a readable video ({text})"


@contextlib.contextmanager
def open_video(path: str) -> Iterator[tuple[InputContainer, av.VideoStream]]:
  """Context manager: the opened container of a file and its best video stream.

  Raises `UnreadableError`, also for errors inside the block.
  """
  if not os.path.isfile(path):
    raise UnreadableError("the file is missing")
  if not os.path.getsize(path):
    raise UnreadableError("the file is empty")
  try:
    with ffmpeg_log.errors() as log:
      container = av.open(os.path.abspath(path), metadata_errors="ignore")
    with container:
      message = ffmpeg_log.damage([line for line in log if line[1] == container.format.name])
      if message:  # some demuxers already read data when they open a file
        raise UnreadableError(f"damaged: FFmpeg reports {message!r}")
      yield container, _prepare(best_stream(container))
  except decode_errors() as error:
    raise UnreadableError(reason(error)) from error


def best_stream(container: InputContainer) -> av.VideoStream:
  """Selects the video stream: not a cover picture; preferably marked as default; the largest.

  Raises `UnreadableError`.
  """
  moving = [stream for stream in container.streams.video if not _is_still(stream)]
  if not moving:
    covers = " (only a cover picture)" if container.streams.video else ""
    raise UnreadableError(f"no video stream in the file{covers}")
  known = [stream for stream in moving if stream.codec_context is not None]
  if not known:
    raise UnreadableError("no decoder for the video stream of the file")
  return max(
    known,
    key=lambda stream: (
      bool(stream.disposition & Disposition.default),
      stream.width * stream.height,
      -stream.index,
    ),
  )


def _is_still(stream: av.VideoStream) -> bool:
  still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
  return bool(stream.disposition & still)


def _prepare(stream: av.VideoStream) -> av.VideoStream:
  # One thread: the work is parallel over processes, and frame threads hide errors.
  stream.codec_context.thread_count = 1
  if stream.codec_context.name not in _MARKING:
    stream.codec_context.options = {"err_detect": "crccheck+explode"}
  return stream


def header_rate(stream: av.VideoStream) -> float:
  """Frames per second from the headers, for streams without time stamps."""
  rates = (stream.codec_context.framerate, stream.guessed_rate, stream.average_rate)
  return next((float(rate) for rate in rates if rate and 0.1 <= rate <= 1000), DEFAULT_RATE)


def decode(path: str, notes: list[str]) -> Iterator[tuple[float, av.VideoFrame, av.VideoStream]]:
  """Yields (seconds since the first frame, frame, its stream) of a whole file; checks its end."""
  tally = video_pictures.Tally()
  yield from _decode(path, notes, tally, any_start=False)
  if _without_key_frame(tally):  # the stream marks no key frames: start with the first packet
    tally = video_pictures.Tally()
    yield from _decode(path, notes, tally, any_start=True)
  if tally.before_key or tally.leading:
    notes.append(
      f"the file starts inside a group of pictures: {tally.before_key + tally.leading} packets "
      "were left out, the first frame is the first that can be decoded"
    )
  if tally.expected > tally.decoded:
    notes.append(
      f"{tally.expected - tally.decoded} packets repeat the picture before: no frame was made "
      "of them"
    )


def _decode(
  path: str, notes: list[str], tally: video_pictures.Tally, *, any_start: bool
) -> Iterator[tuple[float, av.VideoFrame, av.VideoStream]]:
  """Yields what `decode` yields; checks the end of the file unless no key frame was found."""
  with open_video(path) as (container, stream):
    if container.format.name == "mpegts" and not any_start:
      transport_stream.check(path, stream.id, notes)
    pictures = video_pictures.pictures(container, stream, tally, any_start=any_start)
    for seconds, frame in _timed(pictures, stream, None, notes):
      yield seconds, frame, stream
    if not _without_key_frame(tally):
      notes += video_end.check(path, container, stream, tally, header_rate(stream))
      _note_streams(container, stream, notes)


def _without_key_frame(tally: video_pictures.Tally) -> bool:
  """Whether all packets of a stream were left out, because none is a key frame."""
  return tally.packets > 0 and tally.packets == tally.before_key


def _note_streams(container: InputContainer, stream: av.VideoStream, notes: list[str]) -> None:
  moving = [other for other in container.streams.video if not _is_still(other)]
  if len(moving) > 1:
    notes.append(
      f"{len(moving)} video streams: number {stream.index} ({stream.width}x{stream.height} "
      "pixels) was read"
    )


def decode_from(
  path: str, start: float, notes: list[str]
) -> Iterator[tuple[float, av.VideoFrame, av.VideoStream]]:
  """Yields (seconds since the file's first frame, frame, its stream) from at or before `start` on.

  It starts at the key frame before `start`, or at an earlier one when frames there refer to earlier
  frames. Times and frames are exactly those of `decode`. The end of the file is not checked.
  """
  if start > 0:
    with open_video(path) as (container, stream):
      if container.format.name == "mpegts":
        transport_stream.check(path, stream.id, [])
      first = next(video_pictures.pictures(container, stream, video_pictures.Tally()), None)
      origin = None if first is None else first.pts
      if origin is not None and container.format.name.startswith(_SEEKABLE):
        target = origin + math.floor(start / video_end.time_base(stream))
        later = _enter(container, stream, origin, target)
        if later is not None:
          _note_streams(container, stream, notes)
          for seconds, frame in _timed(later, stream, origin, notes):
            yield seconds, frame, stream
          return
  yield from decode(path, notes)


def _enter(
  container: InputContainer, stream: av.VideoStream, origin: int, target: int
) -> Iterator[av.VideoFrame] | None:
  """Seeks, and returns frames from at or before `target` on; None = read from the beginning."""
  back = 0  # seconds
  while (position := target - math.ceil(back / video_end.time_base(stream))) > origin:
    pictures = video_pictures.pictures(container, stream, video_pictures.Tally(), entered=True)
    try:
      container.seek(position, stream=stream)
      first = next(pictures, None)
    except (UnreadableError, *decode_errors()):
      # Try further back. If the file is damaged, the error is raised when it is read from there.
      first = None
    # A first picture that is not an intra picture was built up over several frames, and is not
    # exact.
    if (
      first is not None
      and first.pts is not None
      and first.pts <= target
      and first.pict_type == PictureType.I
    ):
      return itertools.chain([first], pictures)
    back = 2 * back or 1
  return None


def _timed(
  frames: Iterable[av.VideoFrame], stream: av.VideoStream, origin: int | None, notes: list[str]
) -> Iterator[tuple[float, av.VideoFrame]]:
  """Yields (seconds since the time stamp `origin`, frame), increasing; None = the first frame.

  Frames without a time stamp, or with one that does not increase, get times evenly between their
  neighbors. If no frame has a time stamp, the rate of the header is used.

  Raises:
    UnreadableError: time stamps go back for more than a few frames.
  """
  held, missing, repaired, last, shift, step = [], 0, 0, None, 0.0, 1 / header_rate(stream)
  frames = iter(frames)
  for number, frame in enumerate(frames):
    seconds = None
    if frame.pts is not None:
      if origin is None:
        origin, shift = frame.pts, len(held) * step
      seconds = float((frame.pts - origin) * video_end.time_base(stream)) + shift
    if seconds is not None and (last is None or seconds > last):
      before = last if last is not None else seconds - (len(held) + 1) * step
      for i, waiting in enumerate(held, 1):
        yield before + (seconds - before) * i / (len(held) + 1), waiting
      if held or last is not None:
        step = (seconds - before) / (len(held) + 1)
      held, last = [], seconds
      yield seconds, frame
      continue
    missing += seconds is None
    repaired += seconds is not None
    held.append(frame)
    if len(held) <= _HELD:
      continue
    if last is None and seconds is None:
      break  # none of the frames has a time
    if seconds is None:
      raise UnreadableError(
        f"more than {_HELD} frames in a row without a time stamp, up to frame {number}"
      )
    raise UnreadableError(
      f"time stamps go back from {last:.3f} s to {seconds:.3f} s at frame {number}"
    )
  start = -step if last is None else last
  untimed = last is None and held
  for i, waiting in enumerate(itertools.chain(held, frames), 1):
    yield start + i * step, waiting
  if untimed:
    notes.append(
      f"the file holds no time stamps: {1 / step:.6g} frames a second were assumed, as its "
      "header says"
    )
  elif missing or repaired:
    notes.append(
      f"{missing} frames without a time stamp and {repaired} whose time stamp does not increase "
      "were placed evenly between their neighbors"
    )


def packet_times(path: str, *, limit: int | None = None) -> np.ndarray:
  """Times of all frames (of the first `limit` packets) in seconds, increasing.

  They come from the packets; at most one picture is decoded. Raises `UnreadableError`.
  """
  with open_video(path) as (container, stream):
    codec, times, first_key, started = stream.codec_context.name, [], None, False
    for packet in container.demux(stream):
      if not packet.size or packet.is_discard or video_pictures.invisible(codec, packet):
        continue
      if packet.is_keyframe and not started:
        started, first_key, times = True, packet.pts, []
      times.append(packet.pts if packet.pts is not None else packet.dts)
      if len(times) == limit:
        break
    if not times or None in times:
      return np.arange(len(times)) / header_rate(stream)
    times, base = np.sort(np.array(times, np.int64)), float(video_end.time_base(stream))
  # Only the decoder can tell which of these packets give pictures.
  if first_key is not None and times[0] < first_key:
    with open_video(path) as (container, stream):
      first = next(video_pictures.pictures(container, stream, video_pictures.Tally()), None)
      times = times[times >= first.pts] if first is not None and first.pts is not None else times
  return (times - times[0]) * base
