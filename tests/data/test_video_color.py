"""Videos come out upright, in their own shape and in their own colors."""

import fractions
import pathlib

import av
import numpy as np
import pytest

from como_jax.data import video, video_color
from como_jax.data.sources.options import SourceOptions
from tests.data import makers
from tests.data.test_video import KEEP, shown

CLOSE = 4  # levels


def first(path, geometry=KEEP, **arguments):
  return next(video.read(str(path), geometry, **arguments))[1]


def tag(matrix=2, full=None, primaries=2, transfer=2):
  def setup(stream):
    context = stream.codec_context
    context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
    if full is not None:
      context.color_range = 2 if full else 1

  return setup


# --------------------------------------------------------------------------------------------------
# and shape


SIGNS = [(x, y) for x in (1, -1) for y in (1, -1)]
MATRICES = [(x, 0, 0, y) for x, y in SIGNS] + [(0, y, x, 0) for x, y in SIGNS]  # a, b, c, d


@pytest.mark.parametrize("matrix", MATRICES)
def test_the_display_matrix_is_honored_turned_and_mirrored(tmp_path, matrix):
  a, b, c, d = matrix
  upright = makers.cornered()
  height, width = upright.shape[:2]
  # The stored pixel (x, y) is shown at (a x + c y, b x + d y): store each shown pixel where it
  # comes from.
  stored = np.empty((height, width, 3) if a else (width, height, 3), np.uint8)
  for y in range(stored.shape[0]):
    for x in range(stored.shape[1]):
      stored[y, x] = upright[(b * x + d * y) % height, (a * x + c * y) % width]
  one = 1 << 16

  def turn(stream):
    stream.set_display_matrix([a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30])

  path = makers.write_video(
    tmp_path / "a.mp4", [stored] * 2, pix_fmt="yuv444p", options={"crf": "4"}, setup=turn
  )
  for geometry in (KEEP, video.Geometry(32), video.Geometry(32, "crop"), video.Geometry(64, "pad")):
    image = first(path, geometry)
    assert image.shape[:2] == ((48, 64) if not geometry.size else (geometry.size,) * 2)
    image = image[8:56] if geometry.mode == "pad" else image
    np.testing.assert_allclose(makers.corners(image), makers.CORNERS, atol=CLOSE)


def test_an_odd_angle_becomes_the_nearest_right_one():
  quarter = np.array([0, 1, 0, -1, 0, 0, 0, 0, 1], np.int32) * 65536
  assert video_color.orientation(quarter) == (True, False, True, True)
  odd = 65536 * np.array([np.sin(0.2), np.cos(0.2), 0, -np.cos(0.2), np.sin(0.2), 0, 0, 0, 1])
  assert video_color.orientation(np.rint(odd).astype(np.int32)) == (True, False, True, False)
  assert video_color.orientation(np.zeros(9, np.int32)) == (False, False, False, True)


def test_pixels_that_are_not_square(tmp_path):
  def wide(stream):
    stream.codec_context.sample_aspect_ratio = fractions.Fraction(2, 1)

  image = np.full((32, 32, 3), 200, np.uint8)
  image[:, :8] = 0
  path = makers.write_video(tmp_path / "a.mp4", [image], setup=wide)  # shown 64 wide and 32 high
  notes: list[str] = []
  assert first(path, notes=notes).shape == (32, 32, 3)
  assert notes == ["a.mp4: pixels are 2 times as wide as high and were kept as they are stored"]
  padded = first(path, video.Geometry(32, "pad"), notes=(told := []))
  assert told == []
  # black above and below
  assert padded[[4, 28], 20].max() < 20 and padded[[10, 22], 20].min() > 180
  # the dark quarter is cropped away
  assert first(path, video.Geometry(32, "crop"))[:, 2].min() > 180
  assert first(path, video.Geometry(32))[16, 2].max() < 40
  one = 1 << 16

  def wide_and_turned(stream):
    wide(stream)
    stream.set_display_matrix([0, one, 0, -one, 0, 0, 0, 0, 1 << 30])

  image[:] = 200
  # shown 32 wide and 64 high
  path = makers.write_video(tmp_path / "b.mp4", [image], setup=wide_and_turned)
  padded = first(path, video.Geometry(32, "pad"))
  assert padded[16, [4, 28]].max() < 20 and padded[[2, 30], 16].min() > 180


def test_pixels_of_a_shape_that_no_camera_has(tmp_path):
  def wrong(stream):
    stream.codec_context.sample_aspect_ratio = fractions.Fraction(6, 1)

  notes: list[str] = []
  path = makers.write_video(tmp_path / "a.mp4", [np.full((32, 32, 3), 200, np.uint8)], setup=wrong)
  assert first(path, video.Geometry(32, "pad"), notes=notes)[2].min() > 180  # no bars
  assert notes == [
    "a.mp4: pixels 6 times as wide as high are not believed: square ones were assumed"
  ]


def test_a_size_that_changes(tmp_path):
  sizes = ((48, 64), (32, 32))
  parts = [
    makers.write_video(tmp_path / f"{size}.h264", [makers.picture(3, *size)] * 4) for size in sizes
  ]
  (tmp_path / "a.h264").write_bytes(b"".join(pathlib.Path(part).read_bytes() for part in parts))
  with pytest.raises(video.UnreadableError, match="frame size changes from 64x48 to 32x32"):
    shown(tmp_path / "a.h264")
  _, numbers, notes = shown(tmp_path / "a.h264", video.Geometry(32))
  assert numbers == [3] * 8
  assert (
    "the frame size changes from 64x48 to 32x32 pixels; all frames were scaled to one size" in notes
  )


# --------------------------------------------------------------------------------------------------
# color


X265_FRAMES = 4  # x265 sometimes gives nothing that can be written for a video of one frame
SPACES = {1: "ITU709", 5: "ITU601", 9: "BT2020"}


@pytest.mark.parametrize("matrix", SPACES)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p10le", "yuv444p12le"])
def test_the_streams_own_matrix_and_range(tmp_path, matrix, full, pix_fmt):
  image = av.VideoFrame.from_ndarray(makers.cornered(), format="rgb24").reformat(
    format=pix_fmt, dst_colorspace=SPACES[matrix], dst_color_range="JPEG" if full else "MPEG"
  )
  codec = "libx264" if pix_fmt == "yuv444p" else "libx265"
  options = {"crf": "4"} if codec == "libx264" else {"x265-params": "log-level=none:crf=4"}
  path = makers.write_video(
    tmp_path / "a.mp4",
    [image] * X265_FRAMES,
    codec=codec,
    pix_fmt=pix_fmt,
    options=options,
    setup=tag(matrix, full),
  )
  np.testing.assert_allclose(makers.corners(first(path)), makers.CORNERS, atol=CLOSE)


@pytest.mark.parametrize(
  "size,space", [((96, 128), "ITU601"), ((720, 960), "ITU709"), ((544, 1280), "ITU709")]
)
def test_a_matrix_that_is_not_stated_is_guessed_from_the_size(tmp_path, size, space):
  image = av.VideoFrame.from_ndarray(makers.cornered(*size), format="rgb24").reformat(
    format="yuv444p", dst_colorspace=space
  )
  image.colorspace = 2
  options = {"crf": "4", "preset": "ultrafast"}
  path = makers.write_video(
    tmp_path / "a.mp4", [image], pix_fmt="yuv444p", options=options, setup=tag()
  )
  np.testing.assert_allclose(makers.corners(first(path)), makers.CORNERS, atol=CLOSE)


def test_tables_videos_and_our_own_blobs_are_bt601_at_any_size(tmp_path):
  image = makers.cornered(720, 960)
  options = {"crf": "4", "preset": "ultrafast"}
  # as LeRobot's tools do
  path = makers.write_video(tmp_path / "a.mp4", [image], pix_fmt="yuv444p", options=options)
  np.testing.assert_allclose(
    makers.corners(next(video.read_at(path, [0.0], KEEP))), makers.CORNERS, atol=CLOSE
  )
  encoder = video.H264Encoder(4)
  encoder.add(image)
  blob = encoder.finish()
  np.testing.assert_allclose(
    makers.corners(video.decode_h264(blob, [0])[0]), makers.CORNERS, atol=CLOSE
  )
  (tmp_path / "film.mp4").write_bytes(blob)  # films of rollouts are such blobs
  np.testing.assert_allclose(
    makers.corners(first(tmp_path / "film.mp4")), makers.CORNERS, atol=CLOSE
  )


def encode_hdr(image, transfer):
  """8-bit RGB, white at 203 cd/m2, as an HDR signal in BT.2020, uint16 [H, W, 3]."""
  to_bt2020 = np.array(
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
  )
  light = 203 * (image / 255) ** 2.4 @ to_bt2020.T
  if transfer == 16:
    power = (light / 10000) ** 0.1593017578125
    signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
  else:
    luma = np.maximum(light @ [0.2627, 0.6780, 0.0593], 1e-6) / 1000
    scene = light / 1000 * (luma ** (1 / 1.2 - 1))[..., None]
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)
  return np.rint(np.clip(signal, 0, 1) * 65535).astype(np.uint16)


def write_hdr(path, image, transfer):
  frame = av.VideoFrame.from_ndarray(encode_hdr(image, transfer), format="rgb48le").reformat(
    format="yuv444p10le", dst_colorspace="BT2020", dst_color_range="MPEG"
  )
  options = {"x265-params": "log-level=none:crf=4"}
  setup = tag(9, False, 9, transfer)
  return makers.write_video(
    path,
    [frame] * X265_FRAMES,
    codec="libx265",
    pix_fmt="yuv444p10le",
    options=options,
    setup=setup,
  )


@pytest.mark.parametrize("transfer,name", [(16, "PQ"), (18, "HLG")])
def test_hdr_is_tone_mapped_and_named(tmp_path, transfer, name):
  path = write_hdr(tmp_path / "a.mp4", makers.cornered(), transfer)
  notes = []
  image = next(video.read(path, KEEP, notes=notes))[1]
  np.testing.assert_allclose(makers.corners(image), makers.CORNERS, atol=6)
  assert len(notes) == 1 and notes[0].startswith(
    f"a.mp4: high dynamic range, transfer function {name}"
  )
  assert "tone-mapped" in notes[0]
  notes = []
  kept = next(video.read(path, KEEP, notes=notes, options=SourceOptions(hdr="keep")))[1]
  signal = encode_hdr(makers.CORNERS, transfer) / 257
  np.testing.assert_allclose(makers.corners(kept), signal, atol=CLOSE)
  assert "kept as it is" in notes[0] and name in notes[0]


def test_highlights_are_compressed_and_keep_their_order():
  tone_map = video_color.ToneMap(16, 9)
  gray = np.repeat(np.arange(0, 65281, 64, np.uint16)[:, None], 3, 1)  # 0 to 10,000 cd/m2
  levels = tone_map(gray).astype(int)
  assert np.ptp(levels, axis=1).max() <= 1 and np.all(np.diff(levels[:, 1]) >= 0)
  white = round(65280 * 0.5807)  # 203 cd/m2
  assert abs(tone_map(np.full((1, 3), white, np.uint16))[0, 0] - 244) <= 1
  assert levels[-1].min() == 255 and levels[0].max() == 0


@pytest.mark.parametrize(
  "pix_fmt,depth", [("gray16le", 16), ("gray12le", 12), ("gbrp12le", 12), ("rgb48le", 16)]
)
def test_deep_pixels_are_scaled_and_not_clipped(tmp_path, pix_fmt, depth):
  levels = np.linspace(0, 2**depth - 1, 64).astype(np.uint16)
  ramp = np.broadcast_to(levels, (48, 64))
  if not pix_fmt.startswith("gray"):
    ramp = np.repeat(ramp[..., None], 3, 2)
  frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(ramp), format=pix_fmt)
  path = makers.write_video(
    tmp_path / "a.mkv", [frame], codec="ffv1", pix_fmt=pix_fmt, options={"level": "3"}
  )
  notes: list[str] = []
  image = first(path, notes=notes)
  np.testing.assert_allclose(
    image[24], np.repeat(levels[:, None], 3, 1) / (2**depth - 1) * 255, atol=1.5
  )
  gray = f"a.mkv: gray pictures of {depth} bits were scaled to 8 bits, as by a player"
  assert [note for note in notes if "bits" in note] == [gray] * pix_fmt.startswith("gray")


def test_what_is_transparent_is_black(tmp_path):
  image = np.full((48, 64, 4), 200, np.uint8)
  image[:, :20, 3], image[:, 20:40, 3], image[:, 40:, 3] = 0, 128, 255
  frame = av.VideoFrame.from_ndarray(image, format="rgba")
  options = {"compression_level": "1"}
  path = makers.write_video(
    tmp_path / "a.mov", [frame], codec="png", pix_fmt="rgba", options=options
  )
  assert first(path)[24, [10, 30, 50], 0].tolist() == [0, 100, 200]
