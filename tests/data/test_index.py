"""Windows and splits, against brute force."""

import dataclasses
import weakref
import zlib

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import index, shards


def table(clips, *, cameras=("a", "b"), task=lambda episode: "t", shot=lambda i: 0):
  """clips: (episode, start, length, fps)."""
  n = len(clips)
  episodes, tasks = (
    tuple(dict.fromkeys(texts))
    for texts in ([clip[0] for clip in clips], [task(clip[0]) for clip in clips])
  )
  start, length = (np.array([clip[i] for clip in clips]) for i in (1, 2))
  interval = 1 / np.array([clip[3] for clip in clips], float)
  return shards.Table(
    path="",
    episodes=episodes,
    tasks=tasks,
    groups=("",),
    cameras=tuple(cameras),
    shard=np.zeros(n, int),
    clip=np.arange(n),
    episode=np.array([episodes.index(clip[0]) for clip in clips]),
    start=start,
    length=length,
    first=start * interval,
    interval=interval,
    uniform=np.ones(n, bool),
    shot=np.array([shot(i) for i in range(n)]),
    task=np.array([tasks.index(task(clip[0])) for clip in clips]),
    group=np.zeros(n, int),
    has_action=np.zeros(n, bool),
    has_state=np.zeros(n, bool),
    split_key=np.array([zlib.crc32(clip[0].encode()) for clip in clips]),
    motion=np.zeros(n),
    global_motion=np.zeros(n),
    still=np.zeros(n),
    repeated=np.zeros(n),
    duplicate=np.zeros(n, bool),
    order=np.arange(n),
  )


def everything(windows):
  return [windows[i] for i in range(len(windows))]


def test_every_window_once_and_none_crossing_an_episode():
  records = table([("x", 0, 10, 10), ("y", 0, 5, 10), ("z", 0, 7, 10)])
  found = everything(index.windows(records, frames=3, offset_seconds=0.2))
  expected = [
    (row, camera, t)
    for row, length in enumerate((10, 5, 7))
    for camera in (0, 1)
    for t in range(length - 4)
  ]
  assert [(w.segment, w.camera, w.t) for w in found] == expected


def test_windows_follow_each_clips_rate():
  records = table([("x", 0, 40, 10), ("y", 0, 40, 30), ("z", 0, 40, 2)], cameras=("a",))
  windows = index.windows(records, frames=2, offset_seconds=0.5)
  assert np.bincount([w.segment for w in everything(windows)]).tolist() == [35, 25, 39]
  assert index.offset_in_frames(records, 0.5) == [1, 5, 15]


def test_single_frames_for_mae():
  assert (
    len(index.windows(table([("x", 0, 4, 10), ("y", 0, 1, 10)]), frames=1, offset_seconds=9.0))
    == 2 * 5
  )


@pytest.mark.parametrize("clip", [1, 4, 10, 30])
def test_windows_cross_the_clips_of_their_episode(clip):
  length = 30
  records = table(
    [("x", start, min(clip, length - start), 10) for start in range(0, length, clip)],
    cameras=("a",),
  )
  windows = index.windows(records, frames=3, offset_seconds=0.2)
  assert [(w.segment, w.t) for w in everything(windows)] == [(0, t) for t in range(length - 4)]
  row, frame = windows.segments.locate(0, 17)
  assert (row, frame) == (17 // clip, 17 % clip) and windows.segments.first_frame(
    0, row
  ) == 17 // clip * clip


def test_windows_do_not_cross_cuts_gaps_and_clips_left_out():
  clips = [("x", 0, 10, 10), ("x", 10, 10, 10), ("x", 25, 10, 10), ("x", 35, 10, 10)]
  records = table(clips, cameras=("a",), shot=lambda i: int(i == 1))
  found = index.windows(records, frames=2, offset_seconds=0.3)
  assert [int(n) for n in found.segments.count] == [10, 10, 20] and len(found) == 7 + 7 + 17
  assert [int(n) for n in found.segments.start] == [0, 10, 25]
  assert (
    len(
      index.windows(
        records, frames=2, offset_seconds=0.3, clip_mask=np.array([True, True, False, True])
      )
    )
    == 3 * 7
  )


def test_windows_without_a_near_frame_are_left_out_and_counted():
  records = table([("x", 0, 40, 10), ("y", 0, 40, 20)], cameras=("a",))
  with pytest.warns(
    UserWarning, match="38 of 75 windows are left out: no frame is near enough to 0.15 s"
  ):
    found = index.windows(records, frames=2, offset_seconds=0.15)
  assert found.left_out == 38 and {w.segment for w in everything(found)} == {1} and len(found) == 37
  with pytest.raises(
    errors.UserError,
    match="no frame is near enough to 0.15 s after another.*10 frames a second.*0.[12] s say",
  ):
    index.windows(table([("x", 0, 40, 10)]), frames=2, offset_seconds=0.15)


def test_short_segments_are_counted_and_none_is_an_error():
  records = table([("x", 0, 10, 10), ("y", 0, 3, 10)])
  with pytest.warns(UserWarning, match="1 of 2 segments have no window"):
    assert index.windows(records, frames=2, offset_seconds=0.5).num_segments_without_window == 1
  with pytest.raises(
    errors.UserError,
    match=r"mine: no window fits: 2 frames 2.0 s apart, the longest segment has 10 frames",
  ):
    index.windows(records, frames=2, offset_seconds=2.0, name="mine")


def test_cameras_are_chosen_by_name():
  records = table([("x", 0, 5, 10)])
  assert {
    w.camera
    for w in everything(index.windows(records, frames=2, offset_seconds=0.1, cameras=("b",)))
  } == {1}
  with pytest.raises(errors.UserError, match="camera 'bb'.*did you mean 'b'"):
    index.windows(records, frames=2, offset_seconds=0.1, cameras=("bb",))


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_split_is_stratified_and_never_cuts_an_episode(fraction):
  clips = [
    (f"{task}{i}", start, 10, 10)
    for task, n in (("p", 10), ("q", 4), ("r", 2), ("s", 1), ("u", 1), ("v", 1))
    for i in range(n)
    for start in (0, 10)
  ]
  records = table(clips, task=lambda episode: episode[0])
  validation = index.split(records, fraction)
  for episode in set(records.episode.tolist()):
    assert len(set(validation[records.episode == episode])) == 1
  chosen = {records.episodes[e] for e in records.episode[validation]}
  for task, n in (("p", 10), ("q", 4), ("r", 2)):
    assert sum(e[0] == task for e in chosen) == min(int(np.ceil(fraction * n)), n - 1)
  # single episodes are pooled
  assert sum(e[0] in "suv" for e in chosen) == int(np.ceil(fraction * 3))
  np.testing.assert_array_equal(index.split(records, fraction), validation)
  # the split depends on names, not on their order
  order = np.random.default_rng(0).permutation(len(clips))
  shuffled = table([clips[i] for i in order], task=lambda episode: episode[0])
  np.testing.assert_array_equal(index.split(shuffled, fraction), validation[order])
  assert not (
    index.select(records, "train", fraction) & index.select(records, "validation", fraction)
  ).any()


def test_split_edges():
  one = table([("x", 0, 5, 10)])
  assert not index.split(one, 0.5).any() and not index.split(one, 0).any()
  with pytest.raises(errors.UserError, match="unknown split 'val'.*validation"):
    index.select(one, "val", 0.1)
  with pytest.raises(errors.UserError, match="validation_fraction"):
    index.split(one, 1.0)


def test_episodes_of_one_motion_stay_on_one_side():
  records = table([(f"e{i}", 0, 9, 10) for i in range(12)])
  records.split_key[:] = np.arange(12) // 2  # e0 and e1 show the same motion, and so on
  validation = index.split(records, 0.3)
  # ceil(0.3 * 6) motions
  assert validation.reshape(6, 2).tolist() == [[True] * 2] * 2 + [[False] * 2] * 4


def test_times_that_are_not_uniform_are_held_for_few_clips_at_a_time():
  made, most = [], []

  class Seconds(np.ndarray):
    pass

  class Table(shards.Table):
    def explicit_parts(self, rows):
      for row in rows[:: -1 if backwards else 1]:
        seconds = (self.first[row] + (np.arange(9) + 0.4 * (np.arange(9) % 2)) / 10).view(Seconds)
        made.append(weakref.ref(seconds))
        most.append(sum(one() is not None for one in made))
        yield {int(row): seconds}

  clips = table([(f"episode {i // 3:02d}", 9 * (i % 3), 9, 10) for i in range(60)], cameras=("a",))
  found = []
  for backwards in (False, True):
    records = Table(
      **{field.name: getattr(clips, field.name) for field in dataclasses.fields(clips)}
      | {"uniform": np.zeros(60, bool)}
    )
    found.append(index.windows(records, frames=2, offset_seconds=0.2).end)
    assert backwards or max(most) <= 6
  np.testing.assert_array_equal(*found)
  assert found[0][-1] == 20 * 25
