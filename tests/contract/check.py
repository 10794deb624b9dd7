"""Whether what comes out of shards, windows, labels and a LeRobot export is what went in."""

import os
import pathlib

import numpy as np
import pyarrow.parquet as pq

from como_jax.data import index, label_file, labels, lerobot_labels, reader, sequences, shards
from tests.contract import inputs
from tests.data import ingests, lerobot_makers

# seconds: times are rounded to milliseconds, and uniform ones lie within 0.75 ms of them
CLOCK = 1.5e-3
COLOR = {"libx264": 8}  # levels that encoding may cost; another matrix or range costs 15 and more
COARSE = 24  # of the other encoders, whose streams state no matrix
QUICK = {"workers": 0, "progress": False}


def numbers_of(images: np.ndarray, one: inputs.Input) -> list[int]:
  read = inputs.number if one.shows_colors else lerobot_makers.number
  return [read(image) for image in images]


def shards_hold(path: str, found: list[inputs.Input]) -> None:
  """Every frame of every episode, with its time, picture, colors, action and instruction; nothing
  else.
  """
  truth = {name: (one, frames) for one in found for name, frames in one.episodes.items()}
  table = shards.read_table(path)
  segments = shards.segments(table)
  read = reader.SegmentReader(path, segments)
  assert {table.episodes[e] for e in table.episode} == set(truth), sorted(
    set(truth) ^ {table.episodes[e] for e in table.episode}
  )
  assert len(segments) == len(truth), "an episode is cut although nothing in it ends"
  for s in range(len(segments)):
    name = table.episodes[table.episode[segments.first_row[s]]]
    one, frames = truth[name]
    count = segments.length(s)
    assert count == len(frames), f"{one}: {name} has {len(frames)} frames, {count} are stored"
    seconds = read.times(s).seconds_at(np.arange(count))
    away = np.abs(seconds - [frame.seconds for frame in frames]).max()
    assert away <= CLOCK, f"{one}: a time is wrong by {away:.4f} s"
    for camera in table.cameras:
      images = read.images(s, camera, range(count))
      assert not one.shows_colors or images.shape[1:3] == (inputs.HEIGHT, inputs.WIDTH), (
        f"{one}: pictures are not upright"
      )
      assert numbers_of(images, one) == [frame.number for frame in frames], (
        f"{one}: pictures of {camera!r} are others"
      )
      if one.shows_colors:
        off = np.abs(inputs.corner_colors(images[count // 2]) - inputs.CORNERS).max()
        assert off <= COLOR.get(one.choice["codec"], COARSE), (
          f"{one}: colors are off by {off} levels"
        )
    rows = [segments.locate(s, t)[0] for t in range(count)]
    assert [table.tasks[table.task[row]] for row in rows] == [frame.task for frame in frames], (
      f"{one}: instructions are others"
    )
    action = read.read_array(s, "action", 0, count)
    if frames[0].action is None:
      assert action is None
    else:
      np.testing.assert_array_equal(
        action, np.array([frame.action for frame in frames], np.float32), err_msg=str(one)
      )
      np.testing.assert_array_equal(
        read.read_array(s, "action", 3, 7), action[3:7], err_msg=str(one)
      )


def _nearest(seconds: np.ndarray, t: int, offset: float) -> tuple[set[int], bool, bool]:
  """By the rule, from the truth: (the frames that may be t's partner, whether there surely is one,
  whether there surely is none). Times may be off by `CLOCK`, so a choice within twice that is left
  open.
  """
  wanted, slack = seconds[t] + offset, 2 * CLOCK
  away = np.abs(seconds - wanted)
  after = int(np.clip(np.searchsorted(seconds, wanted), 1, len(seconds) - 1))
  tolerance = min((seconds[after] - seconds[after - 1]) / 2 + 1e-3, offset / 5)
  near = away.min()
  allowed = {int(j) for j in np.flatnonzero(away <= near + slack) if j > t}
  return (
    allowed,
    near <= tolerance - slack and bool(allowed) and int(away.argmin()) > t,
    near > tolerance + slack or int(away.argmin()) <= t,
  )


def pairs_follow_the_rule(path: str, found: list[inputs.Input], offset: float) -> int:
  """Windows and labels pair each frame with the one nearest to `offset` later, or with none;
  returns how many pairs there are.
  """
  truth = {
    name: (one, np.array([frame.seconds for frame in frames]))
    for one in found
    for name, frames in one.episodes.items()
  }
  table = shards.read_table(path)
  try:
    windows = index.windows(table, frames=2, offset_seconds=offset, warn=False)
  except ValueError:
    windows = None
  segments = shards.segments(table)
  read = reader.SegmentReader(path, segments)
  partner: dict[tuple[int, int], int] = {}
  for i in range(len(windows) if windows else 0):
    window = windows[i]
    if window.camera == 0:
      partner[window.segment, window.t] = int(
        read.times(window.segment).window(window.t, offset, 2)[1]
      )
  for s in range(len(segments)):
    one, seconds = truth[table.episodes[table.episode[segments.first_row[s]]]]
    pairs = sequences.Pairs.from_times(read.times(s), offset)
    for t in range(segments.length(s)):
      allowed, surely, never = _nearest(seconds, t, offset)
      chosen = partner.get((s, t))
      assert chosen in allowed if chosen is not None else not surely, (
        f"{one}: frame {t} is paired with {chosen} at {offset} s, allowed {allowed}"
      )
      assert not (never and chosen is not None), (
        f"{one}: frame {t} is paired with {chosen} at {offset} s, which is too far"
      )
      assert bool(pairs.valid[t]) == (chosen is not None) and (
        chosen is None or pairs.second[t] == chosen
      ), f"{one}: labels pair otherwise"
      if chosen is not None:
        assert abs(pairs.difference[t] - (seconds[chosen] - seconds[t])) <= 2 * CLOCK, (
          f"{one}: the true difference is another"
        )
  return len(partner)


def export_holds(
  source: str, path: str, one: inputs.Input, folder: pathlib.Path, offset: float
) -> None:
  """Labels whose z is (number of the frame, number of its partner) come back from a LeRobot export,
  beside everything else.
  """
  segments = shards.segments(shards.read_table(path))
  read, table = reader.SegmentReader(path, segments), segments.table
  clips = {}
  for s in range(len(segments)):
    frames = one.episodes[table.episodes[table.episode[segments.first_row[s]]]]
    shown = np.array([frame.number for frame in frames], np.float32)
    pairs = sequences.Pairs.from_times(read.times(s), offset)
    z = np.where(pairs.valid[:, None], np.stack([shown, shown[pairs.second]], 1), 0)
    for row in segments.rows(s):
      part = slice(
        segments.first_frame(s, row), segments.first_frame(s, row) + int(table.length[row])
      )
      clips[segments.clip_location(row)] = (
        int(table.start[row]),
        {
          name: labels.Motion(z[part], pairs.valid[part], pairs.difference[part])
          for name in table.cameras
        },
      )
  os.makedirs(folder / "labels")
  sidecars = [
    label_file.write_shard(
      str(folder / "labels"),
      shard,
      [clips[place] for place in sorted(clips) if place[0] == shard],
      facts={},
    )
    for shard in sorted({place[0] for place in clips})
  ]
  manifest = shards.read_manifest(path)
  label_file.write_manifest(
    str(folder / "labels"),
    sidecars,
    data_shards=path,
    size=2,
    queries=1,
    dims=2,
    offset_seconds=offset,
    cameras=list(table.cameras),
    model={"path": "m", "fingerprint": "f", "config": {}},
    data={"path": source, "fingerprint": manifest["source"]["fingerprint"], "image_size": 0},
  )
  lerobot_labels.export(
    str(folder / "labels"), str(folder / "export"), source=source, shards_path=path
  )
  again = str(folder / "again")
  ingests.run(str(folder / "export"), again, **QUICK)
  shards_hold(again, [one])
  columns = pq.read_table(folder / "export" / "data").to_pydict()
  for camera in table.cameras:
    valid = np.array(columns[f"latent_motion.{camera}.valid"]).reshape(-1)
    z = np.array(columns[f"latent_motion.{camera}"])[valid]
    rows = np.flatnonzero(valid)
    frames = [one.episodes[f"episode_{int(columns['episode_index'][row]):06d}"] for row in rows]
    numbers = [
      (mine[int(columns["frame_index"][row])].number)
      for mine, row in zip(frames, rows, strict=True)
    ]
    np.testing.assert_array_equal(z[:, 0], numbers)
    assert valid.any()
