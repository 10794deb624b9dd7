"""One episode to clips: what is cut where, what is told, what is refused."""

import dataclasses
import types

import numpy as np
import pytest

from como_jax.data import clip_plan, episode_encoder, video
from como_jax.data.clip_plan import Span
from tests.data import makers
from tests.data.encoded_episodes import SETTINGS, encode, raw


def rows_of(one, **settings):
  with encode(one, **settings) as found:
    return [row for _, row in found.clips()]


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


def test_progress_is_told_every_128_frames():
  for count, expected in ((300, [128, 128, 44]), (128, [128]), (129, [128, 1]), (5, [5])):
    told = []
    encode(raw(count=count), told=told)
    assert told == expected


def failing(one, **settings):
  with pytest.raises(video.UnreadableError) as caught:
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
  with pytest.raises(video.UnreadableError, match="^camera 'b' is missing$"):
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
