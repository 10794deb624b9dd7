"""Generated inputs whose truth is the generator's own list: videos of every kind, and LeRobot sets,
with pictures that carry their number.

An input is drawn from a seed. Its truth is a list of frames: when each is, which number its picture
shows, its action and its instruction. A new format joins with a writer, `write(input, folder)`,
which writes the data set to folder/"set": one entry of `WRITERS` in test_contract.py, and a test
there that calls `judge` with inputs of that kind (see that of tfds). Where pictures keep their
colors (`shows_colors`), `choice["codec"]` names the codec, and check.COLOR has its tolerance.

A picture shows, upright, four corner colors around a block code: 2 rows of 8 blocks are the 16 bits
of its number in Gray code (so that neighbors differ by one block, and no picture looks like a cut).
"""

import dataclasses
import fractions
import functools
import itertools
import os
from collections.abc import Callable, Iterator

import av
import numpy as np
import pyarrow as pa

from tests.data import lerobot_makers, makers

HEIGHT, WIDTH = 64, 96
# top left, top right, bottom left, bottom right
CORNERS = np.array([[220, 30, 30], [30, 200, 30], [30, 30, 220], [230, 230, 230]])
BORDER = 8
_BLOCKS = (24, 10)  # height and width of a block

# What may vary, and its values. A video has one of each of the first five, a LeRobot set of the
# others.
DIMENSIONS: dict[str, tuple[str, ...]] = {
  "codec": ("libx264", "mpeg4", "mpeg2video", "mjpeg", "libvpx", "libvpx-vp9", "libsvtav1"),
  "container": ("mp4", "mov", "mkv", "webm", "avi", "ts"),
  "timing": ("even", "late", "jitter", "gap", "dropped", "two rates"),
  "turn": ("0", "90", "180", "270", "mirrored", "flipped", "mirrored 90", "mirrored 270"),
  "color": ("untagged", "bt601 limited", "bt601 full", "bt709 limited", "bt709 full"),
  "layout": ("v2.1 video", "v2.1 image", "v3.0 video", "v3.0 image", "v3.0 split"),
  "clock": ("even", "jitter"),
  "names": ("usual", "openpi"),
  "instruction": ("one", "changes"),
  "numbers": ("int", "float"),
}
VIDEO, LEROBOT = tuple(DIMENSIONS)[:5], tuple(DIMENSIONS)[5:]
_CODECS = {
  "mp4": ("libx264", "mpeg4", "libsvtav1", "mjpeg", "libvpx-vp9"),
  "mov": ("libx264", "mjpeg", "mpeg4"),
  "mkv": ("libx264", "libvpx", "libvpx-vp9", "mjpeg", "mpeg2video", "libsvtav1"),
  "webm": ("libvpx", "libvpx-vp9", "libsvtav1"),
  "avi": ("mpeg4", "mjpeg"),
  "ts": ("libx264", "mpeg2video"),
}
_TAGGED = ("libx264",)  # writes matrix and range into its stream


def possible(**choice: str) -> bool:
  """Whether a file can hold these values together: a container holds some codecs; only mp4 and mov
  hold a display matrix; avi and MPEG-2 have one rate and no time stamps of their own; the matrix
  and the range of colors are written by some encoders.
  """
  container, codec = choice.get("container"), choice.get("codec")
  if container and codec and codec not in _CODECS[container]:
    return False
  timing, turn, color = (
    choice.get("timing", "even"),
    choice.get("turn", "0"),
    choice.get("color", "untagged"),
  )
  if (
    (container == "avi" or codec == "mpeg2video")
    and timing not in ("even", "late")
    or (container == "avi" and timing != "even")
  ):
    return False
  if codec == "mpeg4" and timing not in ("even", "late"):
    return False
  if turn != "0" and (
    (container and container not in ("mp4", "mov")) or codec in ("mpeg2video", "libvpx")
  ):
    return False
  return not (
    color != "untagged" and (codec and codec not in _TAGGED or container in ("webm", "avi"))
  )


def pairs() -> Iterator[tuple[tuple[str, str], tuple[str, str], bool]]:
  """((dimension, value), (dimension, value), whether a file can hold both) of all pairs of one kind
  of input.
  """
  for kind in (VIDEO, LEROBOT):
    for a, b in itertools.combinations(kind, 2):
      for x, y in itertools.product(DIMENSIONS[a], DIMENSIONS[b]):
        yield (a, x), (b, y), any(choice[a] == x and choice[b] == y for choice in _whole(kind))


@dataclasses.dataclass(frozen=True)
class Frame:
  """The truth of one frame: seconds on its episode's clock, the number its picture shows, its
  action and instruction.
  """

  seconds: float
  number: int
  action: tuple[float, ...] | None
  task: str


@dataclasses.dataclass
class Input:
  """One generated input.

  Attributes:
    seed: it is drawn from.
    kind: "video", "lerobot" or "tfds".
    choice: dimension -> value.
    episodes: name -> frames, filled in by its writer.
    shows_colors: whether its pictures have the corner colors.
    frame_rate: the source option that its reader needs, 0 = none.
  """

  seed: int
  kind: str
  choice: dict[str, str]
  episodes: dict[str, list[Frame]] = dataclasses.field(default_factory=dict)
  shows_colors: bool = True
  frame_rate: float = 0.0

  def __str__(self) -> str:
    return (
      f"input {self.seed} ({self.kind}: "
      f"{', '.join(f'{key} {value}' for key, value in self.choice.items())})"
    )


@functools.cache
def _whole(names: tuple[str, ...]) -> list[dict[str, str]]:
  """All choices that a file can hold."""
  return [
    choice
    for values in itertools.product(*(DIMENSIONS[name] for name in names))
    if possible(**(choice := dict(zip(names, values, strict=True))))
  ]


def draw(count: int, first_seed: int = 0) -> list[Input]:
  """So many inputs, two videos to one LeRobot set; values and pairs that came seldom are
  preferred.
  """
  seen: dict[tuple, int] = {}
  found = []
  for seed in range(first_seed, first_seed + count):
    rng = np.random.default_rng(seed)
    kind = "lerobot" if seed % 3 == 2 else "video"
    names = LEROBOT if kind == "lerobot" else VIDEO
    best, fewest, whole = {}, np.inf, _whole(names)
    for i in rng.choice(len(whole), min(len(whole), 400), replace=False):
      choice = whole[i]
      singles = [200.0 / (1 + seen.get(item, 0)) ** 2 for item in choice.items()]
      doubles = [
        1.0 / (1 + seen.get(pair, 0)) ** 2 for pair in itertools.combinations(choice.items(), 2)
      ]
      cost = -sum(singles) - sum(doubles)
      if cost < fewest:
        best, fewest = choice, cost
    for item in [*best.items(), *itertools.combinations(best.items(), 2)]:
      seen[item] = seen.get(item, 0) + 1
    found.append(Input(seed, kind, best))
  return found


def picture(number: int) -> np.ndarray:
  """The upright picture of a number, uint8 [HEIGHT, WIDTH, 3]."""
  image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
  for i, color in enumerate(CORNERS):
    image[
      i // 2 * HEIGHT // 2 : (i // 2 + 1) * HEIGHT // 2,
      i % 2 * WIDTH // 2 : (i % 2 + 1) * WIDTH // 2,
    ] = color
  gray = number ^ number >> 1
  bits = np.array([gray >> (15 - i) & 1 for i in range(16)], np.uint8).reshape(2, 8)
  image[BORDER:-BORDER, BORDER:-BORDER] = (20 + 210 * np.kron(bits, np.ones(_BLOCKS, np.uint8)))[
    ..., None
  ]
  return image


def number(image: np.ndarray) -> int:
  """The number that a picture of `picture`'s size shows."""
  rows = BORDER + (np.arange(2) + 0.5) * _BLOCKS[0]
  columns = BORDER + (np.arange(8) + 0.5) * _BLOCKS[1]
  bits = image[rows.astype(int)][:, columns.astype(int)].mean(-1).reshape(-1) > 127
  gray = int("".join("1" if bit else "0" for bit in bits), 2)
  found = 0
  while gray:
    found, gray = found ^ gray, gray >> 1
  return found


def corner_colors(image: np.ndarray) -> np.ndarray:
  """[4, 3]: top left, top right, bottom left, bottom right."""
  edge = 3
  return np.array(
    [image[edge, edge], image[edge, -edge], image[-edge, edge], image[-edge, -edge]], int
  )


# Display matrices (a, b, c, d) of turns, and how a picture must be stored so that it is upright
# when it is shown.
_TURNS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
  "0": ((1, 0, 0, 1), lambda image: image),
  "90": ((0, 1, -1, 0), lambda image: np.rot90(image, 1)),
  "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
  "270": ((0, -1, 1, 0), lambda image: np.rot90(image, 3)),
  "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
  "flipped": ((1, 0, 0, -1), lambda image: image[::-1]),
  "mirrored 90": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
  "mirrored 270": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}
_MATRICES = {"bt601": ("ITU601", 6, 6, 6), "bt709": ("ITU709", 1, 1, 1)}


def _milliseconds(timing: str, rng: np.random.Generator, rates: tuple[int, ...]) -> np.ndarray:
  """Times of the frames of a video, whole milliseconds."""
  rate = float(rng.choice(rates))
  count, step = int(rng.integers(18, 32)), 1000 / rate
  even = np.arange(count) * step
  if timing == "late":
    even = even + 700
  elif timing == "jitter":
    even[1:] += rng.uniform(-0.3, 0.3, count - 1) * step
  elif timing == "gap":
    even[count // 2 :] += 1500
  elif timing == "dropped":
    even = np.delete(np.arange(count + 5) * step, rng.choice(np.arange(2, count), 5, replace=False))
  elif timing == "two rates":
    even = np.concatenate(
      [even[: count // 2], even[count // 2] + np.arange(count - count // 2) * 2.5 * step]
    )
  return np.rint(even).astype(int)


def write_video(one: Input, folder: str) -> None:
  """One video file, an episode.

  Times are whole milliseconds; of containers with a rate only, multiples of its interval.
  """
  rng, choice = np.random.default_rng([one.seed, 1]), one.choice
  # MPEG-2 has a list of rates
  rates = (25, 30, 50) if choice["codec"] == "mpeg2video" else (10, 15, 20, 25, 30, 50)
  times = _milliseconds(choice["timing"], rng, rates)
  first, name = int(rng.integers(0, 2000)), f"{one.seed:04d}.{choice['container']}"
  numbers = first + np.arange(len(times))
  matrix, stored = _TURNS[choice["turn"]]
  codec, rate = choice["codec"], 1000 / np.median(np.diff(times))
  own_times = possible(container=choice["container"], codec=codec, timing="late")
  with av.open(os.path.join(folder, name), "w") as container:
    stream = container.add_stream(
      codec, rate=fractions.Fraction(rate).limit_denominator(1 if codec == "mpeg2video" else 60)
    )
    example = stored(picture(0))
    stream.height, stream.width, stream.pix_fmt = (
      *example.shape[:2],
      "yuvj420p" if codec == "mjpeg" else "yuv420p",
    )
    stream.options = {
      "libx264": {"crf": "6", "bf": str(int(rng.integers(0, 3)))},
      "libsvtav1": {"crf": "10", "preset": "8"},
      "mjpeg": {"qmin": "1", "q": "2"},
    }.get(codec, {"b": "4000000"})
    if own_times and codec not in ("mpeg4", "mpeg2video"):
      stream.time_base = stream.codec_context.time_base = fractions.Fraction(1, 1000)
    space, full = "ITU601", codec == "mjpeg"
    if choice["color"] != "untagged":
      name_of, width = choice["color"].split()
      space, *codes = _MATRICES[name_of]
      full = width == "full"
      context = stream.codec_context
      context.colorspace, context.color_primaries, context.color_trc = codes
      context.color_range = 2 if full else 1
    if choice["turn"] != "0":
      unit = 1 << 16
      stream.set_display_matrix(
        [
          matrix[0] * unit,
          matrix[1] * unit,
          0,
          matrix[2] * unit,
          matrix[3] * unit,
          0,
          0,
          0,
          1 << 30,
        ]
      )
    for t, number_of in enumerate(numbers):
      frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(stored(picture(int(number_of)))), format="rgb24"
      )
      frame = frame.reformat(
        format=stream.pix_fmt, dst_colorspace=space, dst_color_range="JPEG" if full else "MPEG"
      )
      if own_times and codec not in ("mpeg4", "mpeg2video"):
        frame.pts, frame.time_base = int(times[t]), fractions.Fraction(1, 1000)
      else:
        late = (
          round(0.7 * float(stream.codec_context.rate or rate)) if choice["timing"] == "late" else 0
        )
        frame.pts, frame.time_base = (
          t + late,
          1 / stream.codec_context.rate
          if stream.codec_context.rate
          else fractions.Fraction(1, round(rate)),
        )
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    if not own_times or codec in ("mpeg4", "mpeg2video"):
      times = np.arange(len(numbers)) * 1000 / float(stream.codec_context.rate or rate)
  makers.ordinary_priority()
  one.episodes[name] = [
    Frame((ms - times[0]) / 1000, int(n), None, "") for ms, n in zip(times, numbers, strict=True)
  ]


def write_lerobot(one: Input, folder: str) -> None:
  """One LeRobot set of two or three episodes of one or two cameras."""
  rng, choice = np.random.default_rng([one.seed, 1]), one.choice
  version, layout = choice["layout"].split()
  lengths = tuple(int(n) for n in rng.integers(8, 20, int(rng.integers(2, 4))))
  fps = int(rng.choice([10, 15, 20, 30]))
  openpi = choice["names"] == "openpi"
  cameras = ("image", "wrist_image") if openpi else (lerobot_makers.TOP, lerobot_makers.WRIST)
  jitters = [rng.uniform(-0.2, 0.2, n) / fps * (choice["clock"] == "jitter") for n in lengths]
  action, state = ("actions", "state") if openpi else ("action", "observation.state")

  def rows(e: int, columns: dict) -> dict:
    seconds = np.arange(lengths[e]) / fps + jitters[e]
    columns["timestamp"] = pa.array(seconds - min(0.0, seconds[0]), pa.float32())
    if choice["instruction"] == "changes":
      columns["task_index"] = pa.array((np.arange(lengths[e]) >= lengths[e] // 2).astype(int))
    if choice["numbers"] == "float":
      columns |= {
        name: pa.array(np.asarray(columns[name], np.float64))
        for name in ("frame_index", "episode_index", "index", "task_index")
      }
    return columns

  files = (
    {camera: [[e] for e in range(len(lengths))] for camera in cameras[:1]}
    if layout == "split"
    else {}
  )
  kinds = {"images": cameras} if layout == "image" else {"videos": cameras}
  lerobot_makers.Folder(
    version=version,
    lengths=lengths,
    fps=fps,
    action=action,
    state=state,
    rows=rows,
    files=files,
    **({"videos": (), "images": ()} | kinds),
  ).write(os.path.join(folder, "set"))
  one.shows_colors = False
  for e, length in enumerate(lengths):
    shift = min(0.0, float(jitters[e][0]))
    tasks = [
      lerobot_makers.TASKS[int(t >= length // 2) if choice["instruction"] == "changes" else e % 2]
      for t in range(length)
    ]
    one.episodes[f"episode_{e:06d}"] = [
      Frame(t / fps + jitters[e][t] - shift, 1000 * e + t, (e, t, t / 2), tasks[t])
      for t in range(length)
    ]


WRITERS = {"video": write_video, "lerobot": write_lerobot}
