"""Converts decoded frames to the pictures that a player shows.

It handles orientation, pixel aspect, color and brightness. Colors are converted with the matrix and
range that the stream declares. If a stream declares no matrix, it is guessed from the primaries, or
else from the size, as players do: BT.709 from 720 lines or 1280 columns on, BT.601 below. Samples
of more than 8 bits are scaled by their bit depth. High dynamic range (PQ and HLG) is tone-mapped to
SDR, see `ToneMap`. The primaries of SDR pictures in BT.2020 or BT.601 are not converted.
"""

from __future__ import annotations  # PyAV is imported at its first use

import numpy as np

from como_jax.data import images
from como_jax.data.pyav import Colorspace, VideoReformatter, av

# Numbers of ITU-T H.273, which FFmpeg uses for a frame's matrix, transfer function and primaries.
_UNSPECIFIED = 2
_MATRIX_OF_PRIMARIES = {1: "ITU709", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020"}
_HDR = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
_BT2020_TO_BT709 = np.array(
  [
    [1.660491, -0.587641, -0.072850],
    [-0.124550, 1.132900, -0.008349],
    [-0.018151, -0.100579, 1.118730],
  ],
  np.float32,
)
_P3_TO_BT709 = np.array(
  [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]],
  np.float32,
)
# By primaries. HDR with other or no primaries is treated as BT.2020.
_TO_BT709 = {1: np.eye(3, dtype=np.float32), 12: _P3_TO_BT709}
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
# FFmpeg's 16-bit RGB stores an 8-bit level v as 256 v. In files that are 16-bit RGB themselves,
# white is 65535.
_TO_8_BIT = np.minimum((np.arange(65536) + 128) >> 8, 255).astype(np.uint8)
_PLAUSIBLE_ASPECT = (0.2, 5.0)  # of pixels; other values are errors in a header


def orientation(matrix: np.ndarray) -> tuple[bool, bool, bool, bool]:
  """The rotation and flips of a display matrix.

  Args:
    matrix: int32 [9], (a, b, u, c, d, v, x, y, w): pixel (x, y) is shown at (a x + c y, b x + d y),
      y downward.

  Returns:
    (transpose, flip rows, flip columns, exact), to be applied in this order. `exact` is False when
    the rotation is not a right angle; the nearest right angle is then used.
  """
  a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
  straight, turned = abs(a) + abs(d), abs(b) + abs(c)
  if not straight and not turned:
    return False, False, False, True
  exact = min(straight, turned) < 0.01 * max(straight, turned)
  if straight >= turned:
    return False, d < 0, a < 0, exact
  return True, b < 0, c < 0, exact


class ToneMap:
  """Tone-maps PQ or HLG to SDR, [..., 3] uint16 to uint8.

  The absolute brightness (HLG on a display of 1000 cd/m2) is divided by that of reference white,
  203 cd/m2 (BT.2408). The primaries are converted to BT.709. Brightness below 80 % of reference
  white does not change, so SDR that was converted to an HDR signal is restored. Above it, x becomes
  0.8 + 0.2 t / (1 + t) with t = (x - 0.8) / 0.2. Here x is the largest of the three colors, and all
  three are scaled by the same factor, which keeps the hue. Reference white becomes level 244, and
  1000 cd/m2 becomes 254. Levels are encoded with the exponent 2.4 of BT.1886.
  """

  KNEE, WHITE, HLG_PEAK = 0.8, 203.0, 1000.0

  def __init__(self, transfer: int, primaries: int):
    self._hlg = transfer == 18
    self._to_bt709 = _TO_BT709.get(primaries, _BT2020_TO_BT709).T.copy()
    signal = np.minimum(np.arange(65536) / 65280.0, 1.0)
    self._linear = (
      self._hlg_scene(signal) if self._hlg else self._pq_light(signal) / self.WHITE
    ).astype(np.float32)
    levels = 255 * (np.arange(65536) / 65535) ** (1 / 2.4)
    self._encode = np.rint(levels).astype(np.uint8)

  @staticmethod
  def _pq_light(signal: np.ndarray) -> np.ndarray:
    """Converts a PQ signal 0..1 to cd/m2."""
    root = signal ** (32 / 2523)
    return 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (
      8192 / 1305
    )

  @staticmethod
  def _hlg_scene(signal: np.ndarray) -> np.ndarray:
    """Converts an HLG signal 0..1 to scene light 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Tone-maps an image [..., 3] uint16 to uint8."""
    light = self._linear[image]
    if self._hlg:
      brightness = np.maximum(light @ _BT2020_LUMA, 1e-9)
      light = light * (self.HLG_PEAK / self.WHITE * brightness**0.2)[..., None]
    light = np.maximum(light @ self._to_bt709, 0)
    peak = light.max(-1, keepdims=True)
    above = np.maximum(peak - self.KNEE, 0) / (1 - self.KNEE)
    mapped = np.minimum(peak, self.KNEE) + (1 - self.KNEE) * above / (1 + above)
    light = light * (mapped / np.maximum(peak, 1e-9))
    return self._encode[np.rint(light * 65535).astype(np.uint16)]


class Converter:
  """Converts the frames of one stream to upright RGB at the stored geometry.

  It uses one scaler for the whole stream.

  Args:
    geometry: size of the result.
    pixel_aspect: width / height of a pixel.
    notes: receives one line for each remark about the stream, once.
    label: the file's name, for notes.
    hdr: "tonemap" or "keep", see `SourceOptions`.
    untagged: matrix of streams that declare none, a `Colorspace` of PyAV; "" = guess it from the
      primaries and the size.
  """

  def __init__(
    self,
    geometry: images.Geometry,
    *,
    pixel_aspect: float = 1.0,
    notes: list[str] | None = None,
    label: str = "video",
    hdr: str = "tonemap",
    untagged: str = "",
  ):
    self._geometry, self._hdr, self._untagged = geometry, hdr, untagged
    plausible = _PLAUSIBLE_ASPECT[0] <= pixel_aspect <= _PLAUSIBLE_ASPECT[1]
    self._aspect = pixel_aspect if plausible else 1.0
    self._notes, self._label = [] if notes is None else notes, label
    if not plausible:
      self._add_note(
        f"{label}: pixels {pixel_aspect:.4g} times as wide as high are not believed: square "
        "ones were assumed"
      )
    elif abs(pixel_aspect - 1) > 0.01 and not geometry.size:
      self._add_note(
        f"{label}: pixels are {pixel_aspect:.4g} times as wide as high and were kept as they "
        "are stored"
      )
    self._scaler = VideoReformatter()
    self._tone_maps: dict[tuple[int, int], ToneMap] = {}
    self._formats: dict[str, tuple[bool, bool]] = {}
    self._size: tuple[int, int] | None = None

  def __call__(self, frame: av.VideoFrame) -> np.ndarray:
    """Converts a frame to uint8 [H, W, 3].

    Raises:
      images.UnreadableError: the frame size changes although the geometry keeps the source's size,
        or the pixels cannot be converted.
    """
    try:
      return self._convert(frame)
    except images.decode_errors() as error:
      raise images.UnreadableError(
        f"pixels of format {frame.format.name!r} cannot be converted ({error})"
      ) from error

  def _convert(self, frame: av.VideoFrame) -> np.ndarray:
    self._check(frame)
    transpose, flip_rows, flip_columns = self._orientation(frame)
    height, width, aspect = frame.height, frame.width, self._aspect
    if transpose:
      height, width, aspect = width, height, 1 / aspect
    inner = self._geometry.inner(height, width, aspect)
    height, width = self._geometry.outer(*inner)
    if transpose:
      height, width = width, height
    image = self._rgb(frame, height, width)
    if transpose:
      image = image.swapaxes(0, 1)
    image = image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.ascontiguousarray(self._geometry.finish(self._geometry.without_bars(image, *inner)))

  def _add_note(self, text: str) -> None:
    if text not in self._notes:
      self._notes.append(text)

  def _check(self, frame: av.VideoFrame) -> None:
    """Adds a note when the size of a frame changes or when it is interlaced."""
    size = (frame.height, frame.width)
    if self._size and size != self._size:
      change = "the frame size changes from {}x{} to {}x{} pixels".format(
        *self._size[::-1], *size[::-1]
      )
      if not self._geometry.size:
        raise images.UnreadableError(change)
      self._add_note(f"{change}; all frames were scaled to one size")
    self._size = size
    if frame.interlaced_frame:
      self._add_note("interlaced: both fields of a frame were kept as one picture")

  def _orientation(self, frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
      return False, False, False
    matrix = np.frombuffer(bytes(side_data), np.int32, 9)
    transpose, flip_rows, flip_columns, exact = orientation(matrix)
    if not exact:
      self._add_note("the display matrix is not a right angle: the nearest right angle was taken")
    return transpose, flip_rows, flip_columns

  def _rgb(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """Converts a frame to RGB [height, width, 3], without its display matrix."""
    name = frame.format.name
    if name not in self._formats:
      parts = frame.format.components
      self._formats[name] = (
        any(part.bits > 8 for part in parts),
        frame.format.has_palette or any(part.is_alpha for part in parts),
      )
      if images.is_deep_gray(name):
        self._add_note(
          f"{self._label}: gray pictures of {parts[0].bits} bits were scaled to 8 bits, as by a "
          "player"
        )
    deep, alpha = self._formats[name]
    tone_map = self._tone_map(frame)
    deep = deep or tone_map is not None
    pixel_format = ("rgba" if alpha else "rgb") + (
      "64le" if deep and alpha else "48le" if deep else "" if alpha else "24"
    )
    image = self._scaled(frame, height, width, pixel_format)
    if tone_map:
      color = tone_map(image[..., :3])
    else:
      color = _TO_8_BIT[image[..., :3]] if deep else image[..., :3]
    if not alpha:
      return color
    opacity = (_TO_8_BIT[image[..., 3:]] if deep else image[..., 3:]).astype(np.uint16)
    return ((color * opacity + 127) // 255).astype(np.uint8)

  def _scaled(self, frame: av.VideoFrame, height: int, width: int, pixel_format: str) -> np.ndarray:
    """Scales a frame and converts it to a pixel format of FFmpeg, [height, width, channels]."""
    return self._scaler.reformat(
      frame,
      width=width,
      height=height,
      format=pixel_format,
      src_colorspace=self._matrix(frame),
      interpolation="AREA",
      threads=1,
    ).to_ndarray()

  def _matrix(self, frame: av.VideoFrame) -> Colorspace | None:
    """The color matrix to assume, None when the frame declares it."""
    if frame.colorspace != _UNSPECIFIED:
      return None
    if self._untagged:
      return Colorspace[self._untagged]
    guess = "ITU709" if frame.height >= 720 or frame.width >= 1280 else "ITU601"
    return Colorspace[_MATRIX_OF_PRIMARIES.get(int(frame.color_primaries), guess)]

  def _tone_map(self, frame: av.VideoFrame) -> ToneMap | None:
    transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
    if transfer not in _HDR:
      return None
    named = f"{self._label}: high dynamic range, transfer function {_HDR[transfer]}"
    if self._hdr == "keep":
      self._add_note(f"{named}: kept as it is, not tone-mapped")
      return None
    self._add_note(f"{named}: tone-mapped to SDR")
    if (transfer, primaries) not in self._tone_maps:
      self._tone_maps[transfer, primaries] = ToneMap(transfer, primaries)
    return self._tone_maps[transfer, primaries]
