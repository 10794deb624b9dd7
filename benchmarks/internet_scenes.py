"""Videos like those of the internet, made from generated scenes, with the truth of every frame."""

import dataclasses
import fractions
import pathlib
from collections.abc import Callable, Sequence

import av
import numpy as np
from PIL import Image, ImageDraw

# seconds -> x, y, width (of the canvas's), rotation
Path = Callable[[float], tuple[float, float, float, float]]


@dataclasses.dataclass
class Made:
  """A video and its true properties.

  Attributes:
    name: of the video.
    about: description.
    fps: frames per second.
    frames: images [H, W, 3], all of the same size.
    cut: [T] bool as in `frame_measures.FrameMeasures`.
    still: the same.
    repeated: the same.
    soft: [T] bool, frames within a dissolve or a fade. One cut is expected anywhere in it; `cut`
      marks its middle.
    motion: [T, 4], motion of the camera since the previous frame in widths, zoom, radians; nan
      where it is undefined.
    bars: (top, bottom, left, right), pixels.
    copy_of: name of the video that it copies, "" = none.
    crf: constant rate factor of the H.264 file.
  """

  name: str
  about: str
  fps: float
  frames: list[np.ndarray] = dataclasses.field(default_factory=list)
  cut: list[bool] = dataclasses.field(default_factory=list)
  still: list[bool] = dataclasses.field(default_factory=list)
  repeated: list[bool] = dataclasses.field(default_factory=list)
  soft: list[bool] = dataclasses.field(default_factory=list)
  motion: list[np.ndarray] = dataclasses.field(default_factory=list)
  bars: tuple[int, int, int, int] = (0, 0, 0, 0)
  copy_of: str = ""
  crf: int = 23

  def add(self, image, *, cut=False, still=False, repeated=False, soft=False, motion=None) -> None:
    """Appends a frame and its true properties."""
    # A static camera in front of static objects repeats its frames in every script.
    repeated = repeated or (len(self.frames) > 0 and np.array_equal(image, self.frames[-1]))
    self.frames.append(image)
    self.cut.append(cut and len(self.frames) > 1)
    self.still.append(still)
    self.repeated.append(repeated)
    self.soft.append(soft)
    self.motion.append(np.full(4, np.nan) if motion is None else np.asarray(motion, float))


class Scene:
  """A textured canvas with moving sprites, seen by a camera on a path."""

  def __init__(self, rng: np.random.Generator, *, dark: float = 1.0):
    width, height = 960, 720
    layers = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((4, 50), (12, 35), (40, 25), (120, 15)):
      noise = rng.normal(0, strength, (cells * 3 // 4, cells, 3)).astype(np.float32)
      channels = [
        Image.fromarray(noise[..., c]).resize((width, height), Image.Resampling.BICUBIC)
        for c in range(3)
      ]
      layers += np.stack([np.asarray(channel) for channel in channels], -1)
    image = Image.fromarray(
      np.clip(layers + rng.uniform(60, 180, 3).astype(np.float32), 0, 255).astype(np.uint8)
    )
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(15, 40)):
      x, y, w, h = rng.uniform([-50, -50, 20, 20], [width, height, 220, 180])
      color = tuple(int(value) for value in rng.integers(0, 255, 3))
      shape = [draw.rectangle, draw.ellipse][rng.integers(2)]
      shape(
        [x, y, x + w, y + h], fill=color, outline=tuple(255 - value for value in color), width=3
      )
    self.dark = dark
    self.canvas = Image.fromarray((np.asarray(image) * dark).astype(np.uint8))
    self._sprites = []
    for _ in range(3):
      size = int(rng.integers(40, 110))
      texture = rng.integers(0, 255, (5, 5, 3)).astype(np.float32) * dark
      sprite = Image.fromarray(texture.astype(np.uint8)).resize(
        (size, size), Image.Resampling.BICUBIC
      )
      mask = Image.new("L", (size, size))
      ImageDraw.Draw(mask).ellipse([0, 0, size - 1, size - 1], fill=255)
      path = (
        rng.uniform([300, 200], [660, 520]),
        rng.uniform(60, 200, 2),
        rng.uniform(1, 4, 2),
        rng.uniform(0, 6, 2),
      )
      self._sprites.append((sprite, mask, *path))

  def render(self, seconds: float, view: Sequence[float], height: int, width: int) -> np.ndarray:
    """Renders an image.

    Args:
      seconds: time.
      view: camera (x, y, width, rotation), in widths of the canvas.
      height: of the image.
      width: of the image.

    Returns:
      [height, width, 3].
    """
    canvas = self.canvas.copy()
    for sprite, mask, center, reach, speed, phase in self._sprites:
      x, y = center + reach * np.sin(speed * seconds + phase)
      canvas.paste(sprite, (int(x), int(y)), mask)
    x, y, across, angle = view
    scale = across * canvas.width / width
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    data = (cos, -sin, x * canvas.width - cos * width / 2 + sin * height / 2,
            sin, cos, y * canvas.width - sin * width / 2 - cos * height / 2)  # fmt: skip
    factor = max(1, int(scale))  # supersampling against aliasing
    if factor > 1:
      data = tuple(value / factor if i % 3 != 2 else value for i, value in enumerate(data))
    image = canvas.transform(
      (width * factor, height * factor), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC
    )
    return np.asarray(image.reduce(factor) if factor > 1 else image)


def camera_motion(before: Sequence[float], after: Sequence[float]) -> np.ndarray:
  """Motion [4] of the content between two views: x, y in widths, zoom, rotation."""
  c, s = np.cos(-after[3]), np.sin(-after[3])
  x, y = (before[0] - after[0]) / after[2], (before[1] - after[1]) / after[2]
  return np.array(
    [c * x - s * y, s * x + c * y, np.log(before[2] / after[2]), before[3] - after[3]]
  )


def steady(seconds: float) -> tuple[float, float, float, float]:
  """Path of a static camera."""
  return 0.5, 0.375, 0.55, 0.0


def pan(speed: float) -> Path:
  """Path back and forth, with at most `speed` image widths per second."""
  return lambda s: (0.5 + 0.2 * np.sin(s * speed * 0.45 / 0.2), 0.375, 0.45, 0.0)


def whip(seconds: float) -> tuple[float, float, float, float]:
  """Path that repeats a stop and a move of 0.8 widths within a fifth of a second."""
  turn, phase = divmod(seconds, 1.0)
  share = np.clip((phase - 0.4) / 0.2, 0, 1)
  share = share * share * (3 - 2 * share)
  return 0.38 + 0.24 * (share if turn % 2 == 0 else 1 - share), 0.375, 0.3, 0.0


def zoom(seconds: float) -> tuple[float, float, float, float]:
  """Path of a camera that zooms and rotates."""
  return 0.5, 0.375, 0.5 * np.exp(0.5 * np.sin(1.6 * seconds)), 0.25 * np.sin(1.1 * seconds)


def shake(seconds: float) -> tuple[float, float, float, float]:
  """Path of a shaking camera."""
  x = np.sin(7 * seconds) + np.sin(17.3 * seconds + 1)
  y = np.sin(9 * seconds + 2) + np.sin(21 * seconds)
  return 0.5 + 0.012 * x, 0.375 + 0.01 * y, 0.4, 0.02 * np.sin(11 * seconds)


def shot(
  made: Made,
  scene: Scene,
  path: Path,
  seconds: float,
  size: tuple[int, int],
  *,
  every: int = 1,
  repeat=lambda t: False,
) -> None:
  """Appends a shot after a hard cut.

  Args:
    made: the video.
    scene: of the shot.
    path: of the camera.
    seconds: length of the shot.
    size: height and width.
    every: n = every n-th frame is new, and is shown n times.
    repeat: whether frame t repeats the previous one.
  """
  view = time = None
  image = None
  for t in range(round(seconds * made.fps)):
    if t and (t % every or repeat(t)):
      made.add(image, repeated=True, motion=np.zeros(4))
      continue
    time, before = t / made.fps, view
    view = path(time)
    image = scene.render(time, view, *size)
    made.add(image, cut=t == 0, motion=None if t == 0 else camera_motion(before, view))


def freeze(made: Made, image: np.ndarray, seconds: float, *, cut: bool = True) -> None:
  """Appends one still image: a slide (`cut`), or a stream that stops."""
  number = round(seconds * made.fps)
  for t in range(number):
    new = cut and t == 0
    made.add(image, cut=new, still=True, repeated=not new, motion=None if new else np.zeros(4))


def blend(
  made: Made,
  scenes: tuple[Scene, Scene],
  seconds: float,
  size: tuple[int, int],
  *,
  through: int | None,
) -> None:
  """Appends a dissolve, or a fade through one gray level; its cut is in the middle."""
  first, second = (scene.render(0.0, steady(0), *size) for scene in scenes)
  number = round(seconds * made.fps)
  middle = number // 2
  for t in range(number):
    share = (t + 1) / (number + 1)
    if through is None:
      image = (1 - share) * first + share * second
    else:
      weight = np.clip(2.6 * abs(share - 0.5) - 0.3, 0, 1)
      image = weight * (first if t < middle else second) + (1 - weight) * through
    made.add(image.astype(np.uint8), cut=t == middle, soft=True)


def slide(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
  """Draws a page of text lines."""
  color = tuple(int(value) for value in rng.integers(200, 256, 3))
  image = Image.new("RGB", (size[1], size[0]), color)
  draw = ImageDraw.Draw(image)
  for y in range(int(rng.integers(8, 20)), size[0] - 10, int(rng.integers(9, 16))):
    left, right = int(rng.integers(10, 40)), int(rng.integers(60, size[1] - 10))
    draw.rectangle([left, y, right, y + 4], fill=(20, 20, int(rng.integers(20, 120))))
  x, y = int(rng.integers(10, size[1] // 2)), int(rng.integers(10, size[0] // 2))
  color = tuple(int(value) for value in rng.integers(0, 255, 3))
  draw.rectangle([x, y, x + size[1] // 3, y + size[0] // 3], fill=color)
  return np.asarray(image)


def template_slide(rng: np.random.Generator, size: tuple[int, int], *, dark: bool) -> np.ndarray:
  """Draws a page with its own title and text; header, footer and logo are those of all pages."""
  height, width = size
  paper, ink = ((20, 24, 40), (230, 230, 220)) if dark else ((250, 250, 245), (30, 30, 40))
  image = Image.new("RGB", (width, height), paper)
  draw = ImageDraw.Draw(image)
  draw.rectangle([0, 0, width, 20], fill=(40, 70, 150))
  draw.rectangle([0, height - 10, width, height], fill=(40, 70, 150))
  draw.rectangle([width - 22, 3, width - 4, 16], fill=(220, 180, 40))
  draw.rectangle([8, 6, int(rng.integers(60, width - 50)), 13], fill=(240, 240, 240))
  y = 32
  for _ in range(rng.integers(3, 8)):
    draw.ellipse([12, y, 16, y + 4], fill=ink)
    x, end = 22, int(rng.integers(80, width - 8))
    while x < end:
      letters = int(rng.integers(4, 16))
      draw.rectangle([x, y, min(x + letters, end), y + 4], fill=ink)
      x += letters + 4
    y += int(rng.integers(12, 16))
  return np.asarray(image)


def blocks(number: int, size: tuple[int, int]) -> np.ndarray:
  """Draws an image whose 2 x 8 blocks, black or white, are the 16 bits of a number."""
  bits = np.array([number >> k & 1 for k in range(15, -1, -1)], np.uint8).reshape(2, 8) * 255
  return np.repeat(np.kron(bits, np.ones((size[0] // 2, size[1] // 8), np.uint8))[..., None], 3, 2)


def boxed(
  made: Made, bars: tuple[int, int, int, int], *, color: int = 0, logo_in_bar: bool = False
) -> None:
  """Puts bars around every frame."""
  top, bottom, left, right = bars
  for t, image in enumerate(made.frames):
    out = np.full(
      (image.shape[0] + top + bottom, image.shape[1] + left + right, 3), color, np.uint8
    )
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    if logo_in_bar:
      out[top // 4 : top // 2 + 2, 8:32] = (220, 180, 40)
    made.motion[t][:2] *= image.shape[1] / out.shape[1]  # in widths of the whole frame
    made.frames[t] = out
  made.bars = bars


def logo(made: Made) -> None:
  """Puts a half-transparent logo into a corner of every frame."""
  for t, image in enumerate(made.frames):
    image = image.copy()
    region = image[8:28, image.shape[1] - 44 : image.shape[1] - 8]
    pattern = np.indices(region.shape[:2]).sum(0)[..., None] % 12 < 6
    region[:] = np.where(pattern, 0.2 * region + 0.8 * 240, 0.4 * region + 20).astype(np.uint8)
    made.frames[t] = image


def flash(made: Made, t: int, frames: int, strength: float) -> None:
  """Brightens `frames` frames from t on."""
  for k in range(t, t + frames):
    lit = made.frames[k].astype(float) * (1 + strength) + 120 * strength
    made.frames[k] = np.clip(lit, 0, 255).astype(np.uint8)


def noise(made: Made, rng: np.random.Generator, level: float) -> None:
  """Adds noise with the standard deviation `level` to every frame."""
  for t, image in enumerate(made.frames):
    made.frames[t] = np.clip(image + rng.normal(0, level, image.shape), 0, 255).astype(np.uint8)


def write(made: Made, folder: pathlib.Path) -> pathlib.Path:
  """Writes a video as <folder>/<name>.mp4, H.264."""
  path = folder / f"{made.name}.mp4"
  with av.open(str(path), "w") as container:
    stream = container.add_stream(
      "libx264", rate=fractions.Fraction(made.fps).limit_denominator(1001)
    )
    stream.height, stream.width, stream.pix_fmt = *made.frames[0].shape[:2], "yuv420p"
    stream.options = {"crf": str(made.crf), "threads": "1", "preset": "veryfast"}
    for t, image in enumerate(made.frames):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
      frame.pts = t
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path
