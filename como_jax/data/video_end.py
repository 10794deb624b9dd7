"""Checks whether a file is complete.

It compares what the container declares with what was read, and finds files that end inside a frame.

One case cannot be detected. Some streams declare no length: raw H.264, HEVC, MPEG-2 and MJPEG; MPEG
transport and program streams; Y4M, DV. When such a stream is cut exactly between two frames, it
looks like a shorter stream. If its frames are stored in another order than they are shown, a raw
stream may then also lack single frames before its last frames.
"""

from __future__ import annotations  # PyAV is imported at its first use

import contextlib
import os
import re
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from como_jax.data.images import UnreadableError, decode_errors
from como_jax.data.pyav import InputContainer, av

if TYPE_CHECKING:
  from como_jax.data.video_pictures import Tally

# Containers whose header declares their length. For others, FFmpeg computes it from the packets.
_DECLARING = ("matroska", "avi", "flv", "asf", "mxf", "ivf")
_BY_SIZE = ("yuv4mpegpipe", "dv")  # formats whose frames all have the same number of bytes
_FILLERS = (b"\x55" * 64, b"\xaa" * 64, b"\x7f" * 64)
_SLICE = re.compile(rb"\x00\x00\x01[\x00-\x3f]")  # the beginning of a slice in HEVC


def check(
  path: str, container: InputContainer, stream: av.VideoStream, tally: Tally, rate: float
) -> list[str]:
  """Checks a file that was read to its end.

  Args:
    path: the file.
    container: the opened container.
    stream: the stream that was read.
    tally: counts of what was read.
    rate: frames per second from the headers.

  Returns:
    Remarks.

  Raises:
    UnreadableError: more was declared than read, or the last frame is not complete.
  """
  if not tally.decoded:
    raise UnreadableError("the file holds no frame")
  kind, notes = container.format.name, []
  declared, arrived, spare = 0, tally.packets, 0
  if kind.startswith("mov"):
    declared = sum(entry.size > 0 for entry in stream.index_entries)
  elif kind == "avi":
    # The header also counts dropped frames, and recorders miscount by one or two.
    declared, arrived, spare = stream.frames, max(tally.packets, tally.slots), 2
  elif kind == "mxf" and stream.duration and time_base(stream) * rate == 1:
    declared, spare = stream.duration, 2
  if arrived < declared:
    counted = f"{declared} frames declared, {arrived} in the file"
    if arrived < declared - spare:
      raise UnreadableError(f"truncated: {counted}")
    notes.append(f"{counted}: the last may be missing")
  declared = declared_end(container, stream) if kind.startswith(_DECLARING) else 0.0
  interval = 1 / rate
  if tally.end + interval < declared - max(2.5 * interval, 0.1):
    raise UnreadableError(f"truncated: {declared:.2f} s declared, {tally.end:.2f} s in the file")
  if tally.end + interval * (0.25 if tally.lasting else 1.25) + 2e-3 < declared:
    notes.append(
      f"{declared:.2f} s declared, {tally.end:.2f} s in the file: the last frames may be missing"
    )
  if tally.premature:
    notes.append("the file ends inside a block: what came after is missing")
  return notes + _last_frame(path, kind, stream, tally)


def declared_end(container: InputContainer, stream: av.VideoStream) -> float:
  """Declared end of a stream in seconds on the container's clock, 0 = not declared."""
  if "DURATION" in stream.metadata:  # Matroska and WebM: "00:00:03.250000000"
    with contextlib.suppress(ValueError):
      hours, minutes, seconds = stream.metadata["DURATION"].split(":")
      return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
  if stream.duration:
    return float(((stream.start_time or 0) + stream.duration) * time_base(stream))
  return container.duration / av.time_base if container.duration else 0.0


def time_base(stream: av.VideoStream) -> Fraction:
  """Seconds of one unit of a stream's time stamps. Raises `UnreadableError` when it is unknown."""
  if stream.time_base is None:
    raise UnreadableError("the stream has time stamps, but no unit for them (time base)")
  return stream.time_base


def _last_frame(path: str, kind: str, stream: av.VideoStream, tally: Tally) -> list[str]:
  """Checks the last frame of a container that declares no length; returns remarks.

  Raises `UnreadableError` when the frame is not complete.
  """
  position, packet = tally.position, tally.since_key[-1] if tally.since_key else None
  if position is None or packet is None:
    return []
  rest = os.path.getsize(path) - position - packet.size
  if rest and kind in _BY_SIZE:
    raise UnreadableError(
      f"truncated: {rest % packet.size} of {packet.size} bytes of the last frame are in the file"
    )
  if kind == "mjpeg" and not _ends_whole_jpeg(bytes(packet)):
    raise UnreadableError(
      f"truncated: the file ends inside the picture after frame {tally.decoded - 1}"
    )
  if stream.codec_context.name == "hevc" and annexb(kind):
    return _check_hevc(stream.codec_context, tally.since_key)
  if kind == "gif" and not bytes(packet).rstrip(b"\0").endswith(b";"):
    return ["the file ends without the mark of its end: its last picture may be cut"]
  if kind == "mpeg" and _inside_packet(path, position):
    return ["the file ends inside a packet: what came after is missing"]
  return []


def _ends_whole_jpeg(data: bytes) -> bool:
  """Whether a JPEG has an end marker after its last scan, and no other picture begins after it.

  Other bytes after the end marker do not belong to the picture.
  """
  end = data.rfind(b"\xff\xd9")
  return end > data.rfind(b"\xff\xda") and b"\xff\xd8" not in data[end:]


def annexb(kind: str) -> bool:
  """Whether a container stores pictures without their size (Annex B)."""
  return kind in ("hevc", "mpegts", "mpeg")


def _check_hevc(context: av.VideoCodecContext, packets: list[av.Packet]) -> list[str]:
  """Checks the last of the packets since a key frame; returns remarks.

  FFmpeg's decoder makes a whole picture from a truncated packet, without an error. But then the
  picture depends on the bytes after the packet. So the packet is decoded with different bytes after
  it.

  Raises:
    UnreadableError: the last packet holds only a part of a picture.
  """
  if not packets[0].is_keyframe:
    return ["no key frame near the end: it is not known whether the last picture is whole"]
  if len({_last_picture(context, packets, filler) for filler in _FILLERS}) > 1:
    raise UnreadableError("truncated: the file ends inside its last picture")
  *others, last = (len(_SLICE.findall(bytes(packet))) for packet in packets)
  if last < min(others, default=0):
    return [
      (
        f"the last picture has {last} slices, those before it at least {min(others)}: a part of "
        "it may be missing"
      )
    ]
  return []


def _last_picture(context: av.VideoCodecContext, packets: list[av.Packet], filler: bytes) -> bytes:
  """Samples of all frames that a decoder returns for the last packet, with bytes added to it."""
  decoder = av.CodecContext.create(context.name, "r")
  assert isinstance(decoder, av.VideoCodecContext)  # of the name of one
  decoder.extradata, decoder.thread_count = context.extradata, 1
  frames = []
  with contextlib.suppress(*decode_errors()):
    for packet in packets[:-1]:
      decoder.decode(packet)
    frames += decoder.decode(av.Packet(bytes(packets[-1]) + filler))
    frames += decoder.decode(None)
  return b"".join(map(_samples, frames))


def _samples(frame: av.VideoFrame) -> bytes:
  """Samples of a planar picture, without the padding between its rows."""
  parts = []
  for plane, component in zip(frame.planes, frame.format.components, strict=False):
    rows = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size].reshape(
      plane.height, plane.line_size
    )
    parts.append(rows[:, : plane.width * -(-component.bits // 8)].tobytes())
  return b"".join(parts)


def _inside_packet(path: str, position: int) -> bool:
  """Whether an MPEG program stream ends inside a packet; packets are read from `position` on."""
  size = os.path.getsize(path)
  with open(path, "rb") as file:
    while position < size:
      file.seek(position)
      head = file.read(14)
      if head[:3] != b"\0\0\1"[: len(head)] or len(head) > 3 and head[3] < 0xB9:
        return False  # not a packet: padding
      if len(head) < 4:
        return True
      if head[3] == 0xB9:
        length = 4
      elif head[3] == 0xBA:
        length = (
          12
          if len(head) > 4 and head[4] >> 4 == 2
          else 14 + (head[13] & 7 if len(head) == 14 else 0)
        )
      else:
        length = 6 + int.from_bytes(head[4:6], "big")
      position += length
  return position > size
