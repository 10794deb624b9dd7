"""Videos: every frame with its time, upright and in the right colors; what is damaged is refused."""

import fractions
from types import SimpleNamespace

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


def first(path, geometry=KEEP, **arguments):
  return next(video.read(str(path), geometry, **arguments))[1]


def noise(count, height=48, width=64):
  return list(np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8))


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
  np.testing.assert_allclose(times, np.arange(13) / 25, atol=0.6e-3)  # some containers round to 1 ms
  np.testing.assert_allclose(video.timeline(path), times, atol=1e-9)


@pytest.mark.parametrize("mode,corner", [("squash", 255), ("crop", 255), ("pad", 0)])
def test_geometry(mode, corner):
  image = np.full((20, 40, 3), 255, np.uint8)
  out = video.Geometry(16, mode).apply(image)
  assert out.shape == (16, 16, 3) and out[8, 8, 0] == 255 and out[0, 0, 0] == corner


def test_shrinking_averages():
  stripes = np.zeros((32, 32, 3), np.uint8)
  stripes[:, ::2] = 200  # point sampling would give 0 or 200
  np.testing.assert_allclose(video.resize(stripes, 8, 8), 100, atol=1)


# ------------------------------------------------------------------------------------------------------ time


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
    assert stream.start_time * stream.time_base - fractions.Fraction(container.start_time, av.time_base) > 0.7
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
    tmp_path / "a.mp4", frames, times=[100 * (t - 3) for t in range(10)], setup=begin_early,
    container={"avoid_negative_ts": "disabled"},
  )
  times, numbers, notes = shown(path)
  assert numbers == list(range(3, 10)) and times[0] == 0 and not notes


def test_invisible_frames_of_vp8_are_no_loss(tmp_path):
  path = makers.write_video(tmp_path / "a.webm", 20, codec="libvpx", options={"b": "300000", "auto-alt-ref": "0"})
  data = bytearray(open(path, "rb").read())
  with av.open(path) as container:
    packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
  at = 0
  for t, packet in enumerate(packets):
    at = data.index(packet, at)
    if t in (3, 7, 11, 15):
      data[at] &= ~0x10  # references that are never shown, as libvpx makes with two passes
    at += len(packet)
  open(path, "wb").write(data)
  times, numbers, _ = shown(path)
  assert numbers == [t for t in range(20) if t not in (3, 7, 11, 15)]
  np.testing.assert_allclose(video.timeline(path), times, atol=1e-9)


def test_a_recording_that_starts_inside_a_group_of_pictures(tmp_path):
  path = makers.write_video(tmp_path / "a.ts", 30, options={"g": "12", "bf": "0", "crf": "10", "sc_threshold": "0"})
  with av.open(path) as container:
    positions = [packet.pos for packet in container.demux(video=0) if packet.size]
  data = open(path, "rb").read()
  tables = data[: 188 * 3]  # SDT, PAT and PMT, which say what is in the stream
  open(path, "wb").write(tables + data[positions[4] :])
  times, numbers, notes = shown(path)
  assert numbers == list(range(12, 30)) and times[0] == 0 and times[-1] == pytest.approx(1.7)
  assert notes == [
    "the file starts inside a group of pictures: 8 packets were left out, "
    "the first frame is the first that can be decoded"
  ]


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
  one = "{} frames without a time stamp and {} whose time stamp does not increase were placed evenly between their neighbors"
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


# ------------------------------------------------------------------------------------------------ containers


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
  path = makers.write_video(tmp_path / "a.ts", noise(3), codec="mpeg2video", options={"flags": "+ildct+ilme", "b": "9000000"})
  assert shown(path)[2] == ["interlaced: both fields of a frame were kept as one picture"]


# ----------------------------------------------------------------------------------------------- at given times


@pytest.mark.parametrize("start", [0, 3, 17])
def test_read_at_takes_the_nearest_frames(tmp_path, start):
  path = makers.write_video(tmp_path / "a.mp4", 30, fps=10, options={"crf": "10", "g": "12"})
  times = (np.arange(start, start + 9) + 0.3) / 10
  assert [makers.number(frame) for frame in video.read_at(path, times, KEEP)] == list(range(start, start + 9))


@pytest.mark.parametrize(
  "name,codec,options",
  [
    ("a.mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}),
    ("a.ts", "libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}),
    ("a.mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}),
    ("a.mp4", "libx265", {"x265-params": "log-level=none:open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}),
    ("a.mkv", "libvpx-vp9", {"g": "12", "b": "300000"}),
    ("a.avi", "libx264", {"g": "12"}),
  ],
)
def test_read_at_is_exact_wherever_it_enters(tmp_path, name, codec, options):
  frames = [np.roll(noise(1)[0], (t, 2 * t), (0, 1)) for t in range(45)]
  path = makers.write_video(tmp_path / name, frames, codec=codec, options=options)
  whole = list(video.read(path, KEEP))
  for start in range(0, 45, 4):
    times = [seconds + 1e-3 for seconds, _ in whole[start : start + 3]]
    for image, (_, expected) in zip(video.read_at(path, times, KEEP), whole[start : start + 3], strict=True):
      np.testing.assert_array_equal(image, expected)


def test_a_late_episode_is_not_decoded_from_the_beginning(tmp_path):
  frames = [makers.picture(t % 39) for t in range(60)]
  path = makers.write_video(tmp_path / "a.mp4", frames, fps=10, options={"g": "10", "sc_threshold": "0"})
  seconds, *_ = next(video_stream.decode_from(path, 5.55, []))
  assert 4.9 < seconds <= 5.55


def test_read_at_counts_far_frames_and_refuses_a_short_video(tmp_path):
  path = makers.write_video(tmp_path / "a.mp4", 10, fps=10)
  notes = []
  frames = list(video.read_at(path, [0.8, 0.9, 1.0], KEEP, notes=notes))
  assert [makers.number(frame) for frame in frames] == [8, 9, 9]
  assert notes == ["1 of 3 timestamps are further than half a frame from the nearest video frame"]
  with pytest.raises(video.Unreadable, match=r"frame 12 of 15 at 1.200 s \(nearest frame at 0.900 s\).*too short"):
    list(video.read_at(path, np.arange(15) / 10, KEEP))
  with pytest.raises(video.Unreadable, match="go backwards"):
    list(video.read_at(path, [0.2, 0.1], KEEP))
  with pytest.raises(video.Unreadable, match="timestamp 1 of 2 is not finite"):
    list(video.read_at(path, [0.2, np.nan], KEEP))


def test_read_at_refuses_a_hole_in_the_video(tmp_path):
  stamps = [*range(0, 1000, 100), *range(2000, 3000, 100)]
  path = makers.write_video(tmp_path / "a.mp4", 20, times=stamps)
  with pytest.raises(video.Unreadable, match="at 1.200 s"):
    list(video.read_at(path, np.arange(30) / 10, KEEP))
  assert [makers.number(image) for image in video.read_at(path, np.arange(20, 30) / 10, KEEP)] == list(range(10, 20))


def test_a_video_longer_than_its_table_is_noted(tmp_path):
  path = makers.write_video(tmp_path / "a.mp4", 30, fps=10)
  for count, expected in ((30, []), (22, ["the video goes on for 8 frames after the last timestamp: they were not used"])):
    notes = []
    list(video.read_at(path, np.arange(count) / 10, KEEP, notes=notes, whole=True))
    assert notes == expected


# --------------------------------------------------------------------------------------------------- damage


def damaged_files(folder):
  """Empty, text, cut at the end (header lost), cut with the header in front (frames lost), cut WebM."""
  folder.mkdir(exist_ok=True)
  whole = open(makers.write_video(folder / "x.mp4", noise(30)), "rb").read()
  front = open(makers.write_video(folder / "y.mp4", noise(30), options={"movflags": "faststart", "crf": "10"}), "rb").read()
  webm = open(makers.write_video(folder / "z.webm", noise(30), codec="libvpx-vp9"), "rb").read()
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


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4", "a.avi", "a.flv"])
def test_a_cut_file_is_called_truncated(tmp_path, name):
  """Also where the pictures start late, so that the declared end is not the length."""
  codec = {"a.webm": "libvpx", "a.avi": "mpeg4"}.get(name, "libx264")
  if name in ("a.mkv", "a.webm"):
    path = makers.with_sound(tmp_path / name, 60, late=1.0, codec=codec)
  else:
    path = makers.write_video(tmp_path / name, noise(40), codec=codec, container={"movflags": "faststart"} if name == "a.mp4" else None)
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
    ("a.mkv", "ffv1", "yuv420p", 1),  # only reports it
  ],
)
def test_damage_in_the_middle_is_refused(tmp_path, name, codec, pix_fmt, width):
  options = {"level": "3", "slicecrc": "1"} if codec == "ffv1" else {"crf": "10"} if codec == "libx264" else None
  path = makers.write_video(tmp_path / name, noise(20), codec=codec, pix_fmt=pix_fmt, options=options)
  with av.open(path) as container:
    packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
  data = bytearray(open(path, "rb").read())
  at = packets[9][0] + packets[9][1] // 2
  for i in range(width):
    data[at + i] ^= 0x04 if width == 1 else 0xFF
  open(path, "wb").write(data)
  with pytest.raises(video.Unreadable, match="damaged|decoding failed"):
    shown(path)
  assert av.logging.get_level() is None  # the process's setting is back


# --------------------------------------------------------------------------------------------------- pictures
