"""Frames and their times out of a container: the right stream, every frame of it, and nothing that
is damaged.

Time comes from presentation time stamps alone; headers are wrong too often. At the end of a file is
checked what has arrived: a picture for each packet, and what the container declares (`video_end`).
A file is read to its end or refused; what was left out or repaired is written to `notes`.
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

DEFAULT_RATE = 25.0  # frames a second of a stream without times that does not state a rate either
# frames without a usable time stamp in a row that are given times between their neighbors
_HELD = 8
# Decoders that conceal errors and mark the frame; the others are told to fail. With that order,
# these would also refuse whole files for a reference frame that an edit has cut away.
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
_SKIPPED_BYTES = 16  # at most, of a packet of these that says "the picture before, again"
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_KEPT = 1000  # packets at most, to judge the last picture by
_SEEKABLE = ("mov", "matroska", "mpegts")  # those whose packets carry presentation times


@dataclasses.dataclass
class Tally:
  """What has passed while a stream was decoded.

  Attributes:
    packets: all of the stream that hold data.
    slots: places in the order of decoding that are behind them; an AVI also counts those of frames
      that were dropped.
    expected: pictures that these should give.
    optional: how many of them may be missing: a few bytes that say "the picture before, again".
    decoded: pictures that came.
    before_key: packets left out before the first key frame.
    leading: packets that belong before the first picture and refer to frames that the file does not
      hold.
    end: seconds at which the last packet of any stream ends.
    lasting: the packets say how long they last.
    premature: the container reports that the file ends before what it declares.
    position: byte at which the last packet begins, None = unknown.
    since_key: the last packet, after all since the key frame where the decoder needs them to judge
      it.
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
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return f"not a readable video ({text})"


@contextlib.contextmanager
def open_video(path: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
  """The container of a file and its best video stream.

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
      found = ffmpeg_log.damage([line for line in log if line[1] == container.format.name])
      if found:  # some demuxers read ahead when they open a file
        raise Unreadable(f"damaged: FFmpeg reports {found!r}")
      yield container, _prepare(best_stream(container))
  except DECODE_ERRORS as error:
    raise Unreadable(reason(error)) from error


def best_stream(container: av.container.InputContainer) -> av.VideoStream:
  """The stream of moving pictures: not a cover; the one marked as default; the largest.

  Raises `Unreadable`.
  """
  moving = [one for one in container.streams.video if not one.disposition & _STILL]
  if not moving:
    covers = " (only a cover picture)" if container.streams.video else ""
    raise Unreadable(f"no video stream in the file{covers}")
  known = [one for one in moving if one.codec_context is not None]
  if not known:
    raise Unreadable("no decoder for the video stream of the file")
  return max(
    known,
    key=lambda one: (
      bool(one.disposition & Disposition.default),
      one.width * one.height,
      -one.index,
    ),
  )


def _prepare(stream: av.VideoStream) -> av.VideoStream:
  # processes are the parallelism, and frame threads hide errors
  stream.codec_context.thread_count = 1
  if stream.codec_context.name not in _MARKING:
    stream.codec_context.options = {"err_detect": "crccheck+explode"}
  return stream


def header_rate(stream: av.VideoStream) -> float:
  """Frames a second as the headers say, for streams without times."""
  rates = (stream.codec_context.framerate, stream.guessed_rate, stream.average_rate)
  return next((float(rate) for rate in rates if rate and 0.1 <= rate <= 1000), DEFAULT_RATE)


def decode(path: str, notes: list[str]) -> Iterator[tuple[float, av.VideoFrame, av.VideoStream]]:
  """(seconds since the first frame, frame, its stream) of a whole file, checked for completeness at
  the end.
  """
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
        continue  # a stream that marks no key frames: begin with whatever comes first
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
  several = [one for one in container.streams.video if not one.disposition & _STILL]
  if len(several) > 1:
    notes.append(
      f"{len(several)} video streams: number {stream.index} ({stream.width}x{stream.height} "
      "pixels) was read"
    )


def decode_from(
  path: str, start: float, notes: list[str]
) -> Iterator[tuple[float, av.VideoFrame, av.VideoStream]]:
  """(seconds since the file's first frame, frame, its stream) from a frame at or before `start` on,
  all of them exact.

  It enters at the key frame before `start`, or an earlier one where frames there refer to what came
  before. The same times as those of `decode`. The file's end is not checked.
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
  """Frames from one at or before `target` on, after seeking; None where only the file's beginning
  is left.
  """
  back = 0  # seconds
  while (at := target - math.ceil(back / stream.time_base)) > origin:
    try:
      container.seek(at, stream=stream)
      pictures = _pictures(container, stream, Tally(), entered=True)
      first = next(pictures, None)
    except (Unreadable, *DECODE_ERRORS):
      # not from here; if the file is damaged, that shows further back
      first = None
    # Where the first picture is not an intra picture, it was put together over several frames, and
    # only about right.
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
  """Decoded frames in presentation order, their pts as the container says; counts into `tally`.

  Args:
    entered: the container was told to seek, so frames before the first key frame's time are not to
      be trusted.
    any_start: begin with whatever packet comes first, not with a key frame.

  Raises:
    Unreadable: the decoder or the container reports damage, or gives no picture for a packet.
  """
  codec = stream.codec_context.name
  # In an AVI, time stamps are those of the order of decoding: the n-th picture has the n-th of
  # them.
  in_order = deque() if container.format.name == "avi" and codec in ("h264", "hevc") else None
  # Time stamps of the first picture and the first key frame; those of packets before the first
  # picture has come.
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
      if tally.decoded:  # before, decoders complain about frames that nobody gets to see
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
  """Seconds at which a packet ends, 0 where it does not say."""
  pts = packet.pts if packet.pts is not None else packet.dts
  return (
    float((pts + (packet.duration or 0)) * packet.time_base)
    if pts is not None and packet.size
    else 0.0
  )


def _invisible(codec: str, packet: av.Packet) -> bool:
  """Whether a packet holds a frame that is never shown: VP8 keeps such as references (VP9 adds them
  to shown ones).
  """
  return codec == "vp8" and not memoryview(packet)[0] & 0x10


def _timed(
  frames: Iterable[av.VideoFrame], stream: av.VideoStream, origin: int | None, notes: list[str]
) -> Iterator[tuple[float, av.VideoFrame]]:
  """(seconds, frame), increasing, since the time stamp `origin` (None: since the first frame).

  Frames without a time stamp, or with one that does not increase, are placed evenly between their
  neighbors. A stream that has none at all runs at the rate of its header.

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
      for i, one in enumerate(held, 1):
        yield before + (seconds - before) * i / (len(held) + 1), one
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
  for i, one in enumerate(itertools.chain(held, frames), 1):
    yield start + i * step, one
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
  """Seconds of all frames (of the first `limit` packets), increasing, from packets: at most one
  picture is decoded.

  Raises:
    Unreadable: not a readable video.
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
  # only the decoder knows which of these it can make pictures of
  if first_key is not None and times[0] < first_key:
    with open_video(path) as (container, stream):
      first = next(_pictures(container, stream, Tally()), None)
      times = times[times >= first.pts] if first is not None and first.pts is not None else times
  return (times - times[0]) * base
