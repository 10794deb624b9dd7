"""Windows and splits, against brute force."""

import zlib

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import index
from como_jax.data.sources import shards


def table(clips, *, cameras=("a", "b"), task=lambda episode: "t"):
  """clips: (episode, start, length, fps)."""
  n = len(clips)
  episodes = [clip[0] for clip in clips]
  return shards.Table(
    shard=np.zeros(n, int),
    record=np.arange(n),
    episode=np.array(episodes, object),
    start=np.array([clip[1] for clip in clips]),
    length=np.array([clip[2] for clip in clips]),
    fps=np.array([clip[3] for clip in clips], float),
    task=np.array([task(e) for e in episodes], object),
    cameras=[tuple(cameras)] * n,
    has_action=np.zeros(n, bool),
    split_key=np.array([zlib.crc32(e.encode()) for e in episodes]),
  )


def everything(windows):
  return [windows[i] for i in range(len(windows))]


def test_every_window_once_and_none_crossing():
  records = table([("x", 0, 10, 10), ("y", 0, 5, 10), ("z", 0, 7, 10)])
  found = everything(index.windows(records, frames=3, offset_seconds=0.2))
  expected = [(row, camera, t) for row, length in enumerate((10, 5, 7)) for camera in (0, 1) for t in range(length - 4)]
  assert [(w.row, w.camera, w.t) for w in found] == expected
  assert max(w.t + 2 * w.stride for w in found if w.row == 0) == 9  # the last frame is used


def test_stride_follows_each_clips_rate():
  records = table([("x", 0, 40, 10), ("y", 0, 40, 30), ("z", 0, 40, 1)])
  found = everything(index.windows(records, frames=2, offset_seconds=0.5))
  assert {w.row: w.stride for w in found} == {0: 5, 1: 15, 2: 1}


def test_single_frames_for_mae():
  assert len(index.windows(table([("x", 0, 4, 10), ("y", 0, 1, 10)]), frames=1, offset_seconds=9.0)) == 2 * 5


@pytest.mark.parametrize("overlap", [0, 2, 4, 6])
def test_clips_of_one_episode(overlap):
  """With the overlap a window needs none is lost, and none appears twice."""
  length, clip, span = 30, 10, 5
  starts = list(range(0, length - overlap, clip - overlap))
  records = table([("x", start, min(clip, length - start), 10) for start in starts], cameras=("a",))
  windows = index.windows(records, frames=3, offset_seconds=0.2, warn=False)
  begins = [records.start[w.row] + w.t for w in everything(windows)]
  assert len(begins) == len(set(begins))
  assert windows.lost == (length - span + 1) - len(begins)
  assert windows.lost == 0 if overlap >= span - 1 else windows.lost > 0


def test_short_clips_are_counted_and_none_is_an_error():
  records = table([("x", 0, 10, 10), ("y", 0, 3, 10)])
  with pytest.warns(UserWarning, match="1 of 2 clips are shorter"):
    assert index.windows(records, frames=2, offset_seconds=0.5).clips_without == 1
  with pytest.raises(errors.UserError, match=r"mine: no window fits: 2 frames 20 apart.*longest clip has 10"):
    index.windows(records, frames=2, offset_seconds=2.0, name="mine")


def test_cameras_are_chosen_by_name():
  records = table([("x", 0, 5, 10)])
  assert {w.camera for w in everything(index.windows(records, frames=2, offset_seconds=0.1, cameras=("b",)))} == {1}
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
  for episode in set(records.episode):
    assert len(set(validation[records.episode == episode])) == 1
  chosen = {str(e) for e in records.episode[validation]}
  for task, n in (("p", 10), ("q", 4), ("r", 2)):
    assert sum(e[0] == task for e in chosen) == min(int(np.ceil(fraction * n)), n - 1)
  assert sum(e[0] in "suv" for e in chosen) == int(np.ceil(fraction * 3))  # single episodes are pooled
  np.testing.assert_array_equal(index.split(records, fraction), validation)
  order = np.random.default_rng(0).permutation(len(clips))  # the split hangs on names, not on their order
  shuffled = shards.Table(
    **{
      name: getattr(records, name)[order] if name != "cameras" else records.cameras
      for name in records.__dataclass_fields__
    }
  )
  np.testing.assert_array_equal(index.split(shuffled, fraction), validation[order])
  assert not (index.select(records, "train", fraction) & index.select(records, "validation", fraction)).any()


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
  assert validation.reshape(6, 2).tolist() == [[True] * 2] * 2 + [[False] * 2] * 4  # ceil(0.3 * 6) motions
