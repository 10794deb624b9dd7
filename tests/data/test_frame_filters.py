"""Filters on measures made by hand."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import frame_filters, frame_measures
from como_jax.data.frame_filters import FilterOptions, Reason


def measures(count=40, *, fps=10.0, **given):
  values = {
    "times": 2.0 + np.arange(count) / fps,
    "cut": np.zeros(count, bool),
    "motion": np.full(count, 5, np.float32),
    "global_motion": np.zeros((count, 4), np.float32),
    "picture_hash": np.arange(count, dtype=np.uint64),
    "repeated": np.zeros(count, bool),
    "still": np.zeros(count, bool),
    "bars": (0, 0, 0, 0),
    "overlay": 0.0,
  }
  for name, value in given.items():
    if isinstance(value, (list, range)):
      flags = np.zeros(count, bool)
      flags[list(value)] = True
      value = flags
    values[name] = value
  return frame_measures.FrameMeasures(**values)


def run(one, duplicate=None, **options):
  cameras = one if isinstance(one, list) else [one]
  return frame_filters.filter_frames(cameras, FilterOptions(**options), duplicate)


def dropped(result, reason):
  return np.flatnonzero(result.reason == reason).tolist()


def test_nothing_is_dropped_by_default_and_cuts_part_segments():
  result = run(measures(still=range(5, 20), repeated=range(6, 20), cut=[12, 30]))
  assert result.keep.all() and result.counts == {"kept": 40}
  assert result.segment.tolist() == [0] * 12 + [1] * 18 + [2] * 10


def test_still_stretches_are_dropped_and_part_segments():
  one = measures(still=range(5, 20), repeated=range(6, 20))
  result = run(one, drop_still=True, drop_repeated=True)
  assert dropped(result, Reason.STILL) == list(range(5, 20)) and result.counts == {
    "kept": 25,
    "still": 15,
  }
  assert result.segment.tolist() == [0] * 5 + [-1] * 15 + [1] * 20
  assert run(one, drop_still=True, still_seconds=1.4).counts == {"kept": 25, "still": 15}
  assert run(one, drop_still=True, still_seconds=1.5).counts == {"kept": 40}
  parted = measures(still=range(5, 20), cut=[12])
  assert run(parted, drop_still=True, still_seconds=0.7).counts == {"kept": 32, "still": 8}


def test_repeated_frames_are_dropped_within_a_segment_and_left_in_still_stretches():
  one = measures(repeated=[3, 7, *range(21, 30)], still=range(20, 30))
  result = run(one, drop_repeated=True)
  assert dropped(result, Reason.REPEATED) == [3, 7] and set(result.segment[result.keep]) == {0}


def test_moving_cameras_are_dropped_by_the_mean_over_half_a_second():
  motion = np.zeros((40, 4), np.float32)
  motion[10:20, 0] = 0.8  # to the right
  motion[30, 1] = 0.8  # one frame alone
  result = run(measures(global_motion=motion), max_global_motion=0.5)
  assert set(range(12, 18)) <= set(dropped(result, Reason.CAMERA_MOTION)) <= set(range(9, 21))
  zoom = np.zeros((40, 4), np.float32)
  zoom[:, 2:] = [0.6, -0.8]  # moves the edges by 0.5 widths per second
  assert run(measures(global_motion=zoom), max_global_motion=0.49).counts == {
    "kept": 0,
    "camera_motion": 40,
  }
  assert run(measures(global_motion=zoom), max_global_motion=0.51).counts == {"kept": 40}


def test_motion_of_another_shot_does_not_count():
  motion = np.zeros((40, 4), np.float32)
  motion[21:, 0] = 0.8
  result = run(measures(global_motion=motion, cut=[20]), max_global_motion=0.5)
  assert dropped(result, Reason.CAMERA_MOTION) == list(range(20, 40))


def test_little_motion():
  motion = np.full(40, 5, np.float32)
  motion[10:30] = 0.5
  result = run(measures(motion=motion), min_motion=1.0)
  assert set(range(13, 27)) <= set(dropped(result, Reason.LITTLE_MOTION)) <= set(range(10, 30))
  assert run(measures(1), min_motion=1.0).counts == {"kept": 0, "little_motion": 1}


def test_short_shots_come_last():
  one = measures(cut=[4, 20], still=range(24, 40))
  result = run(one, min_shot_seconds=0.5, drop_still=True)
  assert dropped(result, Reason.SHORT_SHOT) == [0, 1, 2, 3, 20, 21, 22, 23]
  assert result.segment.tolist() == [-1] * 4 + [0] * 16 + [-1] * 20
  assert result.counts == {"kept": 16, "still": 16, "short_shot": 8}
  assert run(measures(cut=[6]), min_shot_seconds=0.5).counts == {"kept": 40}  # 0.5 s are enough


def test_duplicates_are_the_first_reason():
  known = np.arange(40) < 10
  one = measures(still=range(0, 20))
  assert run(one, known, drop_duplicates=True, drop_still=True).counts == {
    "kept": 20,
    "duplicate": 10,
    "still": 10,
  }
  assert run(one, known).counts == {"kept": 40}


def test_bars_are_cut_off_each_camera_only_where_asked():
  cameras = [measures(bars=(3, 3, 0, 0)), measures()]
  assert run(cameras, crop_bars=True).crop == ((3, 3, 0, 0), (0, 0, 0, 0))
  assert run(cameras).crop == ((0, 0, 0, 0), (0, 0, 0, 0))


def test_several_cameras():
  moving = np.zeros((40, 4), np.float32)
  moving[:, 0] = 2
  fixed = measures(still=range(0, 30), repeated=[35, 36], cut=[10])
  wrist = measures(
    still=range(10, 40), repeated=[36], global_motion=moving, motion=np.zeros(40, np.float32)
  )
  result = run(
    [fixed, wrist], drop_still=True, drop_repeated=True, max_global_motion=1.0, min_motion=1.0
  )
  assert dropped(result, Reason.STILL) == list(range(10, 30)) and dropped(
    result, Reason.REPEATED
  ) == [36]
  assert result.counts == {"kept": 19, "still": 20, "repeated": 1}
  assert run([fixed, wrist]).segment.tolist() == [0] * 10 + [1] * 30
  with pytest.raises(ValueError, match="cameras of .40, 39. frames"):
    run([fixed, measures(39)])


@pytest.mark.parametrize(("name", "value"), [
  ("drop_still", 1), ("drop_still", "yes"), ("still_seconds", -1.0), ("min_motion", True),
  ("max_global_motion", float("nan")), ("min_shot_seconds", "1"),
])  # fmt: skip
def test_wrong_options_are_refused(name, value):
  with pytest.raises(errors.UserError, match=f"filter option {name}="):
    FilterOptions(**{name: value})


def test_whole_numbers_are_numbers():
  assert FilterOptions(max_global_motion=2, min_shot_seconds=1).max_global_motion == 2


def test_no_frames():
  result = run(
    measures(0), drop_still=True, min_motion=1.0, max_global_motion=1.0, min_shot_seconds=1.0
  )
  assert result.counts == {"kept": 0} and len(result.segment) == 0
