"""One episode to clips: what is cut where, what is told, what is refused."""

import dataclasses
import types

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import (
  clip_plan,
  duplicate_clips,
  duplicates,
  episode,
  episode_encoder,
  frame_codec,
  shard_file,
  video,
)
from como_jax.data.clip_plan import Span
from como_jax.data.ingest_settings import Settings
from tests.data import makers

SETTINGS = Settings(0, "squash", "jpeg", 95, 128, ("a",), 64, {})


def raw(*, count=6, cameras=("a",), task="go", size=(16, 16), seconds=None, **more):
  seconds = np.arange(count) / 10 if seconds is None else seconds

  def frames(geometry):
    return (
      (float(second), geometry.apply(makers.picture(t % 39, *size)))
      for t, second in enumerate(seconds)
    )

  return episode.RawEpisode(
    "e", task, dict.fromkeys(cameras, frames), more.pop("arrays", {}), **more
  )


def encode(one, *, told=None, **settings):
  settings = dataclasses.replace(SETTINGS, cameras=tuple(one.cameras), **settings)
  return episode_encoder.encode(one, settings, (told if told is not None else []).append)


def rows_of(one, **settings):
  with encode(one, **settings) as found:
    return [row for _, row in found.clips()]


@pytest.mark.parametrize(
  "name, low, high, codec",
  [
    ("image_size", 0, 8192, "jpeg"),
    ("clip_frames", 1, 100_000, "jpeg"),
    ("episodes_per_shard", 1, 1_000_000, "jpeg"),
    ("quality", 1, 100, "jpeg"),
    ("quality", 0, 51, "h264"),
  ],
)
def test_limits_of_settings(name, low, high, codec):
  base = dataclasses.replace(SETTINGS, codec=codec, quality=18)
  for value in (low, high):
    made = dataclasses.replace(base, **{name: value})
    assert made.check() is made
  for value in (low - 1, high + 1):
    with pytest.raises(
      errors.UserError, match=f"^ingest {name} is {value}, expected {low} to {high}$"
    ):
      dataclasses.replace(base, **{name: value}).check()


def test_settings_by_name():
  for name, value in (("measure", "onn"), ("resize", "cop"), ("codec", "jpg")):
    with pytest.raises(errors.UserError, match=f"^ingest {name} '{value}': did you mean '.*'"):
      dataclasses.replace(SETTINGS, **{name: value}).check()
  with pytest.raises(errors.UserError):
    dataclasses.replace(SETTINGS, filters={"drop_stil": True}).check()


def test_clips_by_hand():
  keep = np.array([0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1], bool)
  shot = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
  tasks = list("xxxxxxxxxxyy")
  assert clip_plan.cut_clips(keep, shot, tasks, 3) == [
    [Span(1, 4, 0, "x"), Span(4, 5, 0, "x")],
    [Span(6, 7, 0, "x")],
    [Span(7, 10, 1, "x"), Span(10, 12, 1, "y")],
  ]
  assert clip_plan.cut_clips(np.zeros(3, bool), shot, tasks, 3) == []
  assert clip_plan.cut_clips(np.ones(4, bool), shot, tasks, 4) == [[Span(0, 4, 0, "x")]]


def test_rows_of_clips():
  arrays = {"action": np.arange(24, dtype=np.float32).reshape(8, 3)}
  one = raw(
    count=7,
    arrays=arrays,
    task=["x"] * 4 + ["y"] * 4,
    cuts=(0, 5, 7, -1),
    seconds=2 + np.arange(7) / 10,
  )
  with encode(one, clip_frames=3) as found:
    made = list(found.clips())
  assert [(row["start"], row["length"], row["shot"], row["task"]) for _, row in made] == [
    (0, 3, 0, "x"),
    (3, 1, 0, "x"),
    (4, 1, 0, "y"),
    (5, 2, 1, "y"),
  ]
  assert [row["first"] for _, row in made] == pytest.approx([2.0, 2.3, 2.4, 2.5])
  for clip, row in made:
    assert (row["interval"], row["seconds"]) == (pytest.approx(0.1), None)
    assert (
      row["has_action"]
      and not row["has_state"]
      and row["dims"] == {"action": 3}
      and np.isnan(row["motion"])
      and row["duplicate"] is False
    )
    np.testing.assert_array_equal(
      clip.arrays["action"], arrays["action"][row["start"] : row["start"] + row["length"]]
    )
    assert clip.frames["a"].codec == "jpeg" and len(clip.frames["a"].blobs) == row["length"]
    assert (
      makers.number(video.decode_jpeg(clip.frames["a"].blobs[-1]))
      == row["start"] + row["length"] - 1
    )
  assert found.counts == {"kept": 7} and found.notes == []
  uneven = np.array([0.0, 0.1, 0.5, 0.6])
  (row,) = rows_of(raw(count=4, seconds=uneven))
  assert row["seconds"] == uneven.tolist() and row["interval"] == pytest.approx(0.2)


@pytest.mark.parametrize(
  "codec, clip, sizes",
  [
    ("h264", 12, [(12, 2), (11, 2)]),
    ("h264", 10, [(10, 1), (10, 1), (3, 1)]),
    ("jpeg", 20, [(20, 20), (3, 3)]),
  ],
)
def test_frames_lie_in_their_own_clip(codec, clip, sizes):
  assert shard_file.CODECS == {"jpeg": 1, "h264": 10}
  with encode(
    raw(count=23), codec=codec, quality=90 if codec == "jpeg" else 5, clip_frames=clip
  ) as found:
    made = list(found.clips())
  assert [(row["length"], len(one.frames["a"].blobs)) for one, row in made] == sizes
  for one, row in made:
    out = np.zeros((row["length"], 16, 16, 3), np.uint8)
    frame_codec.decode(codec, dict(enumerate(one.frames["a"].blobs)), range(row["length"]), out)
    assert [makers.number(image) for image in out] == list(
      range(row["start"], row["start"] + row["length"])
    )


def test_progress_is_told_every_128_frames():
  for count, expected in ((300, [128, 128, 44]), (128, [128]), (129, [128, 1]), (5, [5])):
    told = []
    encode(raw(count=count), told=told)
    assert told == expected


def failing(one, **settings):
  with pytest.raises(video.Unreadable) as caught:
    encode(one, **settings)
  return str(caught.value)


def test_what_is_refused():
  one = raw(cameras=("a", "b"))
  one.cameras["b"] = lambda geometry: ((t / 10, makers.picture(t, 16, 16)) for t in range(4))
  assert failing(one) == "the cameras have different numbers of frames ('b' ends at 4)"
  one.cameras["b"] = lambda geometry: (
    (t / 10 + (t == 3) * 1.1e-3, makers.picture(t, 16, 16)) for t in range(6)
  )
  assert failing(one) == "frame 3: camera 'a' is at 0.3000 s, 'b' at 0.3011 s"
  one.cameras["b"] = lambda geometry: (
    (t / 10 + 0.9e-3, makers.picture(t, 16, 16)) for t in range(6)
  )
  assert encode(one).counts == {"kept": 6}
  del one.cameras["b"]
  with pytest.raises(video.Unreadable, match="^camera 'b' is missing$"):
    episode_encoder.encode(one, dataclasses.replace(SETTINGS, cameras=("a", "b")), print)
  assert failing(raw(count=0)) == "the episode has no frame"
  assert failing(raw(count=3, seconds=[0.0, 0.1, np.nan])).startswith(
    "time does not go on: frame 1 at 0.100000 s, frame 2 at nan"
  )
  assert failing(raw(count=5, task=["x"] * 4)) == "5 frames but 4 instructions"
  assert (
    failing(raw(count=5, arrays={"state": np.zeros((4, 1), np.float32)}))
    == "5 frames but 4 values of 'state'"
  )


def grows(at):
  one = raw()
  one.cameras["a"] = lambda geometry: (
    (t / 10, makers.picture(t, 16, 16 + 2 * (t >= at))) for t in range(6)
  )
  return one


def test_pictures_may_grow_between_clips_only():
  assert failing(grows(4)) == "camera 'a': the frame size changes between frames 0 and 6"
  assert (
    failing(grows(4), clip_frames=3) == "camera 'a': the frame size changes between frames 3 and 6"
  )
  assert [row["length"] for row in rows_of(grows(3), clip_frames=3)] == [3, 3]
  assert (
    failing(grows(4), codec="h264", quality=18)
    == "the frame size changes from (16, 16) to (16, 18)"
  )
  assert len(rows_of(grows(3), clip_frames=3, codec="h264", quality=18)) == 2


@pytest.mark.parametrize(
  "measure, continuous, filters, measured",
  [
    ("auto", True, {}, False),
    ("auto", False, {}, True),
    ("on", True, {}, True),
    ("off", False, {}, False),
    ("off", True, {"drop_still": True}, True),
  ],
)
def test_what_is_measured(measure, continuous, filters, measured):
  one = raw(count=12, continuous=continuous, cameras=("a", "b"))
  rows = rows_of(one, measure=measure, filters=filters) if not filters else []
  assert all(np.isnan(row["motion"]) != measured for row in rows)
  options = episode_encoder.frame_filters.FilterOptions(**filters)
  made = episode_encoder._measurers(
    one, dataclasses.replace(SETTINGS, measure=measure, cameras=("a", "b")), options
  )
  assert list(made) == (["a", "b"] if measured else [])


def test_facts_of_a_clip_over_cameras(monkeypatch):
  def measured(motion, speed, still, repeated):
    return types.SimpleNamespace(
      motion=np.array(motion),
      speed=np.array(speed),
      still=np.array(still, bool),
      repeated=np.array(repeated, bool),
      global_motion=np.array(speed),
      picture_hash=np.arange(5, dtype=np.uint64),
    )

  monkeypatch.setattr(episode_encoder.frame_filters, "camera_speed", lambda one: one.speed)
  one = measured([9, 1, 3, 9, 8], [9, 4, 6, 9, 0], [1, 1, 1, 1, 0], [0, 1, 0, 1, 1])
  two = measured([9, 2, 4, 9, 0], [9, 3, 5, 9, 1], [1, 0, 1, 1, 1], [1, 1, 1, 1, 0])
  plan = clip_plan.Plan(np.array([0, 1, 2, 4]), np.arange(4.0), [], {"a": one, "b": two}, {}, [])
  assert plan.facts(Span(1, 3, 0, "")) == {
    "motion": 3.0,
    "global_motion": 4.0,
    "still": 0.5,
    "repeated": 0.5,
    "duplicate": False,
  }
  assert plan.facts(Span(2, 4, 0, ""))["motion"] == 5.5  # frames 2 and 4 of the source, camera a
  facts = plan.frame_facts(Span(2, 4, 0, ""))
  assert sorted(facts) == sorted(
    f"{name}/{camera}"
    for name in ("motion", "global_motion", "picture_hash", "still", "repeated")
    for camera in "ab"
  )
  assert facts["motion/a"].tolist() == [3, 8] and facts["picture_hash/b"].tolist() == [2, 4]
  assert episode_encoder._shares((8, 16, 0, 32), 64) == (0.125, 0.25, 0.0, 0.5)


class Opened:
  """A shard with facts of frames."""

  def __init__(self, facts, index=("frame/picture_hash/cam",)):
    self.index, self._facts = index, facts

  def frame_fact(self, clip, name):
    return self._facts[clip, name]


def test_clips_of_which_half_is_known(monkeypatch):
  lengths, asked = {0: 4, 1: 4, 2: 6, 3: 3}, []
  facts = {
    (clip, name): np.full(length, clip + 10 * (name[0] == "m"))
    for clip, length in lengths.items()
    for name in ("picture_hash/cam", "motion/cam")
  }
  opened = {0: Opened(facts), 1: Opened({}, index=())}
  monkeypatch.setattr(
    duplicate_clips.reader,
    "ShardCache",
    lambda output, files: asked.append((output, files)) or opened,
  )

  def find(signatures):
    assert [one.times.tolist() for one in signatures] == [
      [0, 1, 2, 3, 8, 9, 10, 11],
      [5, 6, 7, 9, 11, 13],
    ]
    assert [one.picture_hash.tolist() for one in signatures] == [[0] * 4 + [1] * 4, [2] * 6]
    assert [one.motion.tolist() for one in signatures] == [[10] * 4 + [11] * 4, [12] * 6]
    return [duplicates.Duplicate(1, 0, 3, 0, 4.0), duplicates.Duplicate(0, 3, 6, 1, -2.5)]

  monkeypatch.setattr(duplicate_clips.duplicates, "find", find)
  monkeypatch.setattr(
    duplicate_clips.duplicates,
    "mask",
    lambda found, number, count: (
      np.isin(np.arange(count), [t for one in found for t in range(one.first, one.last)])
      if [one.episode for one in found] == [number]
      else None
    ),
  )

  def row(shard, clip, name, **more):
    return {
      "shard": shard,
      "clip": clip,
      "episode": name,
      "length": lengths[clip],
      "seconds": None,
      "duplicate": False,
    } | more

  rows = [
    row(0, 0, "x", first=0, interval=1),
    row(0, 2, "y", seconds=[5, 6, 7, 9, 11, 13]),
    row(1, 3, "z", first=0, interval=1),
    row(0, 1, "x", first=8, interval=1),
  ]
  notes = duplicate_clips.mark("out", [{"shard": 0}, {"shard": 1}], rows)
  assert asked == [("out", [{"shard": 0}, {"shard": 1}])]
  assert notes == [
    {"name": "y", "note": "from 5.00 to 7.00 s it shows what x shows from 1.00 s on"},
    {"name": "x", "note": "from 3.00 to 9.00 s it shows what y shows from 5.50 s on"},
  ]
  # 3 of 6 frames of y; 1 of 4 and 2 of 4 of x.
  assert [one["duplicate"] for one in rows] == [False, True, False, True]
  assert duplicate_clips._text(-0.001) == "0.00" and duplicate_clips._text(2.345678) == "2.35"
