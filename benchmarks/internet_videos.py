r"""Accuracy of the frame measures of ingest on videos like those of the internet.

These are cuts, bars, stills, repeated frames, camera motion and duplicates.

python benchmarks/internet_videos.py [--videos DIR] [--clips DIR] [--size 0] [--sheets DIR] \
    [--seed 0] [--held-out SEED ...] [--out]
    about a minute on one CPU core, and half a minute for each held-out seed
The program makes 22 videos from generated scenes with known truth (in --videos, else in a temporary
folder). It measures them from their decoded frames as ingest does, filters them, and prints the
truth and the result. --clips adds videos that are cut together from the clips in a folder; each
clip counts as one shot. --size is the size of the measured image, like ingest's image size (0: the
video's own). --sheets writes a contact sheet of every video: blue above a frame is a true cut
before it, red below is a detected one. --held-out adds a section with the figures of videos from
other seeds, which must not be used to choose thresholds.
"""

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import av
import common
import internet_scenes as scenes
import numpy as np
from internet_scores import Score, motion_error, score_cuts, score_mask
from PIL import Image

from como_jax.data import duplicates, frame_filters, frame_measures, video

SIZE = (144, 192)  # height and width of the generated pictures
FILTERS = frame_filters.FilterOptions(
  drop_still=True,
  drop_repeated=True,
  crop_bars=True,
  max_global_motion=0.5,
  drop_duplicates=True,
  min_shot_seconds=0.3,
)


def make(seed: int) -> list[scenes.Made]:
  """Makes the 22 videos."""
  rng = np.random.default_rng(seed)
  videos: list[scenes.Made] = []

  def new(name: str, about: str, fps: float = 25.0, **settings) -> scenes.Made:
    videos.append(scenes.Made(f"{len(videos) + 1:02d}_{name}", about, fps, **settings))
    return videos[-1]

  def shots(
    made: scenes.Made, lengths, paths=(scenes.steady,), size=SIZE, **settings
  ) -> scenes.Made:
    for number, seconds in enumerate(lengths):
      scenes.shot(made, scenes.Scene(rng), paths[number % len(paths)], seconds, size, **settings)
    return made

  moving = (scenes.steady, scenes.pan(0.3), scenes.shake, scenes.zoom)
  shots(new("plain", "one shot, camera stands"), [6])
  shots(new("cuts", "8 shots"), [1.6, 1.2, 0.9, 2, 1.4, 1.1, 1.7, 1], moving)
  shots(new("fast_cuts", "14 shots of 0.3 to 0.5 s"), rng.uniform(0.3, 0.5, 14), moving)
  letterbox = shots(
    new("letterbox", "bars above and below, logo in one, 3 shots"), [2, 2, 1.5], moving
  )
  scenes.boxed(letterbox, (28, 28, 0, 0), logo_in_bar=True)
  dark = new("pillarbox_dark", "bars left and right, dark scenes, noise")
  for _ in range(2):
    scenes.shot(dark, scenes.Scene(rng, dark=0.25), scenes.pan(0.2), 2.5, SIZE)
  scenes.noise(dark, rng, 3)
  scenes.boxed(dark, (0, 0, 36, 36))
  shots(new("phone", "vertical, hand-held", 30.0), [5], (scenes.shake,), (208, 118))
  phone = shots(
    new("phone_in_wide", "vertical, hand-held, between white bars", 30.0),
    [4],
    (scenes.shake,),
    (144, 82),
  )
  scenes.boxed(phone, (0, 0, 56, 54), color=255)
  slides = new("slides", "5 slides of 2 s")
  for _ in range(5):
    scenes.freeze(slides, scenes.slide(rng, SIZE), 2.0)
  frozen = shots(
    new("frozen", "a stream that stops for 2 s, then another shot"), [3], (scenes.shake,)
  )
  scenes.freeze(frozen, frozen.frames[-1], 2.0, cut=False)
  shots(frozen, [2], (scenes.pan(0.3),))
  shots(
    new("doubled", "every frame twice, 2 shots"), [3, 3], (scenes.shake, scenes.pan(0.6)), every=2
  )
  shots(
    new("one_in_five", "every fifth frame repeated", 30.0),
    [5],
    (scenes.pan(0.4),),
    repeat=lambda t: t % 5 == 4,
  )
  scenes.logo(
    shots(
      new("logo", "a logo over 3 shots"), [2, 2, 2], (scenes.pan(0.4), scenes.zoom, scenes.shake)
    )
  )
  pans = (scenes.pan(0.1), scenes.pan(0.8), scenes.pan(2.5))
  shots(new("pans", "slow, then fast pans in one shot each", 30.0), [3, 3, 3], pans)
  shots(new("whip_pans", "one shot with whip pans", 30.0), [6], (scenes.whip,))
  shots(new("zoom", "zoom and rotation"), [6], (scenes.zoom,))
  fades = new("fades", "dissolve, fade through black, fade through white")
  row = [scenes.Scene(rng) for _ in range(4)]
  for number, (scene, through) in enumerate(zip(row, (None, 0, 255, None), strict=True)):
    first = len(fades.frames)
    scenes.shot(fades, scene, scenes.steady, 1.6, SIZE)
    fades.cut[first] = False
    if number < 3:
      scenes.blend(fades, (scene, row[number + 1]), 1.0, SIZE, through=through)
  flashes = shots(
    new("flashes", "7 flashes of 1 to 3 frames in 2 shots"), [4, 3], (scenes.steady, scenes.shake)
  )
  lights = ((12, 1, 1), (30, 2, 3), (50, 3, 0.6), (72, 1, 8), (115, 1, 1), (135, 3, 2), (155, 2, 8))
  for t, frames, strength in lights:
    scenes.flash(flashes, t, frames, strength)
  mixed = shots(
    new("mixed", "bars, logo, noise, cuts, a slide, doubled frames", 30.0), [1.5, 1.2], moving
  )
  scenes.freeze(mixed, scenes.slide(rng, SIZE), 1.5)
  shots(mixed, [1.6, 2], (scenes.shake, scenes.pan(0.5)), every=2)
  scenes.logo(mixed)
  scenes.noise(mixed, rng, 2)
  scenes.boxed(mixed, (16, 16, 0, 0))
  smaller, trimmed = (
    "video 02 at 2/3 of the size, encoded worse",
    "video 12 from 1.2 s on, encoded worse",
  )
  videos.append(copy(videos[1], "19_again_smaller", smaller, crf=32, scale=2 / 3))
  videos.append(copy(videos[11], "20_again_trimmed", trimmed, crf=30, first=30))
  alike = new("alike_slides", "8 slides of one template, half of them dark, 1.2 s each")
  for number in range(8):
    scenes.freeze(alike, scenes.template_slide(rng, SIZE, dark=number > 3), 1.2)
  counting = new("counting", "a test picture that counts in 2 x 8 blocks of black and white")
  first = int(rng.integers(0, 60000))
  for number in range(first, first + 100):
    counting.add(scenes.blocks(number, SIZE))
  return videos


def copy(
  made: scenes.Made, name: str, about: str, *, crf: int, first: int = 0, scale: float = 1.0
) -> scenes.Made:
  """A video that shows another one again."""
  lists = {
    key: getattr(made, key)[first:]
    for key in ("frames", "cut", "still", "repeated", "soft", "motion")
  }
  lists["cut"] = [False, *lists["cut"][1:]]
  lists["motion"] = [np.full(4, np.nan), *lists["motion"][1:]]
  size = [round(side * scale / 2) * 2 for side in made.frames[0].shape[:2]]
  scaled = [
    Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC) for image in lists["frames"]
  ]
  lists["frames"] = [np.asarray(image) for image in scaled]
  return scenes.Made(name, about, made.fps, **lists, bars=made.bars, copy_of=made.name, crf=crf)


def from_clips(folder: pathlib.Path, seed: int) -> list[scenes.Made]:
  """Videos cut together from stretches of five clips of a folder, every clip once."""
  rng = np.random.default_rng(seed)
  paths = sorted(
    path for path in folder.rglob("*") if path.suffix in (".mp4", ".webm", ".mkv", ".avi", ".mov")
  )
  videos = []
  order = rng.permutation(len(paths))
  for i in range(len(paths) // 5):
    made = scenes.Made(f"clips_{i:02d}", "cut together from clips", 25.0)
    for path in (paths[number] for number in order[5 * i : 5 * i + 5]):
      frames = [image for _, image in decode(path, video.Geometry(192))]
      first = int(rng.integers(0, max(1, len(frames) - 40)))
      for t, image in enumerate(frames[first : first + 40]):
        made.add(image, cut=t == 0)
    videos.append(made)
  return videos


def decode(path: pathlib.Path, geometry: video.Geometry):
  """Yields (seconds, image) of every frame."""
  with av.open(str(path)) as container:
    for frame in container.decode(video=0):
      yield float(frame.pts * frame.time_base), geometry.apply(frame.to_ndarray(format="rgb24"))


@dataclasses.dataclass
class Found:
  """Measures of one video, and CPU seconds of the measuring per frame."""

  measures: frame_measures.FrameMeasures
  seconds_per_frame: float


def measure(path: pathlib.Path, size: int) -> Found:
  """Decodes and measures one video."""
  measurer, cpu = frame_measures.FrameMeasurer(FILTERS.still_seconds), 0.0
  for seconds, image in decode(path, video.Geometry(size)):
    begin = time.process_time()
    measurer.add(seconds, image)
    cpu += time.process_time() - begin
  begin = time.process_time()
  measures = measurer.finish()
  return Found(measures, (cpu + time.process_time() - begin) / len(measures))


def sheet(made: scenes.Made, found: Found, path: pathlib.Path) -> None:
  """Writes a contact sheet with every n-th frame and all frames around cuts."""
  cut = np.array(made.cut)
  around = {t + k for t in np.flatnonzero(cut | found.measures.cut) for k in (-1, 0)}
  chosen = sorted({*range(0, len(cut), max(1, len(cut) // 40)), *around})
  tiles = []
  for t in chosen:
    tile = np.asarray(Image.fromarray(made.frames[t]).resize((112, 84)))
    tile = np.pad(tile, ((3, 3), (3, 3), (0, 0)))
    if cut[t]:
      tile[:3] = (0, 80, 255)
    if found.measures.cut[t]:
      tile[-3:] = (255, 0, 0)
    tiles.append(tile)
  tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 10)
  rows = [np.concatenate(tiles[i : i + 10], 1) for i in range(0, len(tiles), 10)]
  Image.fromarray(np.concatenate(rows)).save(path)


def compare(
  videos: list[scenes.Made], found: list[Found], size: int
) -> tuple[list[str], dict[str, str]]:
  """The table with its explanation, and what is found in all of them: {what: figures}."""
  every = [one.measures for one in found]
  copies = duplicates.find(
    [duplicates.Signature(one.times, one.picture_hash, one.motion) for one in every]
  )
  rows, hard, soft, still, repeated = [], Score(), Score(), Score(), Score()
  errors, wrong_bars, copy_score, names = [], 0, Score(), [made.name for made in videos]
  total: dict[str, int] = {}
  for number, (made, one) in enumerate(zip(videos, found, strict=True)):
    measures = one.measures
    if len(measures) != len(made.frames):
      raise SystemExit(f"{made.name}: {len(made.frames)} frames made, {len(measures)} read")
    known = duplicates.mask(copies, number, len(measures))
    result = frame_filters.filter_frames([measures], FILTERS, known)
    for reason, frames in result.counts.items():
      total[reason] = total.get(reason, 0) + frames
    cuts, fades = score_cuts(made, measures.cut)
    stills, repeats = (
      score_mask(made.still, measures.still),
      score_mask(made.repeated, measures.repeated),
    )
    hard, soft, still, repeated = hard + cuts, soft + fades, still + stills, repeated + repeats
    error = motion_error(made, measures, size)
    errors.append(error)
    height, width = made.frames[0].shape[:2]
    scale = (size / height, size / height, size / width, size / width) if size else (1.0,) * 4
    off = max(abs(a - b * s) for a, b, s in zip(measures.bars, made.bars, scale, strict=True))
    wrong_bars += off > 1.5
    of = next((names[one.of] for one in copies if one.episode == number), "")
    right, wrong = of == made.copy_of != "", of not in ("", made.copy_of)
    copy_score += Score(int(right), int(made.copy_of != "" and not right), int(wrong))
    done = [f"{key} {value}" for key, value in result.counts.items()]
    rows.append(
      (
        made.name,
        made.about,
        len(measures),
        cuts.short,
        fades.short,
        stills.short,
        repeats.short,
        f"{'/'.join(map(str, measures.bars))} ({'/'.join(map(str, made.bars))})",
        f"{np.median(error[:, 0]):.3f} of {error[:, 1].max():.2f}" if len(error) else "",
        of[:2] and f"{of[:2]} ({made.copy_of[:2]})",
        " ".join(done),
      )
    )
  error = np.concatenate(errors)
  moving = error[error[:, 1] > 0.05]
  columns = (
    "video",
    "made",
    "frames",
    "cuts",
    "fades",
    "still",
    "repeated",
    "bars",
    "camera",
    "copy of",
    "filtered",
  )
  share, cost = (
    moving[:, 0] / moving[:, 1],
    1e3 * np.array([one.seconds_per_frame for one in found]),
  )
  figures = {
    "hard cuts": str(hard),
    "dissolves and fades": str(soft),
    "still frames": str(still),
    "repeated frames": str(repeated),
    "bars wrong by more than a pixel": f"{wrong_bars} of {len(videos)} videos",
    "duplicates": str(copy_score),
    "camera's translation": (
      f"error {np.median(error[:, 0]):.4f} widths per second in the median, "
      f"{np.quantile(error[:, 0], 0.9):.3f} at 90 %; where it is above 0.05, "
      f"{np.median(share):.1%} and {np.quantile(share, 0.9):.1%} of it"
    ),
    "cost": f"{cost.mean():.2f} ms of CPU time a frame, {cost.min():.2f} to {cost.max():.2f}",
    "all filters on": ", ".join(f"{key} {value}" for key, value in total.items()),
  }
  explanation = (
    "cuts, fades, still, repeated: found/made +false; bars: top/bottom/left/right found (made), "
    "pixels; camera: median error of the largest speed made, widths per second; copy of: found "
    "(made); filtered: frames kept, and dropped by reason"
  )
  return [common.table(columns, rows), explanation], figures


def held_out(seeds: Sequence[int], size: int) -> list[str]:
  """Formats the section of the held-out seeds, with the videos whose cuts have errors."""
  columns, notes = {}, []
  for seed in seeds:
    with tempfile.TemporaryDirectory() as folder:
      videos = make(seed)
      found = [measure(scenes.write(made, pathlib.Path(folder)), size) for made in videos]
    columns[seed] = compare(videos, found, size)[1]
    for made, one in zip(videos, found, strict=True):
      hard, soft = score_cuts(made, one.measures.cut)
      if hard.missed or hard.false or soft.missed or soft.false:
        notes.append(f"- seed {seed}, {made.name}: hard cuts {hard.short}, fades {soft.short}")
  rows = [(what, *(figures[what] for figures in columns.values())) for what in columns[seeds[0]]]
  about = "Nothing was changed after these were seen. Videos in which a cut is missed or false:"
  return ["## Held-out seeds", common.table(("", *(f"seed {seed}" for seed in seeds)), rows), about,
          "\n".join(notes) or "none"]  # fmt: skip


def main() -> None:
  """Makes and measures the videos, and prints the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--videos", type=pathlib.Path, help="keep the videos here")
  parser.add_argument("--clips", type=pathlib.Path)
  parser.add_argument("--size", type=int, default=0)
  parser.add_argument("--sheets", type=pathlib.Path)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--held-out", type=int, nargs="+", default=[], metavar="SEED")
  common.add_options(parser, rounds=None)
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = options.videos or pathlib.Path(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    videos = make(options.seed) + (from_clips(options.clips, options.seed) if options.clips else [])
    found = [measure(scenes.write(made, folder), options.size) for made in videos]
  if options.sheets:
    options.sheets.mkdir(parents=True, exist_ok=True)
    for made, one in zip(videos, found, strict=True):
      sheet(made, one, options.sheets / f"{made.name}.png")
  parts, figures = compare(videos, found, options.size)
  parts.append("\n".join(f"- {what}: {figure}" for what, figure in figures.items()))
  parts += held_out(options.held_out, options.size) if options.held_out else []
  common.finish(
    "internet-videos", "What is found in videos as the internet has them", parts, options
  )


if __name__ == "__main__":
  main()
