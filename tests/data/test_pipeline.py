"""Training batches: content, order, augmentation, mixtures, damage.

A frame's gray level says which frame it is.
"""

import contextlib
import errno
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from grain.multiprocessing import SharedMemoryArray

from como_jax import data, errors
from como_jax.data import motion_mixture, pipeline, read_options, stream, transforms
from tests import limits
from tests.data import flat, makers

LENGTHS = (12, 9, 15, 7)


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
  return makers.shards(tmp_path_factory.mktemp("data") / "s", LENGTHS)


def sets(*paths, offset=0.2, **settings):
  return [data.DataSet(path, offset_seconds=offset, **settings) for path in paths]


def take(datasets, count, **settings):
  settings = {"batch_size": 8, "image_size": 16, "split": "all", "threads": 0} | settings
  with flat.motion(datasets, **settings) as batches:
    return [next(batches) for _ in range(count)]


def numbers(images):
  return np.array(
    [makers.number(image) for image in images.reshape(-1, *images.shape[-3:])]
  ).reshape(images.shape[:-3])


def in_shared_memory(size):
  """Names of the files of that many bytes; other processes have theirs there too, and killed ones
  have left some.
  """
  found = set()
  for path in read_options.SHARED.glob("psm_*"):
    with contextlib.suppress(OSError):  # gone in the meantime
      found |= {path.name} if path.stat().st_size == size else set()
  return found


def same(first, second):
  assert len(first) == len(second)
  for a, b in zip(first, second, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key], err_msg=key)


AUGMENT = transforms.build({"shift": {}, "color": {}})
FULL = {"frames": 3, "jitter": True, "augment": AUGMENT, "seed": 5}


def test_shapes_and_strides(path):
  batch = take(sets(path), 1, frames=3, jitter=True)[0]
  assert batch["frames"].shape == (8, 3, 16, 16, 3) and batch["jittered"].shape == (8, 2, 16, 16, 3)
  assert all(
    value.dtype == (np.float32 if key == "seconds" else np.uint8) and value.flags.owndata
    for key, value in batch.items()
  )
  np.testing.assert_allclose(batch["seconds"], np.full((8, 2), 0.2))
  np.testing.assert_array_equal(np.diff(numbers(batch["frames"])), 2)
  mae = take(sets(path), 1, kind="mae", jitter=True)[0]
  assert set(mae) == {"frames"} and mae["frames"].shape == (8, 16, 16, 3)
  assert take(sets(path), 1, image_size=24)[0]["frames"].shape == (8, 2, 24, 24, 3)


def test_each_window_once_an_epoch_and_the_last_is_there(path):
  assert sum(length - 2 for length in LENGTHS) == 35
  batches = take(sets(path), 10, batch_size=7)
  epochs = [
    np.concatenate([numbers(b["frames"][:, 0]) for b in batches[i : i + 5]]) for i in (0, 5)
  ]
  expected = sorted(t for length in LENGTHS for t in range(length - 2))
  assert [sorted(epoch) for epoch in epochs] == [expected, expected]
  assert list(epochs[0]) != list(epochs[1])


def test_processes_share_one_global_batch(path):
  whole = take(sets(path), 3, **FULL)
  for count in (2, 4):
    parts = [
      take(sets(path), 3, process_index=p, process_count=count, **FULL) for p in range(count)
    ]
    joined = [
      {key: np.concatenate([part[i][key] for part in parts]) for key in whole[0]} for i in range(3)
    ]
    same(joined, whole)


def test_workers_and_threads_do_not_change_batches(path):
  whole = take(sets(path), 4, **FULL)
  same(take(sets(path), 4, threads=3, **FULL), whole)
  batches = take(sets(path), 4, workers=2, prefetch=2, **FULL)
  same(batches, whole)
  assert all(value.flags.owndata for batch in batches for value in batch.values())


def test_large_batches_come_through_shared_memory_and_leave_nothing_there(path):
  """Those that are taken, those that wait when the pipeline is closed, and those that do not
  fit.
  """
  settings = FULL | dict(batch_size=32, image_size=68)
  whole = take(sets(path), 3, **settings)
  sizes = [value.nbytes for value in whole[0].values()]
  before = [in_shared_memory(size) for size in sizes]
  same(take(sets(path), 3, workers=2, threads=2, prefetch=2, **settings), whole)
  assert limits.wait_until(
    lambda: all(in_shared_memory(size) <= old for size, old in zip(sizes, before, strict=False))
  )


def test_an_array_is_handed_over_whole_or_not_at_all(monkeypatch):
  batch = {
    "frames": np.random.default_rng(0).integers(0, 256, (7, 3, 67, 61, 3), np.uint8),
    "small": np.arange(3),
    "turned": np.ones((300, 300)).T[:, 1:],
  }
  size = batch["frames"].nbytes
  before = in_shared_memory(size)
  given = stream._to_shared_memory(batch)
  assert given["small"] is batch["small"] and given["turned"] is batch["turned"]
  received = SharedMemoryArray.from_metadata(given["frames"])
  received.unlink_on_del()
  assert len(in_shared_memory(size) - before) == 1
  np.testing.assert_array_equal(received, batch["frames"], strict=True)
  del received
  # Grain may remove it in a thread of its own
  assert limits.wait_until(lambda: in_shared_memory(size) <= before)

  class Full(io.BytesIO):
    def write(self, data):
      raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr("builtins.open", lambda *args, **settings: Full())
  with pytest.raises(
    errors.UserError,
    match=(
      "/dev/shm: no room for 257481 bytes of a batch .No space left on device.: lower "
      "config.data.workers"
    ),
  ):
    stream._to_shared_memory(batch)
  assert in_shared_memory(size) <= before


def test_a_killed_worker_is_replaced_at_the_same_step(path):
  whole = take(sets(path), 6, **FULL)
  with flat.motion(
    sets(path), batch_size=8, image_size=16, split="all", threads=0, workers=1, prefetch=1, **FULL
  ) as batches:
    found = [next(batches)]
    for child in multiprocessing.active_children():
      os.kill(child.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match="a data worker died and is replaced at step"):
      found += [next(batches) for _ in range(5)]
  same(found, whole)


def test_starting_at_a_step_is_the_same_as_getting_there(path):
  same(take(sets(path), 2, start_step=7, **FULL), take(sets(path), 9, **FULL)[7:])
  other = take(sets(path), 1, **(FULL | {"seed": 6}))[0]["frames"]
  assert not np.array_equal(other, take(sets(path), 1, **FULL)[0]["frames"])


def test_jitter_stays_in_its_range_and_in_the_clip(tmp_path):
  path = makers.shards(tmp_path / "s", (39, 24), fps=10)
  seen = set()
  for batch in take(sets(path, offset=1.0), 12, batch_size=32, frames=3, jitter=True):
    frames, jittered = numbers(batch["frames"]), numbers(batch["jittered"])
    np.testing.assert_array_equal(np.diff(frames), 10)
    assert jittered.max() <= 38
    seen |= set((jittered - frames[:, 1:]).ravel().tolist())
  assert seen == {-2, -1, 1, 2}
  assert np.array_equal(
    *[
      take(sets(path, offset=0.4), 1, jitter=True)[0][key].reshape(-1)[-768:]
      for key in ("frames", "jittered")
    ]
  )


def test_jitter_at_the_last_frame_goes_back(tmp_path):
  path = makers.shards(tmp_path / "s", (11,), clip_frames=4)
  (opened,) = motion_mixture.MotionMixture(sets(path, offset=1.0)).windows("all", frames=2)
  rng = np.random.default_rng(0)
  assert len(opened.windows) == 1 and {
    pipeline.draw_jitter(opened.locate(0), rng)[0] for _ in range(50)
  } == {8, 9}


def test_frames_are_chosen_by_time(tmp_path):
  """A phone's video: 30, then 10, then 30 frames a second; a gap; a late first frame.

  Numbers on the pictures say which frame it is.
  """
  phone = np.concatenate([np.arange(12) / 30, 0.4 + np.arange(12) / 10, 1.6 + np.arange(12) / 30])
  late = 7.0 + np.concatenate([np.arange(15) / 20, 2 + np.arange(15) / 20])
  path = makers.shards(tmp_path / "s", (36, 30), times=lambda i, n: (phone, late)[i], clip_frames=5)
  with pytest.warns(UserWarning, match="windows are left out"):
    batches = take(sets(path, offset=0.2), 12, batch_size=16, frames=3, jitter=True)
  seen = set()
  for batch in batches:
    for frames, jittered, seconds in zip(
      numbers(batch["frames"]), numbers(batch["jittered"]), batch["seconds"], strict=True
    ):
      times = next(
        t
        for t in (phone, late)
        if frames.max() < len(t) and np.allclose(np.diff(t[frames]), seconds, atol=1e-6)
      )
      wanted = times[frames[0]] + 0.2 * np.arange(3)
      assert np.abs(times[frames] - wanted).max() <= 0.04 + 1e-6
      np.testing.assert_allclose(np.diff(times[frames]), seconds, atol=1e-6)
      assert np.abs(times[jittered] - times[frames[:-1]] - 0.2).max() <= 0.04 + 1e-6
      seen.add(tuple(frames))
  # 0.2 s at 30 and at 10 frames a second
  assert any(b - a == 6 for a, b, _ in seen) and any(b - a == 2 for a, b, _ in seen)


def test_augmentation_is_shared_by_the_frames_of_a_clip(tmp_path):
  class Still(makers.Synthetic):
    def __getitem__(self, i):
      raw = super().__getitem__(i)
      image = np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)
      return pipeline.dataclasses.replace(
        raw, cameras={"camera": lambda geometry: ((t / 10, image) for t in range(self._lengths[i]))}
      )

  path = makers.shards(tmp_path / "s", source=Still((20, 20)))
  augment = transforms.build({"shift": {"fraction": 0.2}, "crop": {}, "color": {}, "flip": {}})
  batches = take(sets(path, offset=0.5), 3, frames=3, jitter=True, augment=augment)
  for batch in batches:
    images = np.concatenate([batch["frames"], batch["jittered"]], 1)
    np.testing.assert_array_equal(images, np.broadcast_to(images[:, :1], images.shape))
  rows = np.concatenate([batch["frames"][:, 0] for batch in batches]).reshape(24, -1)
  assert len(np.unique(rows, axis=0)) == 24  # and differs between samples


def test_mixture_proportions_and_strides(tmp_path, path):
  fast = makers.shards(tmp_path / "fast", (30, 30), fps=25)
  datasets = [
    data.DataSet(path, weight=3, offset_seconds=0.2),
    data.DataSet(fast, weight=1, offset_seconds=0.2),
  ]
  steps = np.concatenate(
    [np.diff(numbers(b["frames"]))[:, 0] for b in take(datasets, 20, batch_size=16)]
  )
  assert set(steps) == {2, 5} and (steps == 5).mean() == pytest.approx(0.25, abs=0.01)


def test_train_and_validation_never_share_an_episode(tmp_path):
  class Marked(makers.Synthetic):  # the gray level is the episode
    def __getitem__(self, i):
      raw = super().__getitem__(i)
      return pipeline.dataclasses.replace(
        raw,
        cameras={
          "camera": lambda geometry: (
            (t / 10, makers.picture(i, 16, 16)) for t in range(self._lengths[i])
          )
        },
      )

  path = makers.shards(tmp_path / "s", source=Marked((6,) * 12), clip_frames=3)
  seen = {
    split: set(
      np.concatenate(
        [
          numbers(b["frames"]).ravel()
          for b in take(sets(path, offset=0.1), 12, split=split, validation_fraction=0.25)
        ]
      )
    )
    for split in ("train", "validation")
  }
  assert (
    len(seen["train"]) == 8
    and len(seen["validation"]) == 4
    and not seen["train"] & seen["validation"]
  )


def test_cameras_are_all_used_or_chosen(tmp_path):
  path = makers.shards(tmp_path / "s", (6, 6), cameras=("left", "right"))
  assert (
    len(motion_mixture.MotionMixture(sets(path)).windows("all", frames=2)[0].windows) == 2 * 2 * 4
  )
  take(sets(path, cameras=("left",)), 1)
  with pytest.raises(errors.UserError, match="'lft'.*did you mean 'left'"):
    take(sets(path, cameras=("lft",)), 1)


def test_h264_shards_train_too(tmp_path):
  path = makers.shards(tmp_path / "s", (30,), codec="h264", quality=5)
  np.testing.assert_array_equal(np.diff(numbers(take(sets(path), 1)[0]["frames"])), 2)


def test_a_damaged_record_is_replaced_the_same_way_everywhere(tmp_path):
  path = makers.shards(tmp_path / "s", (30,) * 6, size=(64, 64))
  for frame in range(4, 30):
    makers.damage(path, "episode_2", frame=frame)
  with pytest.warns(UserWarning, match=r"damaged record is replaced.*shard-00000.shard clip 2"):
    whole = take(sets(path), 2, **FULL)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    parts = [take(sets(path), 2, process_index=p, process_count=2, **FULL) for p in range(2)]
    same(
      [
        {key: np.concatenate([part[i][key] for part in parts]) for key in whole[0]}
        for i in range(2)
      ],
      whole,
    )
    with pytest.raises(errors.UserError, match="records are damaged"):
      take(sets(path), 60)


def test_bad_settings_are_told(path):
  for settings, message in (
    ({"batch_size": 9, "process_count": 2}, "batch_size 9 does not divide"),
    ({"kind": "motoin"}, "'motion'"),
    ({"frames": 1}, "at least 2 frames"),
  ):
    with pytest.raises(errors.UserError, match=message):
      take(sets(path), 1, **settings)
  with pytest.raises(errors.UserError, match="weight is 0"):
    take(sets(path, weight=0), 1)
  with pytest.raises(errors.UserError, match="no window fits"):
    take(sets(path, offset=9.0), 1)
  with pytest.raises(errors.UserError, match="not a finished folder of como_jax shards"):
    take(sets("/nowhere"), 1)


def test_describe(path):
  found = flat.description(
    data.DataSet(path, offset_seconds=0.2, name="mine"), frames=3, validation_fraction=0.3
  )
  assert (
    found["name"] == "mine"
    and found["frames"] == sum(LENGTHS)
    and found["episodes"] == 4
    and found["fps"] == [10.0]
  )
  assert (
    found["stride_frames"] == [2]
    and found["action"]["size"] == 3
    and found["action"]["names"] == ["a", "b", "c"]
  )
  assert found["windows"]["train"] + found["windows"]["validation"] == sum(
    length - 4 for length in LENGTHS
  )


def test_no_jax_backend_is_ever_started(path):
  """In a subprocess: build, draw, evaluate; then ask jax whether anything was initialized."""
  code = f"""
import sys
from como_jax import data
from como_jax.data import ingest, statistics
assert "jax" not in sys.modules and "grain" not in sys.modules, "ingest workers must start quickly"
from como_jax.data import evaluation, pipeline
from tests.data import flat
sets = [data.DataSet({path!r}, offset_seconds=0.2)]
with flat.motion(sets, batch_size=4, image_size=16) as batches:
  next(batches)
with flat.windows(sets, batch_size=4, image_size=16, split="all").batches() as batches:
  next(batches)
from jax._src import xla_bridge
assert not xla_bridge._backends, xla_bridge._backends
"""
  subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
