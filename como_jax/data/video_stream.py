"""Reads all frames of a container's best stream with their times, and refuses damaged files.

Times come only from presentation time stamps, because headers are often wrong. At the end of a file
two things are checked: every packet gave a picture, and the container's declarations hold
(`video_end`). A file is read to its end or refused. Everything left out or repaired is in `notes`.
"""

import contextlib
import dataclasses
import itertools
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator

import av
import numpy as np
from av.stream import Disposition
from av.video.frame import PictureType

from como_jax.data import ffmpeg_log, transport_stream, video_end
from como_jax.data.images import DECODE_ERRORS, Unreadable

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
_SKIPPING = {
  "mpeg4",
  "msmpeg4v1",
  "msmpeg4v2",
  "msmpeg4",
  "msmpeg4v3",
  "h263",
  "flv",
  "flv1",
  "wmv1",
  "wmv2",
}
_SKIPPED_BYTES = 16  # largest packet of these codecs that only repeats the picture before
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_KEPT = 1000  # largest number of packets that are kept to check the last picture
_SEEKABLE = ("mov", "matroska", "mpegts")  # containers whose packets have presentation times


@dataclasses.dataclass
class Tally:
  """Counts collected while a stream is decoded.

  Attributes:
    packets: number of packets of the stream with data.
    slots: number of positions in decoding order so far. In an AVI, dropped frames have one too.
    expected: number of pictures that the packets should give.
    optional: number of these that may be missing, because the packet only repeats the last picture.
    decoded: number of pictures decoded.
    before_key: number of packets left out before the first key frame.
    leading: number of packets that belong before the first picture and refer to frames that are not
      in the file.
    end: seconds at which the last packet of any stream ends.
    lasting: whether all packets declare their duration.
    premature: whether the container reports that the file is shorter than declared.
    position: byte at which the last packet begins, None = unknown.
    since_key: the last packet. If the decoder needs them to check it, all packets since the key
      frame.
  """

  packets: int = 0
  slots: int = 0
  expected: int = 0
  optional: int = 0
  decoded: int = 0
  before_key: int = 0
  leading: int = 0
  end: float = 0.0
  lasting: bool = True
  premature: bool = False
  position: int | None = None
  since_key: list[av.Packet] = dataclasses.field(default_factory=list)


def reason(error: Exception) -> str:
  """Text for an exception that was raised because a video cannot be read."""
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return f"not a readable video ({text})"


@contextlib.contextmanager
def open_video(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
  """Context manager: the opened container of a file and its best video stream.

  Raises `Unreadable`, also for errors inside the block.
  """
  if not os.path.isfile(path):
    raise Unreadable("the file is missing")
  if not os.path.getsize(path):
    raise Unreadable("the file is empty")
  try:
    with ffmpeg_log.errors() as log:
      container = av.open(os.path.abspath(path), metadata_errors="ignore")
    with container:
      message = ffmpeg_log.damage([line for line in log if line[1] == container.format.name])
      if message:  # some demuxers already read data when they open a file
        raise Unreadable(f"damaged: FFmpeg reports {message!r}")
      yield container, _prepare(best_stream(container))
  except DECODE_ERRORS as error:
    raise Unreadable(reason(error)) from error


def best_stream(container: av.container.InputContainer) -> av.VideoStream:
  """Selects the video stream: not a cover picture; preferably marked as default; the largest.

  Raises `Unreadable`.
  """
  moving = [stream for stream in container.streams.video if not stream.disposition & _STILL]
  if not moving:
    covers = " (only a cover picture)" if container.streams.video else ""
    raise Unreadable(f"no video stream in the file{covers}")
  known = [stream for stream in moving if stream.codec_context is not None]
  if not known:
    raise Unreadable("no decoder for the video stream of the file")
  return max(
    known,
    key=lambda stream: (
      bool(stream.disposition & Disposition.default),
      stream.width * stream.height,
      -stream.index,
    ),
  )


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
  for any_start in (False, True):
    tally = Tally()
    with open_video(path) as (container, stream):
      if container.format.name == "mpegts" and not any_start:
        transport_stream.check(path, stream.id, notes)
      for seconds, frame in _timed(
        _pictures(container, stream, tally, any_start=any_start), stream, None, notes
      ):
        yield seconds, frame, stream
      if tally.packets and tally.packets == tally.before_key:
        continue  # the stream marks no key frames: start with the first packet
      notes += video_end.check(path, container, stream, tally, header_rate(stream))
      _note_streams(container, stream, notes)
    break
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


def _note_streams(container, stream, notes: list[str]) -> None:
  moving = [other for other in container.streams.video if not other.disposition & _STILL]
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
      first = next(_pictures(container, stream, Tally()), None)
      later = None
      if (
        first is not None and first.pts is not None and container.format.name.startswith(_SEEKABLE)
      ):
        later = _enter(
          container, stream, first.pts, first.pts + math.floor(start / stream.time_base)
        )
      if later is not None:
        _note_streams(container, stream, notes)
        for seconds, frame in _timed(later, stream, first.pts, notes):
          yield seconds, frame, stream
        return
  yield from decode(path, notes)


def _enter(container, stream, origin: int, target: int) -> Iterator[av.VideoFrame] | None:
  """Seeks, and returns frames from at or before `target` on; None = read from the beginning."""
  back = 0  # seconds
  while (position := target - math.ceil(back / stream.time_base)) > origin:
    try:
      container.seek(position, stream=stream)
      pictures = _pictures(container, stream, Tally(), entered=True)
      first = next(pictures, None)
    except (Unreadable, *DECODE_ERRORS):
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


def _pictures(container, stream, tally: Tally, *, entered: bool = False, any_start: bool = False):
  """Yields decoded frames in presentation order, with the container's pts; updates `tally`.

  With `entered`, the container was seeked, so frames before the time of the first key frame are not
  exact and are left out. With `any_start`, decoding starts with any packet, not with a key frame.

  Raises:
    Unreadable: the decoder or the container reports damage, or gives no picture for a packet.
  """
  codec = stream.codec_context.name
  # In an AVI, time stamps are in decoding order: the n-th picture has the n-th time stamp.
  in_order = deque() if container.format.name == "avi" and codec in ("h264", "hevc") else None
  # Time stamps of the first picture, of the first key frame, and of the packets before the first
  # picture was decoded.
  first, key, early, started = None, None, [], any_start
  packets, judged = container.demux(), codec == "hevc" and video_end.annexb(container.format.name)
  try:
    while True:
      with ffmpeg_log.errors() as log:
        packet = next(packets, None)
      _refuse_damage(log, tally)
      tally.premature |= ffmpeg_log.premature(log)
      if packet is None:
        break
      if packet.stream.index != stream.index:
        tally.end = max(tally.end, _end(packet))
        continue
      if packet.size and not packet.is_discard:
        tally.end = max(tally.end, _end(packet))
        tally.lasting &= bool(packet.duration)
      if packet.size:
        if packet.is_keyframe or not judged or len(tally.since_key) == _KEPT:
          tally.since_key.clear()
        tally.since_key.append(packet)
        tally.position = packet.pos
        tally.slots = max(tally.slots, (packet.dts or 0) + 1)
      tally.packets += bool(packet.size)
      if not started and packet.size:
        if not packet.is_keyframe:
          tally.before_key += 1
          continue
        started, key = True, packet.pts
        if entered and key is None:
          return
      if packet.is_corrupt and packet.size:
        raise Unreadable(f"truncated or damaged: a broken packet after frame {tally.decoded - 1}")
      if packet.size and not packet.is_discard and not _invisible(codec, packet):
        tally.optional += codec in _SKIPPING and packet.size <= _SKIPPED_BYTES
        if not tally.decoded:
          early.append(packet.pts)
        elif first is not None and packet.pts is not None and packet.pts < first:
          tally.leading += 1
        else:
          tally.expected += 1
        if in_order is not None:
          in_order.append(packet.pts)
      with ffmpeg_log.errors() as log:
        frames = packet.decode()
      if tally.decoded:  # before that, decoders report errors in frames that are not returned
        _refuse_damage(log, tally)
      for frame in frames:
        if in_order is not None:
          frame.pts = in_order.popleft() if in_order else None
        elif (
          key is not None
          and frame.pts is not None
          and frame.pts < key
          and (entered or codec == "h264")
        ):
          continue  # refers to frames before the key frame
        if not tally.decoded:
          if any_start and frame.pict_type not in (PictureType.NONE, PictureType.I):
            raise Unreadable(
              "no key frame in the file: its first picture refers to others that it does not hold"
            )
          first = frame.pts
          tally.leading = sum(
            first is not None and pts is not None and pts < first for pts in early
          )
          tally.expected = len(early) - tally.leading
        if frame.is_corrupt:
          raise Unreadable(f"damaged: the decoder reports errors in frame {tally.decoded}")
        tally.decoded += 1
        yield frame
  except DECODE_ERRORS as error:
    if not tally.decoded:
      raise
    text = getattr(error, "strerror", None) or str(error)
    raise Unreadable(f"decoding failed after frame {tally.decoded - 1} ({text})") from error
  lost = tally.expected - tally.decoded
  if lost > tally.optional:
    raise Unreadable(f"damaged: {lost} of {tally.expected} packets gave no picture")


def _refuse_damage(log: list[tuple[int, str, str]], tally: Tally) -> None:
  text = ffmpeg_log.damage(log)
  if text:
    raise Unreadable(f"damaged: after frame {tally.decoded - 1} FFmpeg reports {text!r}")


def _end(packet: av.Packet) -> float:
  """Seconds at which a packet ends, 0 = unknown."""
  pts = packet.pts if packet.pts is not None else packet.dts
  return (
    float((pts + (packet.duration or 0)) * packet.time_base)
    if pts is not None and packet.size
    else 0.0
  )


def _invisible(codec: str, packet: av.Packet) -> bool:
  """Whether a packet has only a frame that is never shown. VP8 uses such frames as references.

  VP9 has them too, but in one packet with a frame that is shown.
  """
  return codec == "vp8" and not memoryview(packet)[0] & 0x10


def _timed(
  frames: Iterable[av.VideoFrame], stream: av.VideoStream, origin: int | None, notes: list[str]
) -> Iterator[tuple[float, av.VideoFrame]]:
  """Yields (seconds since the time stamp `origin`, frame), increasing; None = the first frame.

  Frames without a time stamp, or with one that does not increase, get times evenly between their
  neighbors. If no frame has a time stamp, the rate of the header is used.

  Raises:
    Unreadable: time stamps go back for more than a few frames.
  """
  held, missing, repaired, last, shift, step = [], 0, 0, None, 0.0, 1 / header_rate(stream)
  frames = iter(frames)
  for number, frame in enumerate(frames):
    if frame.pts is not None and origin is None:
      origin, shift = frame.pts, len(held) * step
    seconds = None if frame.pts is None else float((frame.pts - origin) * stream.time_base) + shift
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
      raise Unreadable(
        f"more than {_HELD} frames in a row without a time stamp, up to frame {number}"
      )
    raise Unreadable(f"time stamps go back from {last:.3f} s to {seconds:.3f} s at frame {number}")
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

  They come from the packets; at most one picture is decoded. Raises `Unreadable`.
  """
  with open_video(path) as (container, stream):
    codec, times, first_key, started = stream.codec_context.name, [], None, False
    for packet in container.demux(stream):
      if not packet.size or packet.is_discard or _invisible(codec, packet):
        continue
      if packet.is_keyframe and not started:
        started, first_key, times = True, packet.pts, []
      times.append(packet.pts if packet.pts is not None else packet.dts)
      if len(times) == limit:
        break
    if not times or None in times:
      return np.arange(len(times)) / header_rate(stream)
    times, base = np.sort(np.array(times, np.int64)), float(stream.time_base)
  # Only the decoder can tell which of these packets give pictures.
  if first_key is not None and times[0] < first_key:
    with open_video(path) as (container, stream):
      first = next(_pictures(container, stream, Tally()), None)
      times = times[times >= first.pts] if first is not None and first.pts is not None else times
  return (times - times[0]) * base
