"""Containers: the right stream, repaired time stamps, and no damage that passes."""

import fractions
import pathlib
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
    time_base=fractions.Fraction(1, 1000),
    guessed_rate=10,
    average_rate=10,
    codec_context=SimpleNamespace(framerate=None),
  )
  notes = []
  frames = [SimpleNamespace(pts=stamp) for stamp in stamps]
  out = list(video_stream._timed(iter(frames), stream, None, notes))
  assert [frame for _, frame in out] == frames
  return [round(seconds, 6) for seconds, _ in out], notes


def test_missing_and_wrong_time_stamps():
  one = (
    "{} frames without a time stamp and {} whose time stamp does not increase were placed evenly "
    "between their neighbors"
  )
  assert stamped(50, 150, 250) == ([0, 0.1, 0.2], [])
  assert stamped(0, None, None, 300) == ([0, 0.1, 0.2, 0.3], [one.format(2, 0)])
  assert stamped(0, 100, 100, 200) == ([0, 0.1, 0.15, 0.2], [one.format(0, 1)])
  assert stamped(0, 100, 60, 200) == ([0, 0.1, 0.15, 0.2], [one.format(0, 1)])
  assert stamped(None, 100, 300) == ([0, 0.1, 0.3], [one.format(1, 0)])
  assert stamped(0, 200, None) == ([0, 0.2, 0.4], [one.format(1, 0)])
  times, notes = stamped(*[None] * 12)
  assert (
    times == [round(0.1 * t, 6) for t in range(12)]
    and "10 frames a second were assumed" in notes[0]
  )
  with pytest.raises(video.UnreadableError, match="go back from 0.900 s to 0.080 s at frame 18"):
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
          frame = av.VideoFrame.from_ndarray(
            makers.picture(number, stream.height, stream.width), format="rgb24"
          )
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


OPEN = "keyint=12:min-keyint=12:bframes=3:scenecut=0:b-adapt=0:open-gop=1"
# no key frame for a change of scene
SAME = {"g": "12", "b": "3000000", "sc_threshold": "1000000000"}


@pytest.mark.parametrize(
  "codec,options,before,first,left_out",
  [
    ("libx264", {"x264-params": OPEN}, 0, 12, 3),
    ("libx264", {"x264-params": OPEN}, 3, 12, 6),
    ("libx265", {"x265-params": f"log-level=none:{OPEN}"}, 0, 12, 3),
    # may be decoded from there
    ("libx265", {"x265-params": f"log-level=none:{OPEN}:open-gop=0:radl=2"}, 0, 10, 0),
    ("mpeg2video", {"bf": "2", **SAME}, 0, 12, 2),
    ("mpeg4", {"bf": "2", **SAME}, 0, 12, 2),
    ("mpeg4", {"bf": "0", **SAME}, 4, 12, 4),
  ],
)
def test_a_recording_that_starts_at_a_key_frame_or_before_one(
  tmp_path, codec, options, before, first, left_out
):
  path = makers.write_video(tmp_path / "a.ts", 39, codec=codec, options=options)
  with av.open(path) as container:
    packets = [
      (packet.pos, packet.is_keyframe) for packet in container.demux(video=0) if packet.size
    ]
  start = [i for i, (_, key) in enumerate(packets) if key][1] - before
  data = pathlib.Path(path).read_bytes()
  # SDT, PAT and PMT say what is in the stream
  pathlib.Path(path).write_bytes(data[: 188 * 3] + data[packets[start][0] :])
  times, numbers, notes = shown(path)
  assert numbers == list(range(first, 39))
  np.testing.assert_allclose(times, np.arange(39 - first) / 10, atol=1e-9)
  np.testing.assert_allclose(video.timeline(path), times, atol=1e-9)
  text = f"the file starts inside a group of pictures: {left_out} packets were left out, "
  assert notes == ([text + "the first frame is the first that can be decoded"] if left_out else [])


def remux(source, path, change):
  """The packets of a video that `change` makes of them, in another file."""
  with av.open(str(source)) as read, av.open(str(path), "w") as write:
    stream = read.streams.video[0]
    out = write.add_stream_from_template(stream)
    out.time_base = stream.time_base
    for packet in change([packet for packet in read.demux(stream) if packet.size]):
      packet.stream = out
      write.mux(packet)
  return str(path)


def test_a_stream_without_a_key_frame(tmp_path):
  path = makers.write_video(
    tmp_path / "a.mkv", makers.noise(9), codec="mpeg4", options={"bf": "0", **SAME}
  )
  # the decoder would begin with gray
  lost = remux(path, tmp_path / "b.mkv", lambda packets: packets[1:])
  with pytest.raises(
    video.UnreadableError, match="no key frame in the file: its first picture refers to others"
  ):
    shown(lost)

  def unmark(packets):
    for packet in packets:
      packet.is_keyframe = False
    return packets

  path = makers.write_video(tmp_path / "c.mkv", 9, codec="mpeg4", options={"bf": "0", **SAME})
  assert shown(remux(path, tmp_path / "d.mkv", unmark))[1:] == (list(range(9)), [])


def test_packets_that_repeat_the_picture_before(tmp_path):
  path = makers.write_video(tmp_path / "a.mkv", 9, codec="mpeg4", options={"bf": "0", **SAME})

  def repeat(packets):
    for t in (4, 6):
      bits = f"0101{t:04b}10".ljust(16, "1")  # not coded; 4 bits of time at 10 frames a second
      packet = av.Packet(b"\0\0\1\xb6" + int(bits, 2).to_bytes(2, "big"))
      for name in ("pts", "dts", "duration", "time_base"):
        setattr(packet, name, getattr(packets[t], name))
      packets[t] = packet
    return packets

  times, numbers, notes = shown(remux(path, tmp_path / "b.mkv", repeat))
  assert numbers == [0, 1, 2, 3, 5, 7, 8] and np.allclose(times, np.array(numbers) / 10)
  assert "2 packets repeat the picture before: no frame was made of them" in notes


def fake_stream(index, width, disposition):
  return SimpleNamespace(
    index=index, width=width, height=10, disposition=disposition, codec_context=object()
  )


def test_covers_are_no_videos_and_the_default_stream_comes_first():
  flags = av.stream.Disposition
  small, large = fake_stream(0, 10, flags.default), fake_stream(1, 90, flags(0))
  cover = fake_stream(2, 500, flags.default | flags.attached_pic)
  still, thumbs = (
    fake_stream(3 + i, 500, one)
    for i, one in enumerate((flags.still_image, flags.timed_thumbnails))
  )
  tiny = fake_stream(0, 5, flags(0))
  cases = (
    ((small, large, cover), small),
    ((large, cover), large),
    ((tiny, large), large),
    ((tiny, still, thumbs), tiny),
  )
  for streams, expected in cases:
    container = SimpleNamespace(streams=SimpleNamespace(video=list(streams)))
    assert video_stream.best_stream(container) is expected
  with pytest.raises(video.UnreadableError, match="only a cover picture"):
    video_stream.best_stream(SimpleNamespace(streams=SimpleNamespace(video=[cover])))


def test_one_frame_and_none(tmp_path):
  assert shown(makers.write_video(tmp_path / "a.mp4", 1))[:2] == ([0.0], [0])
  path = makers.write_video(tmp_path / "b.mkv", 3)
  with av.open(path) as container:
    position = next(packet.pos for packet in container.demux(video=0))
  data = pathlib.Path(path).read_bytes()
  pathlib.Path(path).write_bytes(data[:position])
  with pytest.raises(video.UnreadableError, match="holds no frame|not a readable"):
    shown(path)
  with makers.av.open(str(tmp_path / "sound.mp4"), "w") as container:
    sound = container.add_stream("aac", rate=48000)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts = 48000, 0
    container.mux(sound.encode(frame))
    container.mux(sound.encode(None))
  with pytest.raises(video.UnreadableError, match="no video stream"):
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
  with pytest.raises(video.UnreadableError, match=reason):
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
  data = pathlib.Path(path).read_bytes()
  pathlib.Path(path).write_bytes(data[: len(data) * 8 // 10])
  with pytest.raises(video.UnreadableError, match="^truncated"):
    shown(path)


@pytest.mark.parametrize(
  "name,codec,pix_fmt,width",
  [
    ("a.mp4", "libx264", "yuv420p", 30),  # conceals, and marks the picture
    ("a.mp4", "mpeg4", "yuv420p", 30),
    ("a.ts", "mpeg2video", "yuv420p", 30),
    ("a.avi", "mjpeg", "yuvj420p", 30),  # goes on unless it is told to fail
    ("a.mkv", "ffv1", "yuv420p", 1),  # only reports it
    # compares each picture with a sum in the stream if it is told to
    ("a.mp4", "libx265", "yuv420p", 1),
  ],
)
def test_damage_in_the_middle_is_refused(tmp_path, name, codec, pix_fmt, width):
  options = {
    "ffv1": {"level": "3", "slicecrc": "1"},
    "libx264": {"crf": "10"},
    "libx265": {"x265-params": "log-level=none:hash=1"},
  }.get(codec)
  path = makers.write_video(
    tmp_path / name, makers.noise(20), codec=codec, pix_fmt=pix_fmt, options=options
  )
  with av.open(path) as container:
    packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
  data = bytearray(pathlib.Path(path).read_bytes())
  at = packets[9][0] + packets[9][1] // 2
  for i in range(width):
    data[at + i] ^= 0x04 if width == 1 else 0xFF
  pathlib.Path(path).write_bytes(data)
  with pytest.raises(video.UnreadableError, match="damaged|decoding failed"):
    shown(path)


def test_a_block_that_a_container_cannot_read_is_refused(tmp_path):
  path = makers.write_video(tmp_path / "a.mkv", makers.noise(12), codec="mjpeg", pix_fmt="yuvj420p")
  with av.open(path) as container:
    position = [packet.pos for packet in container.demux(video=0) if packet.size][6]
  data = bytearray(pathlib.Path(path).read_bytes())
  data[position : position + 4] = bytes(4)  # the name of the block and its size
  pathlib.Path(path).write_bytes(data)
  with pytest.raises(video.UnreadableError, match="^damaged: after frame . FFmpeg reports"):
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
  data = bytearray(pathlib.Path(path).read_bytes())
  data[packets[19] + 4] = 41 << 1  # a kind of unit that decoders pass over
  pathlib.Path(path).write_bytes(data)
  with pytest.raises(video.UnreadableError, match="damaged: 1 of 20 packets gave no picture"):
    shown(path)


def test_frames_that_an_avi_has_lost(tmp_path):
  path = makers.write_video(tmp_path / "a.avi", makers.noise(20), codec="mjpeg", pix_fmt="yuvj420p")
  with av.open(path) as container:
    packets = [packet.pos for packet in container.demux(video=0) if packet.size]
  data = pathlib.Path(path).read_bytes()
  pathlib.Path(path).write_bytes(data[: packets[5]] + data[packets[10] :])
  with pytest.raises(video.UnreadableError, match="^truncated: 20 frames declared, 15 in the file"):
    shown(path)


def test_frames_that_the_recorder_of_an_avi_has_dropped(tmp_path):
  path = makers.write_video(tmp_path / "a.avi", 9, codec="mjpeg", pix_fmt="yuvj420p")

  def drop(packets):
    for t, packet in enumerate(packets):
      packet.pts = packet.dts = t if t < 3 else t + 5
    return packets

  times, numbers, notes = shown(remux(path, tmp_path / "b.avi", drop))
  assert numbers == list(range(9)) and np.allclose(
    times, [0, 0.1, 0.2, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
  )
  assert notes == ["variable frame rate: 100 to 600 ms between frames, most after 0.20 s"]


def test_a_raw_stream_that_starts_inside_a_group_of_pictures(tmp_path):
  path = makers.write_video(
    tmp_path / "a.h264", 30, options={"crf": "10", "bf": "0", "g": "12", "sc_threshold": "0"}
  )
  with av.open(path) as container:
    packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    headers = container.streams.video[0].codec_context.extradata
  pathlib.Path(path).write_bytes(headers + b"".join(packets[4:]))
  times, numbers, _ = shown(path)
  assert numbers == list(range(12, 30))
  np.testing.assert_allclose(video.timeline(path), times, atol=1e-9)
