"""Codecs, rotation, variable rates and damage."""

import numpy as np
import pytest

from como_jax.data import video
from tests.data import makers

KEEP = video.Geometry()


@pytest.mark.parametrize(
  "name,codec,pix_fmt",
  [
    ("a.mp4", "libx264", "yuv420p"),
    ("a.webm", "libvpx-vp9", "yuv420p"),
    ("a.mkv", "libx264", "yuv444p"),
    ("a.mov", "mpeg4", "yuv420p"),
    ("a.avi", "mpeg4", "yuv420p"),
    ("a.mpg", "mpeg2video", "yuv420p"),
    ("a.mp4", "libsvtav1", "yuv420p"),
  ],
)
def test_every_frame_in_order(tmp_path, name, codec, pix_fmt):
  path = makers.write_video(
    tmp_path / name, [makers.picture(t, 64, 64) for t in range(13)], fps=25, codec=codec, pix_fmt=pix_fmt
  )
  assert video.probe(path).fps == pytest.approx(25)
  frames = list(video.read(path, KEEP))
  assert [makers.number(frame) for frame in frames] == list(range(13))
  assert frames[0].shape == (64, 64, 3)


@pytest.mark.parametrize("mode,corner", [("squash", 255), ("crop", 255), ("pad", 0)])
def test_geometry(mode, corner):
  image = np.full((20, 40, 3), 255, np.uint8)
  out = video.Geometry(16, mode).apply(image)
  assert out.shape == (16, 16, 3) and out[8, 8, 0] == 255 and out[0, 0, 0] == corner


def test_shrinking_averages():
  stripes = np.zeros((32, 32, 3), np.uint8)
  stripes[:, ::2] = 200  # point sampling would give 0 or 200
  np.testing.assert_allclose(video.resize(stripes, 8, 8), 100, atol=1)


def test_rotation_metadata_is_honoured(tmp_path):
  image = np.zeros((48, 64, 3), np.uint8)
  image[:, :32] = 200  # bright on the left
  path = makers.write_video(tmp_path / "turned.mp4", [image] * 3)
  data = bytearray(open(path, "rb").read())
  at = data.index(b"tkhd") + 4 + 40  # version/flags 4, times and ids 20, reserved 8, layer to reserved 8
  matrix = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]  # a quarter turn clockwise, as phones write it
  data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
  open(path, "wb").write(data)
  for geometry, size in ((KEEP, (64, 48)), (video.Geometry(32), (32, 32))):
    frame = next(video.read(path, geometry))
    assert frame.shape == (*size, 3)
    assert frame[: size[0] // 4].mean() > 150 and frame[-size[0] // 4 :].mean() < 50  # what was left is now on top


def test_variable_rate_is_noted(tmp_path):
  path = makers.write_video(tmp_path / "vfr.mkv", 8, times=[0, 100, 200, 240, 280, 500, 600, 700])
  notes = []
  assert [makers.number(frame) for frame in video.read(path, KEEP, notes=notes)] == list(range(8))
  assert "variable frame rate: 40 to 220 ms" in notes[0]
  notes = []
  list(video.read(makers.write_video(tmp_path / "cfr.webm", 8, fps=30, codec="libvpx-vp9"), KEEP, notes=notes))
  assert not notes


@pytest.mark.parametrize("start", [0, 3, 17])
def test_read_at_takes_the_nearest_frames(tmp_path, start):
  path = makers.write_video(tmp_path / "a.mp4", 30, fps=10, options={"crf": "10", "g": "12"})
  times = (np.arange(start, start + 9) + 0.3) / 10
  assert [makers.number(frame) for frame in video.read_at(path, times, KEEP, fps=10)] == list(range(start, start + 9))


def test_read_at_counts_far_frames_and_refuses_a_short_video(tmp_path):
  path = makers.write_video(tmp_path / "a.mp4", 10, fps=10)
  notes = []
  frames = list(video.read_at(path, [0.8, 0.9, 1.0], KEEP, fps=10, notes=notes))
  assert [makers.number(frame) for frame in frames] == [8, 9, 9]
  assert notes == ["1 of 3 timestamps are further than half a frame from the nearest video frame"]
  with pytest.raises(video.Unreadable, match="too short"):
    list(video.read_at(path, np.arange(15) / 10, KEEP, fps=10))
  with pytest.raises(video.Unreadable, match="go backwards"):
    list(video.read_at(path, [0.2, 0.1], KEEP, fps=10))


def damaged_files(folder):
  """Empty, text, cut at the end (header lost), cut with the header in front (frames lost), cut WebM."""
  folder.mkdir(exist_ok=True)
  noise = list(np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8))
  whole = open(makers.write_video(folder / "x.mp4", noise), "rb").read()
  front = open(makers.write_video(folder / "y.mp4", noise, options={"movflags": "faststart", "crf": "10"}), "rb").read()
  webm = open(makers.write_video(folder / "z.webm", noise, codec="libvpx-vp9"), "rb").read()
  for name in ("x.mp4", "y.mp4", "z.webm"):
    (folder / name).unlink()
  (folder / "empty.mp4").write_bytes(b"")
  (folder / "text.mp4").write_text("this is not a video\n" * 50)
  (folder / "truncated.mp4").write_bytes(whole[: len(whole) * 7 // 10])
  (folder / "truncated_webm.webm").write_bytes(webm[: len(webm) // 2])
  (folder / "truncated_front.mp4").write_bytes(front[: len(front) // 2])


@pytest.mark.parametrize(
  "name,reason",
  [
    ("empty.mp4", "empty"),
    ("text.mp4", "not a readable video"),
    ("truncated.mp4", "not a readable video"),
    ("truncated_front.mp4", "truncated|decoding failed|not a readable"),
    ("truncated_webm.webm", "truncated|decoding failed|not a readable"),
    ("missing.mp4", "missing"),
  ],
)
def test_damage_is_unreadable(tmp_path, name, reason):
  damaged_files(tmp_path / "bad")
  with pytest.raises(video.Unreadable, match=reason):
    list(video.read(str(tmp_path / "bad" / name), KEEP))
