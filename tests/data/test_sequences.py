"""Sequences of frames and their pairs."""

import dataclasses

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import sequences, shards
from como_jax.data.times import FrameTimes
from tests.data import makers, test_index


def recording(times, *, cuts=(), **settings):
  """Episodes at given times (one array of seconds each), with cuts of shots; frame t is gray level
  20 + 6 t.
  """
  lengths = [len(seconds) for seconds in times]
  return makers.Synthetic(
    lengths, times=lambda i, n: times[i], cuts=[tuple(cuts)] * len(times), **settings
  )


def test_sequences_end_at_cuts_and_pairs_cross_clips(tmp_path):
  seconds = [np.arange(20) / 10, np.arange(20) / 10]
  data = makers.shards(tmp_path / "s", source=recording(seconds, cuts=(9,)), clip_frames=4)
  plan = sequences.plan(shards.read_table(data), offset_seconds=0.5)
  assert [(int(plan.segments.start[one.segment]), one.length) for one in plan.sequences(0)] == [
    (0, 9),
    (9, 11),
  ] * 2
  pairs = plan.pairs(0)
  assert (
    pairs.second[:4].tolist() == [5, 6, 7, 8]
    and pairs.valid.tolist() == [True] * 4 + [False] * 5
    and pairs.at_end == 5
  )


def test_pairs_are_chosen_by_time_and_their_difference_is_true():
  """30 frames a second, then 10, then 30: brute force over all pairs of frames."""
  seconds = np.concatenate([np.arange(30) / 30, 1 + np.arange(20) / 10, 3 + np.arange(31) / 30])
  for offset in (0.15, 0.2, 0.4):
    pairs = sequences.Pairs.from_times(FrameTimes.from_seconds(seconds), offset)
    left_out = at_end = 0
    for t, wanted in enumerate(seconds + offset):
      # the first of two equally near ones
      nearest = int(np.argmin(np.round(np.abs(seconds - wanted), 9)))
      around = int(np.clip(np.searchsorted(seconds, wanted - 1e-9), 1, len(seconds) - 1))
      near = (
        abs(seconds[nearest] - wanted)
        <= min((seconds[around] - seconds[around - 1]) / 2 + 1e-3, offset / 5) + 1e-9
        and nearest > t
      )
      assert pairs.valid[t] == near, (offset, t)
      if near:
        assert pairs.second[t] == nearest and pairs.difference[t] == np.float32(
          seconds[nearest] - seconds[t]
        )
      else:
        assert pairs.difference[t] == 0
        at_end, left_out = (
          at_end + (wanted > seconds[-1] + 1e-9),
          left_out + (wanted <= seconds[-1] + 1e-9),
        )
    assert (pairs.left_out, pairs.at_end) == (left_out, at_end) and at_end > 0
    assert (left_out > 0) == (offset == 0.15)  # in the slow part no frame is near enough to 0.15 s


def test_reach_is_that_of_the_fastest_part(tmp_path):
  """Two rates in one data set, one of them within an episode whose times vary."""
  varying = np.concatenate([np.arange(30) / 30, 1 + np.arange(12) / 10])
  data = makers.shards(
    tmp_path / "s", source=recording([np.arange(20) / 20, varying]), clip_frames=8
  )
  plan = sequences.plan(shards.read_table(data), offset_seconds=0.4)
  assert plan.segments.uniform.tolist() == [True, False] and plan.reach == 12
  np.testing.assert_allclose(plan.times(1).seconds_at(np.arange(42)), varying, atol=1e-9)


def test_a_damaged_frame_is_named_and_those_beside_it_are_used(tmp_path):
  for codec, blob, lost in (("jpeg", 11, [11]), ("h264", 1, [10, 11])):
    data = makers.shards(tmp_path / codec, (14,), clip_frames=12, codec=codec)
    plan = sequences.plan(shards.read_table(data), offset_seconds=0.1)
    makers.damage(data, "episode_0", frame=blob)
    with sequences.iterate_clips(data, plan, plan.sequences(0), image_size=16) as clips:
      first, last = clips
    assert last["readable"].all() and np.flatnonzero(~first["readable"]).tolist() == lost
    assert [makers.number(x) for x in first["frames"][:10]] == list(range(10)) and not first[
      "frames"
    ][11].any()
    assert "shard-00000.shard clip 0 camera 'camera'" in str(first["damage"])


def test_a_missing_shard_is_damage_of_all_its_clips(tmp_path):
  data = makers.shards(tmp_path / "s", (6, 6), episodes_per_shard=1)
  plan = sequences.plan(shards.read_table(data), offset_seconds=0.1)
  (tmp_path / "s" / shards.shard_name(0)).unlink()
  with sequences.iterate_clips(
    data, plan, [*plan.sequences(0), *plan.sequences(1)], image_size=16
  ) as clips:
    first, second = clips
  assert (
    not first["readable"].any()
    and "shard-00000.shard" in str(first["damage"])
    and second["readable"].all()
  )


def test_pairs_by_hand():
  found = sequences.Pairs.from_times(FrameTimes(0.0, 0.1, 6), 0.2)
  assert (
    found.second[:4].tolist() == [2, 3, 4, 5] and found.valid.tolist() == [True] * 4 + [False] * 2
  )
  np.testing.assert_allclose(found.difference, [0.2] * 4 + [0, 0], rtol=1e-6)
  assert found.difference.dtype == np.float32 and (found.left_out, found.at_end) == (0, 2)
  found = sequences.Pairs.from_times(FrameTimes(0.0, 0.1, 6), 0.15)
  assert (found.left_out, found.at_end, found.valid.any()) == (4, 2, False)
  gap = np.array([0.0, 0.1, 0.2, 0.9, 1.0, 1.1])
  found = sequences.Pairs.from_times(FrameTimes(0.0, 0.0, 6, gap), 0.2)
  assert found.valid.tolist() == [True, False, False, True, False, False] and (
    found.left_out,
    found.at_end,
  ) == (2, 2)


def test_plans_by_hand():
  clips = [("x", 0, 10, 10), ("x", 10, 4, 10), ("y", 0, 8, 20), ("z", 0, 9, 10)]
  records = test_index.table(clips)
  records.shard[2:], records.clip[:] = 1, [0, 1, 1, 0]
  plan = sequences.plan(records, offset_seconds=0.2, cameras=("b",))
  assert (
    plan.reach == 4
    and plan.cameras == ("b",)
    and plan.offset_seconds == 0.2
    and plan.explicit == {}
  )
  assert [
    dataclasses.astuple(one) if dataclasses.is_dataclass(one) else one for one in plan.sequences(1)
  ] == [(2, "b", 9), (1, "b", 8)]
  assert [
    (one.segment, one.camera, one.length)
    for one in sequences.plan(records, offset_seconds=0.2).sequences(0)
  ] == [(0, "a", 14), (0, "b", 14)]
  single = test_index.table([("x", 0, 1, 10)])
  single.interval[0] = 0
  with pytest.raises(
    errors.UserError,
    match=(
      "^data set: no pair of frames is 0.2 s apart: the longest segment has 1 frames. Set config"
    ),
  ):
    sequences.plan(single, offset_seconds=0.2)
  records.shard[1] = 1
  with pytest.raises(
    errors.UserError,
    match=(
      "^data set: episode 'x' lies in several shards, expected all of it in one: ingest it again$"
    ),
  ):
    sequences.plan(records, offset_seconds=0.2)
