"""Decodes the pictures of one stream, in the order in which they are shown, and counts.

Every packet must give a picture. What the counts mean for a whole file is judged by `video_end`.
"""

from __future__ import annotations  # PyAV is imported at its first use

import dataclasses
from collections import deque
from collections.abc import Iterator

from como_jax.data import ffmpeg_log, video_end
from como_jax.data.images import UnreadableError, decode_errors
from como_jax.data.pyav import InputContainer, PictureType, av

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
_KEPT = 1000  # largest number of packets that are kept to check the last picture


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


def pictures(
  container: InputContainer,
  stream: av.VideoStream,
  tally: Tally,
  *,
  entered: bool = False,
  any_start: bool = False,
) -> Iterator[av.VideoFrame]:
  """Yields decoded frames in presentation order, with the container's pts; updates `tally`.

  Args:
    container: the opened container.
    stream: the stream to decode.
    tally: counts, updated while the frames are read.
    entered: whether the container was seeked. Frames before the time of the first key frame are
      then not exact and are left out.
    any_start: whether decoding starts with any packet, not with a key frame.

  Raises:
    UnreadableError: the decoder or the container reports damage, or gives no picture for a packet.
  """
  decoder = _Decoder(container, stream, tally, entered=entered, any_start=any_start)
  try:
    for packet in _packets(container, tally):
      if packet.stream.index != stream.index:
        tally.end = max(tally.end, _end(packet))
        continue
      decoder.count(packet)
      if not decoder.starts(packet):
        continue
      if entered and decoder.untimed_start:
        return
      decoder.expect(packet)
      yield from decoder.decode(packet)
  except decode_errors() as error:
    if not tally.decoded:
      raise
    text = getattr(error, "strerror", None) or str(error)
    raise UnreadableError(f"decoding failed after frame {tally.decoded - 1} ({text})") from error
  lost = tally.expected - tally.decoded
  if lost > tally.optional:
    raise UnreadableError(f"damaged: {lost} of {tally.expected} packets gave no picture")


def _packets(container: InputContainer, tally: Tally) -> Iterator[av.Packet]:
  """Yields all packets of a container. Raises `UnreadableError` when it reports damage."""
  packets = container.demux()
  while True:
    with ffmpeg_log.errors() as log:
      packet = next(packets, None)
    _refuse_damage(log, tally)
    tally.premature |= ffmpeg_log.premature(log)
    if packet is None:
      return
    yield packet


class _Decoder:
  """The decoder of a stream, and what is known about the beginning of the stream."""

  def __init__(
    self,
    container: InputContainer,
    stream: av.VideoStream,
    tally: Tally,
    *,
    entered: bool,
    any_start: bool,
  ):
    self._tally, self._entered, self._any_start = tally, entered, any_start
    self._codec = stream.codec_context.name
    # In an AVI, time stamps are in decoding order: the n-th picture has the n-th time stamp.
    in_order = container.format.name == "avi" and self._codec in ("h264", "hevc")
    self._in_order: deque[int | None] | None = deque() if in_order else None
    # Time stamps of the first picture, of the first key frame, and of the packets before the first
    # picture was decoded.
    self._first: int | None = None
    self._key: int | None = None
    self._early: list[int | None] = []
    self._started = any_start
    # Whether the last picture is checked with all packets since its key frame.
    self._judged = self._codec == "hevc" and video_end.annexb(container.format.name)

  @property
  def untimed_start(self) -> bool:
    """Whether the first key frame has no time stamp."""
    return self._started and not self._any_start and self._key is None

  def count(self, packet: av.Packet) -> None:
    """Adds a packet to the tally."""
    tally = self._tally
    if packet.size and not packet.is_discard:
      tally.end = max(tally.end, _end(packet))
      tally.lasting &= bool(packet.duration)
    if packet.size:
      if packet.is_keyframe or not self._judged or len(tally.since_key) == _KEPT:
        tally.since_key.clear()
      tally.since_key.append(packet)
      tally.position = packet.pos
      tally.slots = max(tally.slots, (packet.dts or 0) + 1)
    tally.packets += bool(packet.size)

  def starts(self, packet: av.Packet) -> bool:
    """Whether to decode a packet: those before the first key frame are left out."""
    if self._started or not packet.size:
      return True
    if not packet.is_keyframe:
      self._tally.before_key += 1
      return False
    self._started, self._key = True, packet.pts
    return True

  def expect(self, packet: av.Packet) -> None:
    """Counts the picture that a packet should give. Raises `UnreadableError` if it is broken."""
    tally = self._tally
    if packet.is_corrupt and packet.size:
      raise UnreadableError(
        f"truncated or damaged: a broken packet after frame {tally.decoded - 1}"
      )
    if not packet.size or packet.is_discard or invisible(self._codec, packet):
      return
    tally.optional += self._codec in _SKIPPING and packet.size <= _SKIPPED_BYTES
    if not tally.decoded:
      self._early.append(packet.pts)
    elif self._first is not None and packet.pts is not None and packet.pts < self._first:
      tally.leading += 1
    else:
      tally.expected += 1
    if self._in_order is not None:
      self._in_order.append(packet.pts)

  def decode(self, packet: av.Packet[av.VideoStream]) -> Iterator[av.VideoFrame]:
    """Yields the frames that a packet completes. Raises `UnreadableError` when one is damaged."""
    tally = self._tally
    with ffmpeg_log.errors() as log:
      frames = packet.decode()
    if tally.decoded:  # before that, decoders report errors in frames that are not returned
      _refuse_damage(log, tally)
    for frame in frames:
      if self._in_order is not None:
        frame.pts = self._in_order.popleft() if self._in_order else None
      elif (
        self._key is not None
        and frame.pts is not None
        and frame.pts < self._key
        and (self._entered or self._codec == "h264")
      ):
        continue  # refers to frames before the key frame
      if not tally.decoded:
        self._begin(frame)
      if frame.is_corrupt:
        raise UnreadableError(f"damaged: the decoder reports errors in frame {tally.decoded}")
      tally.decoded += 1
      yield frame

  def _begin(self, frame: av.VideoFrame) -> None:
    """Notes the first picture. Raises `UnreadableError` when it refers to others before it."""
    kinds = PictureType
    if self._any_start and frame.pict_type not in (kinds.NONE, kinds.I):
      raise UnreadableError(
        "no key frame in the file: its first picture refers to others that it does not hold"
      )
    first = self._first = frame.pts
    self._tally.leading = sum(
      first is not None and pts is not None and pts < first for pts in self._early
    )
    self._tally.expected = len(self._early) - self._tally.leading


def _refuse_damage(log: list[tuple[int, str, str]], tally: Tally) -> None:
  text = ffmpeg_log.damage(log)
  if text:
    raise UnreadableError(f"damaged: after frame {tally.decoded - 1} FFmpeg reports {text!r}")


def _end(packet: av.Packet) -> float:
  """Seconds at which a packet ends, 0 = unknown."""
  pts = packet.pts if packet.pts is not None else packet.dts
  return (
    float((pts + (packet.duration or 0)) * packet.time_base)
    if pts is not None and packet.size
    else 0.0
  )


def invisible(codec: str, packet: av.Packet) -> bool:
  """Whether a packet has only a frame that is never shown. VP8 uses such frames as references.

  VP9 has them too, but in one packet with a frame that is shown.
  """
  return codec == "vp8" and not memoryview(packet)[0] & 0x10
