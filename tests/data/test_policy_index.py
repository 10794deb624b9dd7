"""Policy examples by time, across clips and instructions, and where something cannot be read."""

import dataclasses
import pathlib
import shutil
import zlib

import numpy as np
import pytest

from como_jax.data import index, policy_index, shard_file, shards
from como_jax.data.times import FrameTimes
from tests.data import flat, makers, test_index
from tests.data.test_policy_pipeline import SIZES, arm, label, normalizer, numbers, same, take, walk
from tests.data.test_policy_pipeline import _two as _two  # a fixture


@pytest.mark.parametrize("clip_frames", [1, 5, 14])
def test_chunks_and_history_cross_clips(tmp_path, clip_frames):
  path = makers.shards(tmp_path / "s", (14,), clip_frames=clip_frames)
  rows = walk([arm(path)], history=2)
  np.testing.assert_array_equal(rows["time"], np.arange(14))
  np.testing.assert_array_equal(rows["actions_mask"][..., 0].sum(1), [3] * 12 + [2, 1])
  np.testing.assert_array_equal(
    numbers(rows["images"])[:, :, 0], [[max(t - 1, 0), t] for t in range(14)]
  )


def test_chunks_and_history_by_time(tmp_path):
  """10, then 30 frames a second: a step of 0.2 s is 2, then 6 frames."""
  times = np.concatenate([np.arange(10) / 10, 1 + np.arange(20) / 30])
  path = makers.shards(tmp_path / "s", (30,), times=lambda i, n: times)
  rows = walk([arm(path)], step_seconds=0.2, reduce="first", history=2, action_horizon=4)
  starts = np.where(rows["actions_mask"][..., 0], rows["actions"][..., 0], -1).astype(int)
  assert (
    starts[0].tolist() == [0, 2, 4, 6]
    and starts[7].tolist() == [7, 9, 13, 19]
    and starts[12].tolist() == [12, 18, 24, -1]
  )
  assert numbers(rows["images"])[[2, 12, 20], :, 0].tolist() == [[0, 2], [9, 12], [14, 20]]
  mean = walk([arm(path)], step_seconds=0.2, action_horizon=4)["actions"][7][:, 0]
  np.testing.assert_allclose(
    mean, [7.5, np.mean([9, 10, 11, 12]), np.mean(range(13, 19)), np.mean(range(19, 25))], atol=1e-5
  )


@pytest.mark.parametrize("step, chunk", [(0.0, 5), (0.1, 5), (0.15, 4), (0.25, 9)])
def test_edges_of_a_chunk(step, chunk):
  """Elements cover the frames from their own time to that of the next, whatever the rate, and end
  with the segment.
  """
  for rate in (10, 24, 30, 60):
    times = FrameTimes(2.0, 1 / rate, 40)
    for t in (0, 7, 39):
      edges, begins = policy_index.chunk_edges(times, t, step, chunk)
      assert edges[0] == t and (np.diff(edges) >= 0).all() and edges[-1] <= 40
      for k in np.flatnonzero(begins):
        assert edges[k] < 40 and edges[k + 1] > edges[k]
        away = abs((edges[k] - t) / rate - k * (step or 1 / rate))
        assert away <= min(0.5 / rate + 1e-3, (step or 1 / rate) / 5) + 1e-9
  assert policy_index.chunk_edges(FrameTimes(0.0, 0.1, 40), 30, 0.0, 12)[1].sum() == 10


def test_two_instructions_in_an_episode(tmp_path):
  path = makers.shards(tmp_path / "s", (10,), task=lambda i: ["task 0"] * 6 + ["task 1"] * 4)
  rows = walk([arm(path)])
  np.testing.assert_array_equal(rows["language"][:, 0, 0], [1] * 6 + [2] * 4)
  np.testing.assert_array_equal(rows["actions_mask"][..., 0].sum(1), [3] * 8 + [2, 1])
  assert walk([arm(path, tasks=("task 1",))])["time"].tolist() == [6, 7, 8, 9]


def test_damaged_records_are_replaced(tmp_path):
  path = makers.shards(tmp_path / "s", (30,) * 6, size=(64, 64))
  for frame in range(30):
    makers.damage(path, "episode_2", frame=frame)
  with pytest.warns(UserWarning, match="damaged record is replaced.*clip 2"):
    whole = take([arm(path)], 2, image_size=64)
  with pytest.warns(UserWarning, match="damaged"):
    same(
      [take([arm(path)], 2, image_size=64, process_index=0, process_count=2)[0]],
      [{k: v[:4] for k, v in whole[0].items()}],
    )
  # its numbers are whole
  assert flat.statistics([arm(path)], validation_fraction=0.0).robots["arm"]["action"].count == 180
  with pytest.warns(UserWarning, match="left out of the evaluation"):
    found = flat.policy_windows(
      [arm(path)],
      **(
        {"batch_size": 10, "split": "all", "threads": 0, "normalization": normalizer()}
        | SIZES
        | {"image_size": 64}
      ),
    )
    with found.batches() as batches:
      rows = [(batch["valid"], batch["damaged"], batch["episode"]) for batch in batches]
  valid, damaged, episode = (np.concatenate(parts) for parts in zip(*rows, strict=True))
  assert damaged.sum() == 30 and set(episode[damaged]) == {2} and valid.sum() == 150


def test_damaged_numbers_and_labels(two, tmp_path):
  """Numbers that cannot be read replace the example; labels are masked."""
  data = str(tmp_path / "s")
  shutil.copytree(two[0], data)
  folder = label(data, tmp_path / "l", cameras=("right",))
  file = f"{folder}/labels-00000.labels"
  index = shard_file.ShardFile(file).index
  content = bytearray(pathlib.Path(file).read_bytes())
  content[int(index["array_offset/z/right"][1]) + 5] ^= 1
  pathlib.Path(file).write_bytes(content)
  with pytest.warns(
    UserWarning, match="labels that cannot be read are not used.*labels-00000.labels clip 1"
  ):
    rows = walk([arm(data, labels=folder, cameras=("right",))])
  clip = (rows["name"] == 0) & (rows["time"] >= 6) & (rows["time"] < 12)
  assert (
    clip.sum() == 6
    and not rows["latents_mask"][clip][:, 0].any()
    and rows["actions_mask"].any(-1).all(0)[0]
  )
  before = (rows["name"] == 0) & (rows["time"] == 4)
  # its second motion begins in the damaged clip
  assert rows["latents_mask"][before].tolist() == [[True, False]]
  with pytest.warns(UserWarning, match="left out of the statistics"):
    assert (
      flat.statistics(
        [arm(data, labels=folder, cameras=("right",))], validation_fraction=0.0
      ).latent.count
      == 12 + 7 - 6
    )


class Table(shards.Table):
  """One that is made up: the frames of its clips that are not uniform come in pairs."""

  def explicit_parts(self, rows):
    for row in rows:
      frames = np.arange(self.length[row])
      yield {int(row): self.first[row] + self.interval[row] * (frames + 0.4 * (frames % 2))}


def random_table(rng):
  clips = []
  for episode in range(rng.integers(1, 6)):
    start = 0
    for _ in range(rng.integers(1, 6)):
      start += int(rng.integers(3)) if rng.random() < 0.2 else 0  # frames that were not stored
      clips.append((f"episode {episode}", start, int(rng.integers(1, 9)), 10))
      start += clips[-1][2]
  n = len(clips)
  made = test_index.table(clips, task=lambda episode: f"task {zlib.crc32(episode.encode()) % 2}")
  changed = dict(
    has_action=rng.random(n) < rng.choice([0, 0.5, 1]),
    uniform=rng.random(n) < rng.choice([0.5, 1]),
    task=np.where(rng.random(n) < 0.2, 0, made.task),
    shot=np.cumsum(rng.random(n) < 0.1),
  )
  return Table(
    **{
      field.name: changed.get(field.name, getattr(made, field.name))
      for field in dataclasses.fields(made)
    }
  )


def examples_by_a_loop(table, *, split_mask, example_mask, cameras, views, actions, offset_seconds):
  """[(segment, camera, frame)] by what the words say: every frame that has an action, or else
  another frame an offset later.
  """
  segments, found = shards.segments(table, split_mask), []
  for s in range(len(segments)):
    explicit = table.explicit_times([row for row in segments.rows(s) if not table.uniform[row]])
    later = index.segment_times(segments, s, explicit).partners(
      np.arange(segments.length(s)), offset_seconds or 1
    )[1]
    for row in segments.rows(s):
      for t in range(
        segments.first_frame(s, row), segments.first_frame(s, row) + int(table.length[row])
      ):
        if example_mask[row] and (
          actions and table.has_action[row] or offset_seconds is not None and later[t]
        ):
          found += [(s, camera, t) for camera in ((-1,) if views == "together" else cameras)]
  return sorted(found)


@pytest.mark.parametrize(
  "actions, offset_seconds", [(True, None), (True, 0.2), (False, 0.2), (False, 0.5)]
)
def test_examples_are_those_of_a_loop(actions, offset_seconds):
  rng, several = np.random.default_rng(0), 0
  for _ in range(150):
    table = random_table(rng)
    split_mask = rng.random(len(table)) < rng.choice([0.7, 1])
    settings = dict(
      split_mask=split_mask,
      example_mask=split_mask & (rng.random(len(table)) < rng.choice([0.5, 1])),
      cameras=(0, 1),
      views=str(rng.choice(policy_index.VIEWS)),
      actions=actions,
      offset_seconds=offset_seconds,
    )
    found, expected = (
      policy_index.enumerate_examples(table, **settings),
      examples_by_a_loop(table, **settings),
    )
    assert [
      (one.segment, one.camera, one.t) for one in map(found.__getitem__, range(len(found)))
    ] == expected
    frames = sorted({(s, t) for s, _, t in expected})
    runs = list(zip(*(column.tolist() for column in found.frame_ranges()), strict=True))
    assert [(s, t) for s, first, last in runs for t in range(first, last)] == frames
    # runs are as long as they can be
    assert all(
      one[0] != other[0] or one[2] < other[1] for one, other in zip(runs, runs[1:], strict=False)
    )
    assert found.rows().tolist() == sorted({found.segments.locate(s, t)[0] for s, t in frames})
    several += len(runs) > 1
  assert several > 20


def test_ranges_of_episodes_are_those_of_a_loop():
  rng, narrowed = np.random.default_rng(1), 0
  for _ in range(100):
    table = random_table(rng)
    # groups of episodes
    table = dataclasses.replace(
      table, split_key=rng.integers(0, 3, len(table.episodes))[table.episode] * 10**17
    )
    first = int(rng.integers(3))
    for split in ("train", "all"):
      base = index.select(table, split, 0.3)
      found = policy_index.select(table, base, split=split, episodes=(first, first + 1))
      seen, expected = {}, np.zeros(len(table), bool)
      for row in np.flatnonzero(base):
        keys = seen.setdefault(int(table.task[row]), [])
        keys += [table.split_key[row]] * (table.split_key[row] not in keys)
        expected[row] = keys.index(table.split_key[row]) == first
      assert np.array_equal(found, expected)
      narrowed += 0 < found.sum() < base.sum()
  assert narrowed > 20
