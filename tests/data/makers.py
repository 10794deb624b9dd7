"""Hand-made inputs: tiny videos written with PyAV alone, sources in memory and shards.

Frame t is gray level 20 + 6 t.
"""

import fractions
import json
import os
import pathlib
import signal

import av
import numpy as np

from como_jax.data import episode, reader, shard_file
from como_jax.data import shards as shard_tables
from tests.data import ingests

HEIGHT, WIDTH = 48, 64


def picture(t: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
  return np.full((height, width, 3), 20 + 6 * t, np.uint8)


def number(image: np.ndarray) -> int:
  """The frame number shown by a (lossy) picture."""
  return int(round((float(image[2:-2, 2:-2].mean()) - 20) / 6))


def ordinary_priority() -> None:
  """Takes back the real-time priority that SVT-AV1's encoder gives the process that opens it: it
  would starve all others, and be held back by the system's limit on such processes.
  """
  if hasattr(os, "sched_setscheduler"):
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def write_video(
  path,
  frames,
  *,
  fps=10,
  codec="libx264",
  pix_fmt="yuv420p",
  times=None,
  options=None,
  setup=None,
  container=None,
):
  """Writes frames (or that many pictures); `times` in milliseconds give a variable rate.

  Frames may be `av.VideoFrame`s, which are encoded as they are. `setup` is called with the stream
  before it is opened, `container` holds options of the container.
  """
  frames = [picture(t) for t in range(frames)] if isinstance(frames, int) else frames
  os.makedirs(os.path.dirname(str(path)) or ".", exist_ok=True)
  with av.open(str(path), "w", options=container or {}) as container:
    stream = container.add_stream(codec, rate=fractions.Fraction(fps).limit_denominator(1000))
    given = isinstance(frames[0], av.VideoFrame)
    size = (frames[0].height, frames[0].width) if given else frames[0].shape[:2]
    stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
    stream.options = options or (
      {"crf": "10"} if codec == "libx264" else {} if "av1" in codec else {"b": "8000000"}
    )
    if times is not None:
      stream.time_base = stream.codec_context.time_base = fractions.Fraction(1, 1000)
    if setup:
      setup(stream)
    for t, image in enumerate(frames):
      frame = image if given else av.VideoFrame.from_ndarray(image, format="rgb24")
      frame.pts = t if times is None else times[t]
      if times is not None:
        frame.time_base = fractions.Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  ordinary_priority()
  return str(path)


def noise(count: int, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
  """Pictures that compress badly, so that every part of a file matters."""
  return list(np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8))


def damaged_files(folder):
  """Empty, text, cut at the end (header lost), cut with the header in front (frames lost), cut
  WebM.
  """
  folder.mkdir(exist_ok=True)
  whole = pathlib.Path(write_video(folder / "x.mp4", noise(30))).read_bytes()
  options = {"movflags": "faststart", "crf": "10"}
  front = pathlib.Path(write_video(folder / "y.mp4", noise(30), options=options)).read_bytes()
  webm = pathlib.Path(write_video(folder / "z.webm", noise(30), codec="libvpx-vp9")).read_bytes()
  for name in ("x.mp4", "y.mp4", "z.webm"):
    (folder / name).unlink()
  (folder / "empty.mp4").write_bytes(b"")
  (folder / "text.mp4").write_text("this is not a video\n" * 50)
  (folder / "truncated.mp4").write_bytes(whole[: len(whole) * 7 // 10])
  (folder / "truncated_webm.webm").write_bytes(webm[: len(webm) // 2])
  (folder / "truncated_front.mp4").write_bytes(front[: len(front) // 2])


CORNERS = np.array([[220, 30, 30], [30, 200, 30], [30, 30, 220], [230, 230, 230]])


def cornered(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
  """A picture of `CORNERS`: top left, top right, bottom left, bottom right."""
  image = np.empty((height, width, 3), np.uint8)
  halves = (
    (slice(0, height // 2), slice(height // 2, None)),
    (slice(0, width // 2), slice(width // 2, None)),
  )
  for i, color in enumerate(CORNERS):
    image[halves[0][i // 2], halves[1][i % 2]] = color
  return image


def corners(image: np.ndarray) -> np.ndarray:
  """The colors [4, 3] in the middle of the four quarters of a picture."""
  rows, columns = (np.array([1, 3]) * side // 4 for side in image.shape[:2])
  return image[rows][:, columns].reshape(4, 3).astype(int)


def with_sound(path, frames, *, fps=30, late=0.0, codec="libx264"):
  """A video whose sound starts at 0 and whose pictures start `late` seconds after."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=fps)
    stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
    sound = container.add_stream("libopus" if str(path).endswith(".webm") else "aac", rate=48000)
    packets = []
    for t in range(frames):
      frame = av.VideoFrame.from_ndarray(picture(t % 39), format="rgb24")
      frame.pts, frame.time_base = round((t / fps + late) * 90000), fractions.Fraction(1, 90000)
      packets += stream.encode(frame)
    packets += stream.encode(None)
    for t in range(int((frames / fps + late) * 50)):
      frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
      frame.sample_rate, frame.pts = 48000, 960 * t
      packets += sound.encode(frame)
    packets += sound.encode(None)
    for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
      container.mux(packet)
  return str(path)


def video_folder(root, lengths=(12, 9, 15, 7), *, fps=10, annotate=True):
  names = [f"{'abc'[i % 3]}/clip_{i}.mp4" for i in range(len(lengths))]
  for name, length in zip(names, lengths, strict=True):
    write_video(os.path.join(root, name), length, fps=fps)
  if annotate:
    for folder in {os.path.dirname(name) for name in names}:
      entries = {
        os.path.basename(name): f"task {i % 2}"
        for i, name in enumerate(names)
        if os.path.dirname(name) == folder
      }
      with open(os.path.join(root, folder, "lang_annotations.json"), "w") as file:
        json.dump(entries, file)
  return str(root)


def vectors(length, number):
  """(action [T, 3], state [T, 2]) of an episode; the action's first entry is the frame number."""
  t = np.arange(length, dtype=np.float32)
  return np.stack([t, np.full_like(t, number), -t], 1), np.stack([2 * t, t + 10 * number], 1)


class Synthetic:
  """A source in memory; episode `killer` ends its process, as a crashing decoder would.

  Numbers are shown as gray levels. `times(i, length)` gives the seconds of an episode's frames, by
  default at `fps`.
  """

  cameras = ("camera",)
  info = {
    "format": "synthetic",
    "description": "made by a test",
    "action_names": ["a", "b", "c"],
    "state_names": ["x", "y"],
  }
  skipped: list = []

  def __init__(
    self,
    lengths,
    *,
    fps=10.0,
    killer=None,
    task=lambda i: f"task {i % 2}",
    size=(16, 16),
    cameras=("camera",),
    times=None,
    group=None,
    cuts=None,
  ):
    self._times, self._groups, self._cuts = (
      times,
      group or [""] * len(lengths),
      cuts or [()] * len(lengths),
    )
    self._lengths, self._killer, self._size, self.cameras = (
      tuple(lengths),
      killer,
      size,
      tuple(cameras),
    )
    self._fps = tuple(fps) if isinstance(fps, (list, tuple)) else (fps,) * len(self._lengths)
    self._tasks = [task(i) for i in range(len(self._lengths))]
    self.names = tuple(f"episode_{i}" for i in range(len(self._lengths)))

  def __len__(self):
    return len(self.names)

  def image(self, i, t):
    """Frame t of episode i."""
    return picture(t % 39, *self._size)

  def seconds(self, i):
    return (
      np.arange(self._lengths[i]) / self._fps[i]
      if self._times is None
      else self._times(i, self._lengths[i])
    )

  def __getitem__(self, i):
    if i == self._killer:
      os.kill(os.getpid(), signal.SIGKILL)
    action, state = vectors(self._lengths[i], i)

    def frames(geometry):
      return (
        (float(second), geometry.apply(self.image(i, t)))
        for t, second in enumerate(self.seconds(i))
      )

    return episode.RawEpisode(
      self.names[i],
      self._tasks[i],
      dict.fromkeys(self.cameras, frames),
      {"action": action, "state": state},
      group=self._groups[i],
      cuts=self._cuts[i],
    )

  def fingerprint(self):
    return f"{self._lengths}{self._fps}{self._tasks}{self._groups}{self._cuts}"


def shards(root, lengths=(12, 9, 15, 7), *, source=None, **settings):
  """A folder of shards of synthetic episodes."""
  names = ("fps", "task", "size", "cameras", "times", "group", "cuts")
  options = {key: settings.pop(key) for key in names if key in settings}
  source = source or Synthetic(lengths, **options)
  ingests.run(source, str(root), **({"workers": 0, "progress": False} | settings))
  return str(root)


def damage(path, name, *, camera="camera", clip=0, frame=0):
  """Flips a bit of a frame of an episode's stored pictures."""
  table = shard_tables.read_table(str(path))
  row = np.flatnonzero(table.episode == table.episodes.index(name))[clip]
  file = f"{path}/{shard_tables.shard_name(table.shard[row])}"
  index = shard_file.ShardFile(file).index
  sizes = index[f"size/{camera}"][int(index["length"][: table.clip[row]].sum()) :]
  at = (
    int(index[f"offset/{camera}"][table.clip[row]])
    + int(sizes[:frame].sum())
    + int(sizes[frame]) // 2
  )
  content = bytearray(pathlib.Path(file).read_bytes())
  content[at] ^= 4
  pathlib.Path(file).write_bytes(content)


def segments(path, keep=None):
  """(segments, reader) of a folder of shards."""
  found = shard_tables.segments(shard_tables.read_table(str(path)), keep)
  return found, reader.SegmentReader(str(path), found)
