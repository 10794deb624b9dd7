"""Containers: the right stream, repaired time stamps, and no damage that passes."""

import fractions
from types import SimpleNamespace

import av
import numpy as np
import pytest

from como_jax.data import ffmpeg_log, video, video_stream
from tests.data import makers
from tests.data.test_video import KEEP, shown


def stamped(*stamps):
  """Frames with these time stamps in ms -> (times, notes)."""
  stream = SimpleNamespace(
    time_base=fractions.Fraction(1, 1000), guessed_rate=10, average_rate=10,
    codec_context=SimpleNamespace(framerate=None),
  )
  notes = []
  frames = [SimpleNamespace(pts=stamp) for stamp in stamps]
  out = list(video_stream._timed(iter(frames), stream, None, notes))
  assert [frame for _, frame in out] == frames
  return [round(seconds, 6) for seconds, _ in out], notes


def test_missing_and_wrong_time_stamps():
  one = (
    "{} frames without a time stamp and {} whose time stamp does not increase were placed evenly between their "
    "neighbors"
  )
  assert stamped(50, 150, 250) == ([0, 0.1, 0.2], [])
  assert stamped(0, None, None, 300) == ([0, 0.1, 0.2, 0.3], [one.format(2, 0)])
  assert stamped(0, 100, 100, 200) == ([0, 0.1, 0.15, 0.2], [one.format(0, 1)])
  assert stamped(0, 100, 60, 200) == ([0, 0.1, 0.15, 0.2], [one.format(0, 1)])
  assert stamped(None, 100, 300) == ([0, 0.1, 0.3], [one.format(1, 0)])
  assert stamped(0, 200, None) == ([0, 0.2, 0.4], [one.format(1, 0)])
  times, notes = stamped(*[None] * 12)
  assert times == [round(0.1 * t, 6) for t in range(12)] and "10 frames a second were assumed" in notes[0]
  with pytest.raises(video.Unreadable, match="go back from 0.900 s to 0.080 s at frame 18"):
    stamped(*range(0, 1000, 100), *range(0, 100, 10))


def write_two(path, *, cover=False):
  """Small pictures of number 5, and large ones of number 1 (2 of them as a cover)."""
  with av.open(str(path), "w") as container:
    large = container.add_stream("mjpeg" if cover else "libx264", rate=10)
    large.height, large.width, large.pix_fmt = 96, 128, "yuvj420p" if cover else "yuv420p"
    if cover:
      large.disposition = av.stream.Disposition.attached_pic
    small = container.add_stream("libx264", rate=10)
    small.height, small.width, small.pix_fmt = 48, 64, "yuv420p"
    for t in range(4):
      for stream, number, count in ((large, 1, 1 if cover else 4), (small, 5, 4)):
        if t < count:
          frame = av.VideoFrame.from_ndarray(makers.picture(number, stream.height, stream.width), format="rgb24")
          frame.pts = t
          container.mux(stream.encode(frame))
    container.mux(small.encode(None))
    if not cover:
      container.mux(large.encode(None))
  return str(path)


def test_the_best_stream_of_a_file(tmp_path):
  _, numbers, notes = shown(write_two(tmp_path / "cover.mp4", cover=True))
  assert numbers == [5] * 4 and not notes
  _, numbers, notes = shown(write_two(tmp_path / "two.mp4"))
  assert numbers == [1] * 4 and notes == ["2 video streams: number 0 (128x96 pixels) was read"]


def fake_stream(index, width, disposition):
  return SimpleNamespace(index=index, width=width, height=10, disposition=disposition, codec_context=object())


def test_covers_are_no_videos_and_the_default_stream_comes_first():
  flags = av.stream.Disposition
  small, large = fake_stream(0, 10, flags.default), fake_stream(1, 90, flags(0))
  cover = fake_stream(2, 500, flags.default | flags.attached_pic)
  for streams, expected in (((small, large, cover), small), ((large, cover), large), ((large, large), large)):
    container = SimpleNamespace(streams=SimpleNamespace(video=list(streams)))
    assert video_stream.best_stream(container) is expected
  with pytest.raises(video.Unreadable, match="only a cover picture"):
    video_stream.best_stream(SimpleNamespace(streams=SimpleNamespace(video=[cover])))


def test_one_frame_and_none(tmp_path):
  assert shown(makers.write_video(tmp_path / "a.mp4", 1))[:2] == ([0.0], [0])
  path = makers.write_video(tmp_path / "b.mkv", 3)
  with av.open(path) as container:
    position = next(packet.pos for packet in container.demux(video=0))
  data = open(path, "rb").read()
  open(path, "wb").write(data[:position])
  with pytest.raises(video.Unreadable, match="holds no frame|not a readable"):
    shown(path)
  with makers.av.open(str(tmp_path / "sound.mp4"), "w") as container:
    sound = container.add_stream("aac", rate=48000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts = 48000, 0
    container.mux(sound.encode(frame))
    container.mux(sound.encode(None))
  with pytest.raises(video.Unreadable, match="no video stream"):
    video.probe(str(tmp_path / "sound.mp4"))


def test_interlaced_pictures_are_noted(tmp_path):
  options = {"flags": "+ildct+ilme", "b": "9000000"}
  path = makers.write_video(tmp_path / "a.ts", makers.noise(3), codec="mpeg2video", options=options)
  assert shown(path)[2] == ["interlaced: both fields of a frame were kept as one picture"]


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
  makers.damaged_files(tmp_path / "bad")
  with pytest.raises(video.Unreadable, match=reason):
    list(video.read(str(tmp_path / "bad" / name), KEEP))


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4", "a.avi", "a.flv"])
def test_a_cut_file_is_called_truncated(tmp_path, name):
  """Also where the pictures start late, so that the declared end is not the length."""
  codec = {"a.webm": "libvpx", "a.avi": "mpeg4"}.get(name, "libx264")
  if name in ("a.mkv", "a.webm"):
    path = makers.with_sound(tmp_path / name, 60, late=1.0, codec=codec)
  else:
    front = {"movflags": "faststart"} if name == "a.mp4" else None
    path = makers.write_video(tmp_path / name, makers.noise(40), codec=codec, container=front)
  data = open(path, "rb").read()
  open(path, "wb").write(data[: len(data) * 8 // 10])
  with pytest.raises(video.Unreadable, match="^truncated"):
    shown(path)


@pytest.mark.parametrize(
  "name,codec,pix_fmt,width",
  [
    ("a.mp4", "libx264", "yuv420p", 30),  # conceals, and marks the picture
    ("a.mp4", "mpeg4", "yuv420p", 30),
    ("a.ts", "mpeg2video", "yuv420p", 30),
    ("a.avi", "mjpeg", "yuvj420p", 30),  # goes on unless it is told to fail
    ("a.mkv", "ffv1", "yuv420p", 1),  # only reports it
    ("a.mp4", "libx265", "yuv420p", 1),  # compares each picture with a sum in the stream if it is told to
  ],
)
def test_damage_in_the_middle_is_refused(tmp_path, name, codec, pix_fmt, width):
  options = {
    "ffv1": {"level": "3", "slicecrc": "1"}, "libx264": {"crf": "10"}, "libx265": {"x265-params": "log-level=none:hash=1"}
  }.get(codec)
  path = makers.write_video(tmp_path / name, makers.noise(20), codec=codec, pix_fmt=pix_fmt, options=options)
  with av.open(path) as container:
    packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
  data = bytearray(open(path, "rb").read())
  at = packets[9][0] + packets[9][1] // 2
  for i in range(width):
    data[at + i] ^= 0x04 if width == 1 else 0xFF
  open(path, "wb").write(data)
  with pytest.raises(video.Unreadable, match="damaged|decoding failed"):
    shown(path)


def test_what_ffmpeg_reports_again_is_heard_again():
  before = av.logging.get_level(), av.logging.get_skip_repeated()
  assert before == (None, True)  # PyAV leaves out what was said last
  for _ in range(3):
    with ffmpeg_log.errors() as log:
      assert (av.logging.get_level(), av.logging.get_skip_repeated()) == (av.logging.ERROR, False)
      av.logging.log(av.logging.ERROR, "matroska,webm", "bytes were skipped")
    assert ffmpeg_log.damage(log) == "bytes were skipped"
  assert (av.logging.get_level(), av.logging.get_skip_repeated()) == before  # of the process


def test_a_packet_without_a_picture_is_a_loss(tmp_path):
  options = {"x265-params": "log-level=none:bframes=0"}
  path = makers.write_video(tmp_path / "a.mp4", 20, codec="libx265", options=options)
  with av.open(path) as container:
    packets = [packet.pos for packet in container.demux(video=0) if packet.size]
  data = bytearray(open(path, "rb").read())
  data[packets[19] + 4] = 41 << 1  # a kind of unit that decoders pass over
  open(path, "wb").write(data)
  with pytest.raises(video.Unreadable, match="damaged: 1 of 20 packets gave no picture"):
    shown(path)


def test_frames_that_an_avi_has_lost(tmp_path):
  path = makers.write_video(tmp_path / "a.avi", makers.noise(20), codec="mjpeg", pix_fmt="yuvj420p")
  with av.open(path) as container:
    packets = [packet.pos for packet in container.demux(video=0) if packet.size]
  data = open(path, "rb").read()
  open(path, "wb").write(data[: packets[5]] + data[packets[10] :])
  with pytest.raises(video.Unreadable, match="^truncated: 20 frames declared, 15 in the file"):
    shown(path)
