"""Videos: every frame with its time, from wherever a reader enters."""

import fractions
import pathlib

import av
import numpy as np
import pytest

from como_jax.data import video, video_stream
from tests.data import makers

KEEP = video.Geometry()


def shown(path, geometry=KEEP, **arguments):
  """(times, numbers of the pictures, notes) of a file."""
  notes = []
  frames = list(video.read(str(path), geometry, notes=notes, **arguments))
  return [seconds for seconds, _ in frames], [makers.number(image) for _, image in frames], notes


UNTIMED = "the file holds no time stamps: 25 frames a second were assumed, as its header says"


@pytest.mark.parametrize(
  "name,codec,pix_fmt,note",
  [
    ("a.mp4", "libx264", "yuv420p", None),
    ("a.webm", "libvpx-vp9", "yuv420p", None),
    ("a.mkv", "libx264", "yuv444p", None),
    ("a.mov", "mpeg4", "yuv420p", None),
    ("a.avi", "mpeg4", "yuv420p", None),
    ("b.avi", "libx264", "yuv420p", None),  # B-frames in a container that has no presentation times
    ("a.mpg", "mpeg2video", "yuv420p", None),
    ("a.ts", "libx264", "yuv420p", None),
    ("a.flv", "libx264", "yuv420p", None),
    ("a.gif", "gif", "rgb8", None),
    ("a.apng", "apng", "rgb24", None),
    ("a.ivf", "libvpx", "yuv420p", None),
    ("a.h264", "libx264", "yuv420p", UNTIMED),
    ("a.mp4", "libsvtav1", "yuv420p", None),
  ],
)
def test_every_frame_in_order_with_its_time(tmp_path, name, codec, pix_fmt, note):
  path = makers.write_video(tmp_path / name, 13, fps=25, codec=codec, pix_fmt=pix_fmt)
  assert video.probe(path).fps == pytest.approx(25, abs=0.01)
  times, numbers, notes = shown(path)
  assert numbers == list(range(13)) and notes == ([note] if note else [])
  assert times[0] == 0
  # some containers round to 1 ms
  np.testing.assert_allclose(times, np.arange(13) / 25, atol=0.6e-3)
  np.testing.assert_allclose(video.timeline(path), times, atol=1e-9)


def test_time_is_that_of_the_stamps_and_not_of_the_header(tmp_path):
  times = [round(1000 * t / 30) for t in range(20)]
  path = makers.write_video(tmp_path / "browser.webm", 20, fps=1000, codec="libvpx", times=times)
  with av.open(path) as container:
    assert container.streams.video[0].average_rate == 1000
  assert video.probe(path).fps == pytest.approx(30, rel=2e-3)
  assert shown(path) == ([t / 1000 for t in times], list(range(20)), [])


def test_a_varying_rate_keeps_its_times_and_is_noted(tmp_path):
  stamps = [0, 100, 200, 240, 280, 500, 600, 700]
  times, numbers, notes = shown(makers.write_video(tmp_path / "vfr.mkv", 8, times=stamps))
  np.testing.assert_allclose(times, np.array(stamps) / 1000, atol=1e-9)
  assert numbers == list(range(8))
  assert notes == ["variable frame rate: 40 to 220 ms between frames, most after 0.28 s"]


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4", "a.mov", "a.ts"])
def test_pictures_that_start_after_the_sound_are_all_there(tmp_path, name):
  codec = "libvpx" if name == "a.webm" else "libx264"
  path = makers.with_sound(tmp_path / name, 30, late=0.8, codec=codec)
  with av.open(path) as container:
    stream = container.streams.video[0]
    assert (
      stream.start_time * stream.time_base - fractions.Fraction(container.start_time, av.time_base)
      > 0.7
    )
  times, numbers, notes = shown(path)
  assert numbers == list(range(30)) and not notes
  np.testing.assert_allclose(times, np.arange(30) / 30, atol=1e-3)
  got = [makers.number(image) for image in video.read_at(path, np.arange(20, 30) / 30, KEEP)]
  assert got == list(range(20, 30))


def test_frames_before_an_edit_list_begins_are_left_out(tmp_path):
  def begin_early(stream):
    stream.codec_context.options = {"bf": "0"}

  frames = [av.VideoFrame.from_ndarray(makers.picture(t), format="rgb24") for t in range(10)]
  path = makers.write_video(
    tmp_path / "a.mp4",
    frames,
    times=[100 * (t - 3) for t in range(10)],
    setup=begin_early,
    container={"avoid_negative_ts": "disabled"},
  )
  times, numbers, notes = shown(path)
  assert numbers == list(range(3, 10)) and times[0] == 0 and not notes


def test_invisible_frames_of_vp8_are_no_loss(tmp_path):
  path = makers.write_video(
    tmp_path / "a.webm", 20, codec="libvpx", options={"b": "300000", "auto-alt-ref": "0"}
  )
  data = bytearray(pathlib.Path(path).read_bytes())
  with av.open(path) as container:
    packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
  at = 0
  for t, packet in enumerate(packets):
    at = data.index(packet, at)
    if t in (3, 7, 11, 15):
      data[at] &= ~0x10  # references that are never shown, as libvpx makes with two passes
    at += len(packet)
  pathlib.Path(path).write_bytes(data)
  times, numbers, _ = shown(path)
  assert numbers == [t for t in range(20) if t not in (3, 7, 11, 15)]
  np.testing.assert_allclose(video.timeline(path), times, atol=1e-9)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_a_recording_that_starts_inside_a_group_of_pictures(tmp_path, codec):
  same = {
    "libx264": {"crf": "10", "sc_threshold": "0"},
    "mpeg2video": {"b": "8000000", "sc_threshold": "1000000000"},
  }
  options = {"g": "12", "bf": "0", **same[codec]}  # no key frame for a change of scene
  path = makers.write_video(tmp_path / "a.ts", 30, codec=codec, options=options)
  with av.open(path) as container:
    positions = [packet.pos for packet in container.demux(video=0) if packet.size]
  data = pathlib.Path(path).read_bytes()
  tables = data[: 188 * 3]  # SDT, PAT and PMT, which say what is in the stream
  pathlib.Path(path).write_bytes(tables + data[positions[4] :])
  times, numbers, notes = shown(path)
  assert numbers == list(range(12, 30)) and times[0] == 0 and times[-1] == pytest.approx(1.7)
  assert notes == [
    "the file starts inside a group of pictures: 8 packets were left out, "
    "the first frame is the first that can be decoded"
  ]


@pytest.mark.parametrize("start", [0, 3, 17])
def test_read_at_takes_the_nearest_frames(tmp_path, start):
  path = makers.write_video(tmp_path / "a.mp4", 30, fps=10, options={"crf": "10", "g": "12"})
  times = (np.arange(start, start + 9) + 0.3) / 10
  assert [makers.number(frame) for frame in video.read_at(path, times, KEEP)] == list(
    range(start, start + 9)
  )


@pytest.mark.parametrize(
  "name,codec,options",
  [
    (
      "a.mp4",
      "libx264",
      {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"},
    ),
    ("a.ts", "libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}),
    ("a.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=30"}),
    ("a.ts", "mpeg2video", {"bf": "2", "g": "12", "b": "3000000"}),
    (
      "a.mp4",
      "libx265",
      {"x265-params": "log-level=none:open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"},
    ),
    ("a.mkv", "libvpx-vp9", {"g": "12", "b": "300000"}),
    ("a.avi", "libx264", {"g": "12"}),
  ],
)
def test_read_at_is_exact_wherever_it_enters(tmp_path, name, codec, options):
  blocks = np.repeat(np.repeat(makers.noise(1, 24, 32)[0], 4, 0), 4, 1)
  frames = [np.roll(blocks, (t, 2 * t), (0, 1)) for t in range(45)]
  path = makers.write_video(tmp_path / name, frames, codec=codec, options=options)
  whole = list(video.read(path, KEEP))
  for start in range(0, 45, 4):
    times = [seconds + 1e-3 for seconds, _ in whole[start : start + 3]]
    for image, (_, expected) in zip(
      video.read_at(path, times, KEEP), whole[start : start + 3], strict=True
    ):
      np.testing.assert_array_equal(image, expected)


def test_a_late_episode_is_not_decoded_from_the_beginning(tmp_path):
  frames = [makers.picture(t % 39) for t in range(60)]
  path = makers.write_video(
    tmp_path / "a.mp4", frames, fps=10, options={"g": "10", "sc_threshold": "0"}
  )
  seconds, *_ = next(video_stream.decode_from(path, 5.55, []))
  assert 4.9 < seconds <= 5.55


def test_read_at_counts_far_frames_and_refuses_a_short_video(tmp_path):
  path = makers.write_video(tmp_path / "a.mp4", 10, fps=10)
  notes = []
  frames = list(video.read_at(path, [0.8, 0.9, 1.0], KEEP, notes=notes))
  assert [makers.number(frame) for frame in frames] == [8, 9, 9]
  assert notes == ["1 of 3 timestamps are further than half a frame from the nearest video frame"]
  with pytest.raises(
    video.UnreadableError,
    match=r"frame 12 of 15 at 1.200 s \(nearest frame at 0.900 s\).*too short",
  ):
    list(video.read_at(path, np.arange(15) / 10, KEEP))
  with pytest.raises(video.UnreadableError, match="go backwards"):
    list(video.read_at(path, [0.2, 0.1], KEEP))
  with pytest.raises(video.UnreadableError, match="timestamp 1 of 2 is not finite"):
    list(video.read_at(path, [0.2, np.nan], KEEP))


def test_read_at_refuses_a_hole_in_the_video(tmp_path):
  stamps = [*range(0, 1000, 100), *range(2000, 3000, 100)]
  path = makers.write_video(tmp_path / "a.mp4", 20, times=stamps)
  with pytest.raises(video.UnreadableError, match="at 1.200 s"):
    list(video.read_at(path, np.arange(30) / 10, KEEP))
  assert [
    makers.number(image) for image in video.read_at(path, np.arange(20, 30) / 10, KEEP)
  ] == list(range(10, 20))


def test_a_video_longer_than_its_table_is_noted(tmp_path):
  path = makers.write_video(tmp_path / "a.mp4", 30, fps=10)
  longer = "the video goes on for 8 frames after the last timestamp: they were not used"
  for count, expected in ((30, []), (22, [longer])):
    notes = []
    list(video.read_at(path, np.arange(count) / 10, KEEP, notes=notes, whole=True))
    assert notes == expected
