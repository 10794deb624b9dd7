"""Files that end too early: what is missing is refused or said, whatever the container."""

import pathlib
from types import SimpleNamespace

import av
import pytest

from como_jax.data import video, video_end, video_pictures
from tests.data import makers
from tests.data.test_video import KEEP

HEVC = {"x265-params": "log-level=none:bframes=0"}


def write(
  path, count=12, *, height=makers.HEIGHT, width=makers.WIDTH, codec="libx264", **arguments
):
  """Noise under plain pictures, so that every byte matters and their numbers can be read."""
  frames = makers.noise(count, height, width)
  for t, frame in enumerate(frames):
    frame[2 : height // 2] = makers.picture(t, height, width)[2 : height // 2]
  return makers.write_video(path, frames, codec=codec, **arguments)


def read(path):
  """(numbers of the pictures, notes) of a file."""
  notes = []
  frames = [image for _, image in video.read(str(path), KEEP, notes=notes)]
  return [round((float(image[6 : len(image) // 2 - 4].mean()) - 20) / 6) for image in frames], notes


def places(path):
  """(byte, size) of the packets of a video."""
  with av.open(path) as container:
    return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def cut(path, at):
  data = pathlib.Path(path).read_bytes()
  pathlib.Path(path).write_bytes(data[:at])


CASES = {
  "frames of one size": ("a.y4m", {"codec": "rawvideo"}),
  "digital video": ("a.dv", {"codec": "dvvideo", "height": 576, "width": 720, "count": 4}),
  "JPEG pictures": ("a.mjpeg", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
  "HEVC": ("a.hevc", {"codec": "libx265", "options": HEVC}),
  "HEVC of 10 bits": ("a.hevc", {"codec": "libx265", "options": HEVC, "pix_fmt": "yuv420p10le"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_ends_inside_a_frame_is_refused(tmp_path, case):
  name, arguments = CASES[case]
  path = write(tmp_path / name, **arguments)
  count = arguments.get("count", 12)
  numbers, notes = read(path)
  assert numbers == list(range(count))
  assert not any("truncated" in note or "ends" in note or "declared" in note for note in notes)
  data, (position, size) = pathlib.Path(path).read_bytes(), places(path)[-1]
  for part in (0.99, 0.6, 0.2):
    pathlib.Path(path).write_bytes(data[: position + int(part * size)])
    with pytest.raises(video.UnreadableError, match="^truncated|decoding failed"):
      read(path)
  if case == "JPEG pictures":
    pathlib.Path(path).write_bytes(data + bytes(9))
    assert read(path) == (list(range(count)), notes)
    # Of the picture that begins, nothing but its first bytes
    pathlib.Path(path).write_bytes(data[: position + 3])
    with pytest.raises(
      video.UnreadableError,
      match=f"^truncated: the file ends inside the picture after frame {count - 2}",
    ):
      read(path)


def test_a_picture_that_has_fewer_slices_than_others(tmp_path):
  path = write(tmp_path / "a.hevc", codec="libx265", options=HEVC)
  with av.open(path) as container:
    packets = [packet for packet in container.demux(video=0) if packet.size]
    context = container.streams.video[0].codec_context
  # an unknown unit and a slice
  again = [av.Packet(bytes(packet) + b"\0\0\1\x7e\1\0\0\1\2\1") for packet in packets]
  again[0].is_keyframe = True
  assert video_end._check_hevc(context, packets) == []
  assert (
    "not known whether the last picture is whole" in video_end._check_hevc(context, packets[5:])[0]
  )
  assert video_end._check_hevc(context, [*again[:-1], packets[-1]]) == [
    "the last picture has 1 slices, those before it at least 2: a part of it may be missing"
  ]


def test_a_last_picture_too_far_from_a_key_frame_is_said_not_to_be_known(tmp_path, monkeypatch):
  monkeypatch.setattr(video_pictures, "_KEPT", 4)
  path = write(tmp_path / "a.hevc", codec="libx265", options=HEVC)
  assert (
    "no key frame near the end: it is not known whether the last picture is whole" in read(path)[1]
  )


def test_hevc_in_a_transport_stream_that_ends_inside_a_picture(tmp_path):
  path = write(tmp_path / "a.ts", codec="libx265", options=HEVC)
  cut(path, places(path)[-1][0] + 5 * 188)
  with pytest.raises(
    video.UnreadableError, match="^truncated: the file ends inside its last picture"
  ):
    read(path)


@pytest.mark.parametrize(
  "name,codec,lost,note",
  [
    ("a.mkv", "libx264", 1, "the file ends inside a block: what came after is missing"),
    ("a.mkv", "libx264", 2, "1.20 s declared, 1.00 s in the file: the last frames may be missing"),
    ("a.webm", "libvpx", 1, "1.20 s declared, 1.10 s in the file: the last frames may be missing"),
    ("a.flv", "libx264", 1, "1.20 s declared, 1.10 s in the file: the last frames may be missing"),
    ("a.mpg", "mpeg2video", 0, "the file ends inside a packet: what came after is missing"),
  ],
)
def test_one_or_two_frames_less_are_told(tmp_path, name, codec, lost, note):
  """Headers are too often wrong by as much to refuse a file for it."""
  path = write(
    tmp_path / name, codec=codec, options={"b": "3000000", "bf": "0"} if codec != "libvpx" else None
  )
  assert read(path) == (list(range(12)), [])
  cut(path, places(path)[-lost][0] + 1 if lost else -1)
  numbers, notes = read(path)
  assert numbers == list(range(12 - lost)) and note in notes


@pytest.mark.parametrize("name,codec", [("a.avi", "mpeg4"), ("a.mxf", "mpeg2video")])
def test_one_frame_less_than_the_header_counts_is_told(tmp_path, name, codec):
  path = write(tmp_path / name, codec=codec, options={"b": "3000000", "bf": "0"}, fps=25)
  assert read(path) == (list(range(12)), [])
  cut(path, places(path)[-1][0] - (8 if name == "a.avi" else 20))
  numbers, notes = read(path)
  assert (
    numbers == list(range(11))
    and "12 frames declared, 11 in the file: the last may be missing" in notes
  )


def test_a_gif_without_its_end_is_told(tmp_path):
  path = makers.write_video(tmp_path / "a.gif", makers.noise(6), codec="gif", pix_fmt="rgb8")
  notes = []
  whole = [image for _, image in video.read(path, KEEP, notes=notes)]
  assert len(whole) == 6 and not notes
  cut(path, -3)  # the decoder takes what there is of the last picture for all of it
  assert read(path)[1] == ["the file ends without the mark of its end: its last picture may be cut"]


def test_a_whole_program_stream_has_no_remark_whatever_is_behind(tmp_path):
  path = write(tmp_path / "a.mpg", codec="mpeg2video", options={"b": "3000000"})
  data = pathlib.Path(path).read_bytes()
  for behind in (b"\0\0\1\xb9", bytes(5000)):
    pathlib.Path(path).write_bytes(data + behind)
    numbers, notes = read(path)
    assert numbers == list(range(12)) and not notes


def checked(kind, *, packets=10, end=1.0, lasting=True, duration=None, index=()):
  """Remarks on a container of fakes: seconds that it declares, sizes of the packets in its
  index.
  """
  container = SimpleNamespace(
    format=SimpleNamespace(name=kind), duration=duration and round(duration * 1e6)
  )
  entries = [SimpleNamespace(size=size) for size in index]
  stream = SimpleNamespace(metadata={}, duration=None, index_entries=entries)
  tally = video_pictures.Tally(packets=packets, decoded=packets, end=end, lasting=lasting)
  return video_end.check("", container, stream, tally, 10.0)


def test_packets_that_do_not_say_how_long_they_last():
  assert checked("matroska,webm", duration=1.0, end=0.9, lasting=False) == []
  assert checked("matroska,webm", duration=1.0, end=1.0) == []
  note = "1.00 s declared, 0.90 s in the file: the last frames may be missing"
  assert checked("matroska,webm", duration=1.0, end=0.9) == [note]
  assert checked("mpegts", duration=1.0, end=0.9) == []  # FFmpeg's guess, not a declaration


def test_an_index_that_holds_more_than_the_file():
  assert checked("mov,mp4,m4a", index=[5] * 10 + [0]) == []
  with pytest.raises(video.UnreadableError, match="^truncated: 11 frames declared, 10 in the file"):
    checked("mov,mp4,m4a", index=[5] * 11)


@pytest.mark.parametrize(
  "behind",
  [b"\r\n", b"\r\n--boundary\r\nContent-Type: image/jpeg\r\n\r\n", b"\xff" * 100, bytes(64)],
)
def test_what_follows_the_last_jpeg_is_not_a_part_of_it(tmp_path, behind):
  """Cameras put words between their pictures, recorders padding behind them."""
  path = makers.write_video(
    tmp_path / "a.mjpeg", makers.noise(4), codec="mjpeg", pix_fmt="yuvj420p"
  )
  data = pathlib.Path(path).read_bytes()
  pathlib.Path(path).write_bytes(data + behind)
  assert len(list(video.read(path, KEEP))) == 4
  pathlib.Path(path).write_bytes(data[:-2])
  with pytest.raises(
    video.UnreadableError, match="^truncated: the file ends inside the picture after frame"
  ):
    list(video.read(path, KEEP))


def test_time_stamps_without_a_unit_are_refused():
  with pytest.raises(video.UnreadableError, match="time stamps, but no unit"):
    video_end.time_base(SimpleNamespace(time_base=None))
  assert video_end.time_base(SimpleNamespace(time_base=0.5)) == 0.5
