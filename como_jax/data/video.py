"""Video and image codecs: stream frames out of any file PyAV reads, resize, and the two encodings our shards use.

Frames are uint8 RGB [H, W, 3]. Everything streams: an hour of video never sits decoded in memory. A file is either read
to its end or refused (`Unreadable`); damaged or missing frames are never passed on in silence where the container lets
us notice.
"""

import dataclasses
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
import simplejpeg
from PIL import Image

# Everything PyAV, the file system and our own parsing raise on bad bytes.
DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, EOFError)
H264_RATE = 25  # frame number = pts * time base * rate; the true rate is in the clip's header


class Unreadable(Exception):
  """An episode that cannot be used; the text is the reason shown in the quarantine list."""


@dataclasses.dataclass(frozen=True)
class Geometry:
  """How source frames become stored frames.

  Attributes:
    size: side of the square result in pixels; 0 keeps the source's size.
    mode: "squash" (ignore the aspect ratio, as Moto does), "crop" (centre square) or "pad" (black borders).
  """

  size: int = 0
  mode: str = "squash"

  def inner(self, height: int, width: int) -> tuple[int, int]:
    """Size to scale to before `finish` crops or pads."""
    if not self.size:
      return height, width
    if self.mode == "squash":
      return self.size, self.size
    scale = self.size / (min(height, width) if self.mode == "crop" else max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))

  def finish(self, image: np.ndarray) -> np.ndarray:
    """Crops or pads a scaled image [h, w, 3] to the square."""
    if not self.size or self.mode == "squash":
      return image
    height, width = image.shape[:2]
    if self.mode == "crop":
      top, left = (height - self.size) // 2, (width - self.size) // 2
      return image[top : top + self.size, left : left + self.size]
    out = np.zeros((self.size, self.size, 3), np.uint8)
    top, left = (self.size - height) // 2, (self.size - width) // 2
    out[top : top + height, left : left + width] = image
    return out

  def apply(self, image: np.ndarray) -> np.ndarray:
    """A whole image [H, W, 3] to its stored form."""
    return self.finish(resize(image, *self.inner(*image.shape[:2])))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes [H, W, 3]: area average when shrinking (no aliasing), bicubic when growing."""
  if image.shape[:2] == (height, width):
    return image
  shrinking = height <= image.shape[0] and width <= image.shape[1]
  method = Image.Resampling.BOX if shrinking else Image.Resampling.BICUBIC
  return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), method))


DECODING = 2  # of stored frames into pixels: raise it when the same bytes begin to give others, 2 with `reduction`


def reduction(height: int, width: int, to_height: int, to_width: int) -> int:
  """How many times smaller a JPEG may be decoded that is then resized: 8, 4, 2, or 1 where it must be decoded whole.

  libjpeg then skips the details and averages blocks of pixels, about as `resize` does, as long as whole pixels are averaged: the sides
  must be multiples of that many times the target's. On frames of CALVIN and RT-1 (448 -> 224, 128 -> 64, 256 -> 64 px, quality 95) that
  was 2.2 to 2.6 times as fast as decoding whole and differed from it by 0.4 to 0.6 levels on average, 8 at most; quality 95 itself costs
  0.4 to 0.9, 9 at most. At other ratios (224 -> 64, 320 -> 64 px) the difference was 4, up to 107: those are decoded whole.
  With colour at half resolution (JPEG of other programs) the difference is 0.3 to 1.5, up to 56, and quality 95 costs 0.4 to 2.0, up to 55.
  """
  fits = (f for f in (8, 4, 2) if to_height > 0 and to_width > 0 and height % (f * to_height) == 0 and width % (f * to_width) == 0)
  return next(fits, 1)


class _Converter:
  """av.VideoFrame -> RGB at the stored geometry, upright; keeps one scaler for the whole stream."""

  def __init__(self, geometry: Geometry):
    self._geometry = geometry
    self._reformatter = av.video.reformatter.VideoReformatter()

  def __call__(self, frame: av.VideoFrame) -> np.ndarray:
    turns = round(frame.rotation / 90) % 4  # counter-clockwise quarter turns asked for by the display matrix
    sideways = turns % 2 == 1
    height, width = (frame.width, frame.height) if sideways else (frame.height, frame.width)
    height, width = self._geometry.inner(height, width)
    scaled = self._reformatter.reformat(
      frame,
      width=height if sideways else width,
      height=width if sideways else height,
      format="rgb24",
      interpolation="AREA",
    ).to_ndarray()
    return np.ascontiguousarray(self._geometry.finish(np.rot90(scaled, turns) if turns else scaled))


@dataclasses.dataclass(frozen=True)
class Info:
  """What a container says about its first video stream."""

  fps: float
  frames: int  # declared number of frames, 0 when the container does not say
  duration: float  # seconds, 0 when unknown
  codec: str
  height: int
  width: int


def _check_file(path: str) -> None:
  if not os.path.isfile(path):
    raise Unreadable("the file is missing")
  if not os.path.getsize(path):
    raise Unreadable("the file is empty")


def _reason(error: Exception) -> str:
  text = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return f"not a readable video ({text})"


def _info(container: av.container.InputContainer) -> tuple[av.VideoStream, Info]:
  if not container.streams.video:
    raise Unreadable("no video stream in the file")
  stream = container.streams.video[0]
  rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
  fps = next((rate for rate in rates if 0.1 <= rate <= 1000), 0.0)
  if not fps:
    raise Unreadable("the file does not state a frame rate")
  duration = 0.0
  if stream.duration and stream.time_base:
    duration = float(stream.duration * stream.time_base)
  elif "DURATION" in stream.metadata:  # Matroska and WebM: "00:00:03.250000000"
    hours, minutes, seconds = stream.metadata["DURATION"].split(":")
    duration = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
  elif container.duration and len(container.streams) == 1:
    duration = container.duration / av.time_base
  return stream, Info(fps, stream.frames, duration, stream.codec_context.name, stream.height, stream.width)


def probe(path: str) -> Info:
  """Reads the container's header. Raises `Unreadable`."""
  _check_file(path)
  try:
    with av.open(path, metadata_errors="ignore") as container:
      return _info(container)[1]
  except DECODE_ERRORS as error:
    raise Unreadable(_reason(error)) from error


def _decode(path: str, *, start: float | None = None) -> Iterator[tuple[float, av.VideoFrame]]:
  """(seconds since the stream's first frame, frame). With `start` it begins at the key frame before it; without, it
  checks that everything the container declares has arrived."""
  _check_file(path)
  decoded = packets = 0
  last = 0.0
  try:
    with av.open(path, metadata_errors="ignore") as container:
      stream, info = _info(container)
      stream.codec_context.thread_count = 1  # processes are the parallelism, and frame threads hide errors
      origin = stream.start_time or 0
      if start is not None and start > 0:
        container.seek(origin + int(start / stream.time_base), stream=stream)
      for packet in container.demux(stream):
        packets += bool(packet.size) and not packet.is_discard
        for frame in packet.decode():
          last = decoded / info.fps if frame.pts is None else float((frame.pts - origin) * frame.time_base)
          decoded += 1
          yield last, frame
  except DECODE_ERRORS as error:
    raise Unreadable(
      _reason(error) if not decoded else f"decoding failed after frame {decoded - 1} ({error})"
    ) from error
  if start is not None:
    return
  if not decoded:
    raise Unreadable("the file holds no frame")
  if info.frames and decoded >= info.frames - 2:
    return
  # An edit list may hide frames that are counted in the header: then the time must be covered and no packet lost.
  covered = last + 1 / info.fps >= info.duration - max(2.5 / info.fps, 0.1)
  if (info.frames and not info.duration) or not covered or packets - decoded > 2:
    declared = f"{info.frames} frames" if info.frames else f"{info.duration:.2f} s"
    raise Unreadable(f"truncated: {declared} declared, {decoded} frames ({last + 1 / info.fps:.2f} s) decoded")


def read(path: str, geometry: Geometry, *, notes: list[str] | None = None) -> Iterator[np.ndarray]:
  """All frames of a video in order, [H, W, 3].

  Args:
    path: any file PyAV reads.
    geometry: size of the result.
    notes: receives a line when the frame rate varies (the frames are kept as they are, at the nominal average rate).

  Raises:
    Unreadable: damaged, truncated or not a video; possibly only after some frames, which the caller must then discard.
  """
  convert = _Converter(geometry)
  before, shortest, longest = None, np.inf, 0.0
  for seconds, frame in _decode(path):
    if before is not None:
      shortest, longest = min(shortest, seconds - before), max(longest, seconds - before)
    before = seconds
    yield convert(frame)
  if notes is not None and longest > 1.5 * shortest + 2e-3:
    notes.append(
      f"variable frame rate: {1e3 * shortest:.0f} to {1e3 * longest:.0f} ms between frames, "
      f"treated as {probe(path).fps:.3f} frames a second"
    )


def read_at(
  path: str, times: Sequence[float], geometry: Geometry, *, fps: float, notes: list[str] | None = None
) -> Iterator[np.ndarray]:
  """The frame nearest to each of the times (seconds, not decreasing), [H, W, 3].

  A time further than half a frame from any frame is served by the nearest one and counted in `notes`.

  Raises:
    Unreadable: a time lies more than two frames from any frame (the video ends early), or decoding fails.
  """
  times = np.asarray(times, np.float64)
  if not len(times):
    return
  if np.any(np.diff(times) < 0):
    raise Unreadable("timestamps go backwards")
  convert = _Converter(geometry)
  stream = _decode(path, start=max(0.0, times[0] - 0.5 / fps))
  before, after = None, next(stream, None)
  shown, image, far = None, None, 0
  for t, target in enumerate(times):
    while after is not None and after[0] < target:
      before, after = after, next(stream, None)
    nearest = min(
      (one for one in (before, after) if one is not None), key=lambda one: abs(one[0] - target), default=None
    )
    if nearest is None or abs(nearest[0] - target) > 2.5 / fps:
      end = "nothing decoded" if nearest is None else f"nearest frame at {nearest[0]:.3f} s"
      raise Unreadable(
        f"no video frame for frame {t} of {len(times)} at {target:.3f} s ({end}): the video is too short"
      )
    far += abs(nearest[0] - target) > 0.5 / fps + 1e-4
    if nearest is not shown:
      shown, image = nearest, convert(nearest[1])
    yield image
  if far and notes is not None:
    notes.append(f"{far} of {len(times)} timestamps are further than half a frame from the nearest video frame")


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
  """JPEG of [H, W, 3] without colour subsampling (shards hold small images, where it shows)."""
  return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="444")


def decode_jpeg(data: bytes, out: np.ndarray | None = None, *, by: int = 1) -> np.ndarray:
  """[H / by, W / by, 3] from JPEG, in `out` if given; `by` is a `reduction`. Raises ValueError when the bytes are damaged or do not fit
  `out`."""
  height, width = (-(-side // by) for side in simplejpeg.decode_jpeg_header(data)[:2]) if by > 1 else (0, 0)
  image = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=height, min_width=width, buffer=out)
  if out is not None and image.shape != out.shape:
    raise ValueError(f"a frame of {image.shape[0]}x{image.shape[1]} pixels, expected {out.shape[0]}x{out.shape[1]}")
  return image


def decode_image(data: bytes, geometry: Geometry) -> np.ndarray:
  """The stored form [H, W, 3] of an image, from PNG, JPEG or whatever pillow reads; a JPEG is decoded smaller by its `reduction`."""
  image = Image.open(io.BytesIO(data))
  by = reduction(image.height, image.width, *geometry.inner(image.height, image.width))
  if by > 1:
    image.draft(None, (image.width // by, image.height // by))  # of libjpeg as well; nothing happens to other formats
  return geometry.apply(np.asarray(image.convert("RGB")))


class H264Encoder:
  """Frame by frame into one mp4 blob with a key frame every 10 frames and no B-frames: cheap to enter anywhere."""

  def __init__(self, quality: int, rate: int | Fraction = H264_RATE):
    self._buffer = io.BytesIO()
    self._container = av.open(self._buffer, mode="w", format="mp4", options={"fflags": "+bitexact"})
    self._quality, self._rate, self._stream, self.count = quality, rate, None, 0

  def add(self, image: np.ndarray) -> None:
    if self._stream is None:
      # One thread: x264's output depends on the number of threads.
      options = {"crf": str(self._quality), "g": "10", "bf": "0", "threads": "1", "preset": "medium"}
      self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
      self._stream.height, self._stream.width = image.shape[:2]
      odd = image.shape[0] % 2 or image.shape[1] % 2
      self._stream.pix_fmt = "yuv444p" if odd else "yuv420p"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame.pts, self.count = self.count, self.count + 1
    self._container.mux(self._stream.encode(frame))

  def finish(self) -> bytes:
    self._container.mux(self._stream.encode(None))
    self._container.close()
    return self._buffer.getvalue()


def decode_h264(blob: bytes, indices: Iterable[int]) -> dict[int, np.ndarray]:
  """Frames of an `H264Encoder` blob by number. Raises ValueError when one is missing."""
  wanted, found = sorted(set(indices)), {}
  convert = _Converter(Geometry())
  with av.open(io.BytesIO(blob)) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    position = -1
    for index in wanted:
      if index in found:
        continue
      if position < 0 or index - position > 10:  # further than a group of pictures: enter at the key frame before it
        container.seek(int(index / H264_RATE / stream.time_base), stream=stream)
      for frame in container.decode(stream):
        position = round(float(frame.pts * frame.time_base) * H264_RATE)
        if position in wanted:
          found[position] = convert(frame)
        if position >= index:
          break
      if index not in found:
        raise ValueError(f"frame {index} is missing in the H.264 data")
  return found


def decode_jpegs(blobs: Sequence[bytes], indices: Sequence[int], out: Sequence[np.ndarray], *, by: int = 1) -> Sequence[np.ndarray]:
  """Frames by number into `out`, n arrays [H / by, W / by, 3]. Raises `Unreadable` when the bytes are damaged."""
  try:
    for image, index in zip(out, indices, strict=True):
      decode_jpeg(blobs[index], image, by=by)
  except DECODE_ERRORS as error:
    raise Unreadable(f"damaged jpeg frame ({error})") from error
  return out
