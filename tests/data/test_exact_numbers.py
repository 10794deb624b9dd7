"""Times, statistics and segments at their edges, with numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import shards, statistics, summaries, times
from como_jax.data.times import FrameTimes
from tests.data.test_index import table


def explicit(*seconds):
  return FrameTimes(seconds[0], 0.0, len(seconds), np.array(seconds))


def test_uniform_within_three_quarters_of_a_millisecond():
  line = np.arange(11) / 10
  # the line goes through the middle of a bump
  for away, uniform in ((1.4e-3, True), (1.6e-3, False)):
    bumped = line + away * (np.arange(11) == 5)
    assert (FrameTimes.of(bumped).explicit is None) == uniform
  # at a thousand a second a quarter of the interval
  for away, uniform in ((4e-4, True), (6e-4, False)):
    bumped = np.arange(11) / 1000 + away * (np.arange(11) == 5)
    assert (FrameTimes.of(bumped).explicit is None) == uniform
  found = FrameTimes.of(line + 1e-3 * (np.arange(11) == 5))
  assert (
    found.first == pytest.approx(0.5e-3, abs=5e-5) and found.interval == 0.1 and found.count == 11
  )
  # Two seconds a frame: no whole number of frames a second.
  assert dataclasses.astuple(FrameTimes.of(3 + 2 * np.arange(4)))[:3] == (3, 2, 4)
  # 30.03 a second is 30 for three frames and not for 30.
  assert FrameTimes.of(np.arange(3) / 30.003).interval == 1 / 30 and FrameTimes.of(
    np.arange(90) / 30.03
  ).interval == pytest.approx(1 / 30.03)
  assert dataclasses.astuple(FrameTimes.of(np.array([]))) == (
    0.0,
    0.0,
    0,
    None,
  ) and dataclasses.astuple(FrameTimes.of(np.array([4.0]))) == (4.0, 0.0, 1, None)
  assert dataclasses.astuple(FrameTimes.of(np.array([4.0, 4.5]))) == (4.0, 0.5, 2, None)
  assert FrameTimes.of(1.00001 * np.arange(4)).interval == 1.0
  uneven = FrameTimes.of(np.array([1.0, 1.1, 1.5]))
  assert (uneven.first, uneven.interval, uneven.count) == (
    1.0,
    0.25,
    3,
  ) and uneven.rate == pytest.approx(1 / 0.25)
  assert FrameTimes.of(np.array([0.0, 0.1, 0.2, 0.7])).rate == pytest.approx(10)  # the median gap
  assert FrameTimes(0.0, 0.1, 1).rate == 0.0 and FrameTimes(0.0, 0.1, 2).rate == 10.0


def test_nearest_frames_and_their_intervals():
  uneven = explicit(0.0, 1.0, 3.0)
  frames, gap = uneven.nearest(np.array([-5, 0.4, 0.5, 0.6, 1.9, 2.0, 2.1, 9.0]))
  assert frames.tolist() == [0, 0, 0, 1, 1, 1, 2, 2] and gap.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
  even = FrameTimes(1.0, 0.5, 4)
  frames, gap = even.nearest(np.array([0.0, 1.0, 1.25, 1.26, 2.75, 9.0]))
  assert frames.tolist() == [0, 0, 0, 1, 3, 3] and gap.tolist() == [0.5] * 6
  frames, gap = FrameTimes(2.0, 0.0, 1).nearest(np.array([0.0, 2.0]))
  assert (frames.tolist(), gap.tolist()) == ([0, 0], [0.0, 0.0])


def test_the_tolerance_is_half_an_interval_and_a_millisecond_or_a_fifth():
  single = FrameTimes(0.0, 0.1, 7)
  for offset, valid in ((0.3, True), (0.25, True), (0.249, True)):
    assert single.partners(np.array([0]), offset)[1][0] == valid
  # 0.025 is a fifth of 0.125
  for offset, valid in (
    (0.125, True),
    (0.1249, True),
    (0.1251, False),
    (0.084, True),
    (0.0833, False),
  ):
    assert (
      single.partners(np.array([0]), offset)[1][0]
      == (abs(0.1 - offset) <= 0.2 * offset + 1e-9)
      == valid
    )
  # Beyond the last frame: half of the last gap and a millisecond.
  end = FrameTimes(0.0, 0.1, 7)
  for start, offset, valid in ((0, 0.65, True), (0, 0.6509, True), (0, 0.6511, False)):
    assert end.partners(np.array([start]), offset)[1][0] == valid
  backwards = end.partners(np.array([5, 2]), 0.3, steps=-1)
  assert backwards[0].tolist() == [2, 0] and backwards[1].tolist() == [True, False]
  assert end.partners(np.array([3]), 0.1, steps=0)[1].tolist() == [True]  # itself


def test_windows_that_fit():
  found = FrameTimes(0.0, 0.1, 10)
  starts, left_out = found.valid_starts(0.2, 3)
  assert starts.tolist() == [0, 1, 2, 3, 4, 5] and left_out == 0
  assert (
    found.window(2, 0.2, 3).tolist() == [2, 4, 6]
    and found.window(2, 0.2, 1).tolist() == [2]
    and found.window(2, 0.2, 3).dtype == np.int64
  )
  assert FrameTimes(0.0, 0.1, 3).valid_starts(0.2, 3)[0].tolist() == []
  # 0.15 s is not near 0.1 or 0.2: windows of two would end in time from frames 0 to 8, of three
  # from 0 to 6.
  assert [found.valid_starts(0.15, frames)[1] for frames in (2, 3)] == [8, 7]
  uneven = explicit(0.0, 0.1, 0.2, 0.3, 0.6, 0.7)
  starts, left_out = uneven.valid_starts(0.1, 2)
  assert starts.tolist() == [0, 1, 2, 4] and left_out == 1
  starts, left_out = uneven.valid_starts(0.1, 3)
  assert starts.tolist() == [0, 1] and left_out == 2
  part = FrameTimes(5.0, 0.5, 9).slice(2, 6)
  assert (part.first, part.interval, part.count) == (6.0, 0.5, 4)


def test_strides_at_constant_rates():
  steps, good = times.strides(np.array([0.1, 0.2, 0.05, 0.0]), 0.2, 3)
  assert steps.tolist() == [[0, 2, 4], [0, 1, 2], [0, 4, 8], [0, 1, 2]] and good.tolist() == [
    True,
    True,
    True,
    False,
  ]
  assert times.strides(0.0, 0.2, 1)[1] and not times.strides(0.5, 0.2, 2)[1]
  assert times.strides(0.1, 0.15, 2)[0].tolist() == [0, 1]  # of two equally near ones the earlier
  # 0.1 s of a fifth of 0.9 s, 0.2 s of 0.16 s
  assert times.strides(1.0, 0.9, 2)[1] and not times.strides(1.0, 0.8, 2)[1]
  assert times.strides(0.002, 0.005, 2)[1]  # half of the interval is 1 ms: 2 or 3 frames
  assert times.ends_in_time(
    np.array([0.1, 0.1, 0.1, 0.0]), np.array([10, 5, 3, 1]), 0.5
  ).tolist() == [5, 0, 0, 0]
  assert times.ends_in_time(0.1, 10, 0.45) == 5 and times.ends_in_time(0.1, 10, 0.3) == 7


@pytest.mark.parametrize(
  "offset, valid",
  [(0.5, True), (1e-9, True), (0.0, False), (-1.0, False), (np.nan, False), (np.inf, False)],
)
def test_offsets(offset, valid):
  if valid:
    times.check_offset(offset, "mine")
  else:
    with pytest.raises(
      errors.UserError, match=f"^mine: the offset is {offset} s, expected more than 0$"
    ):
      times.check_offset(offset, "mine")


class Drawn:
  """A generator that draws one number."""

  def __init__(self, value):
    self.value = value

  def uniform(self, low, high):
    assert (low, high) == (-1.0, 1.0)
    return self.value


def test_jittered_frames_by_hand():
  found = FrameTimes(0.0, 0.1, 40)
  # A fifth of 1 s around 1.5 s: frames 13 to 17, of which 15 is the partner.
  for value, frame in (
    (-1.0, 13),
    (-0.7, 14),
    (-0.2, 14),
    (0.2, 16),
    (0.7, 16),
    (0.76, 17),
    (1.0, 17),
  ):
    assert times.draw_jittered(found, 5, 15, 1.0, Drawn(value)) == frame
  assert times.draw_jittered(FrameTimes(0.0, 0.1, 17), 5, 15, 1.0, Drawn(1.0)) == 16  # the end
  # Never the frame itself, nor one before it.
  assert times.draw_jittered(explicit(0.0, 0.05, 0.1, 0.11), 1, 3, 0.05, Drawn(-1.0)) == 2
  assert times.draw_jittered(explicit(0.0, 0.045, 0.05), 1, 2, 0.005, Drawn(-1.0)) == 2


def test_segments_end_where_anything_changes():
  clips = [
    ("x", 0, 10, 10),
    ("x", 10, 5, 10),
    ("x", 15, 6, 10),
    ("y", 21, 4, 10),
    ("y", 25, 4, 10),
    ("y", 30, 2, 10),
  ]
  records = table(clips, cameras=("a",), shot=lambda i: int(i >= 5))
  found = shards.segments(records)
  assert [
    found.first_row.tolist(),
    found.last_row.tolist(),
    found.start.tolist(),
    found.count.tolist(),
  ] == [[0, 3, 5], [3, 5, 6], [0, 21, 30], [21, 8, 2]]
  assert (
    len(found) == 3
    and found.uniform.tolist() == [True] * 3
    and list(found.rows(1)) == [3, 4]
    and found.length(1) == 8
  )
  assert [found.locate(0, frame) for frame in (0, 9, 10, 14, 15, 20)] == [
    (0, 0),
    (0, 9),
    (1, 0),
    (1, 4),
    (2, 0),
    (2, 5),
  ]
  assert found.locate(1, 4) == (4, 0) and found.begin(1, 4) == 4 and found.place(4) == (0, 4)
  for frame in (-1, 8):
    with pytest.raises(IndexError, match=f"^frame {frame} of a segment of 8$"):
      found.locate(1, frame)
  kept = shards.segments(records, np.array([True, False, True, True, True, False]))
  assert [kept.first_row.tolist(), kept.last_row.tolist()] == [[0, 2, 3], [1, 3, 5]]
  none = shards.segments(records, np.zeros(6, bool))
  assert len(none) == 0 and none.uniform.dtype == bool
  times_ = found.uniform_times(1)
  assert (times_.first, times_.interval, times_.count) == (
    pytest.approx(2.1),
    pytest.approx(0.1),
    8,
  )
  assert records.seconds == pytest.approx(3.1) and records.rates.tolist() == pytest.approx([10] * 6)


@pytest.mark.parametrize(
  "change, uniform",
  [
    ({}, True),
    ({"interval": (1, 2e-9)}, False),
    ({"interval": (1, 5e-10)}, True),
    ({"first": (1, 2e-6)}, False),
    ({"first": (1, 5e-7)}, True),
    ({"uniform": (0, 1)}, False),
    ({"uniform": (1, 1)}, False),
  ],
)
def test_a_segment_is_uniform_where_its_clips_go_on_alike(change, uniform):
  records = table(
    [("x", 0, 10, 10), ("x", 10, 5, 10), ("y", 0, 10, 10), ("y", 10, 5, 20)], cameras=("a",)
  )
  for name, (row, by) in change.items():
    column = getattr(records, name)
    column[row] = not column[row] if name == "uniform" else column[row] + by
  found = shards.segments(records)
  assert found.uniform.tolist() == [uniform, False] and (found.uniform_times(0) is None) == (
    not uniform
  )


def test_a_single_frame_has_no_rate():
  records = table([("x", 0, 1, 10), ("y", 0, 4, 10)])
  records.interval[0] = 0
  assert records.rates.tolist() == pytest.approx([0, 10]) and records.seconds == pytest.approx(0.4)


def of(rows, **settings):
  accumulator = statistics.Accumulator(**settings)
  for part in rows:
    accumulator.add(part)
  return accumulator


def test_thinning_keeps_every_second_row_of_all():
  rows = np.arange(23.0)[:, None]
  accumulator = of((rows[:5], rows[5:6], rows[6:13], rows[13:]), keep=6)
  assert np.concatenate(accumulator._sample)[:, 0].tolist() == [0, 4, 8, 12, 16, 20]
  found = accumulator.finish()
  assert (found.count, found.mean[0], found.min[0], found.max[0]) == (23, 11, 0, 22) and found.std[
    0
  ] == pytest.approx(rows.std())
  assert (found.q01[0], found.q99[0]) == pytest.approx((0.2, 19.8))
  assert np.concatenate(of((rows[:6],), keep=6)._sample)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
  assert statistics.Accumulator().finish() is None and of((np.zeros((0, 2)),)).finish() is None
  with pytest.raises(ValueError, match=r"expected rows \[n, D\], got shape \(3,\)"):
    statistics.Accumulator().add(np.zeros(3))
  # all rows are kept by default
  assert of((rows,)).finish().q99[0] == pytest.approx(np.quantile(rows, 0.99))


def test_noise_goes_with_the_size_of_numbers():
  eps = np.finfo(np.float32).eps
  np.testing.assert_allclose(
    statistics.noise(np.array([0.0, 0.1, -100.0])), [1e-6, 1e-6, 1600 * eps]
  )
  for low, high, constant in (
    (0, 1e-6, True),
    (0, 1.1e-6, False),
    (-100, -100 + 1500 * eps, True),
    (-100, -100 + 1700 * eps, False),
  ):
    one = statistics.Statistics(2, *(np.array([x], float) for x in (0, 0, low, high, 0, 0)))
    assert one.constant.tolist() == [constant]


@pytest.mark.parametrize("between, two", [(0, True), (5, True), (6, False)])
def test_few_rows_may_lie_between_two_values(between, two):
  rows = np.repeat([0.0, 1.0, 0.5], [50, 50 - between, between])[:, None]
  assert of((rows,)).finish().two_valued.tolist() == [two]


@pytest.mark.parametrize("rare, between, two", [(3, 3, True), (3, 4, False), (1, 1, True)])
def test_fewer_rows_between_than_at_the_rarer_end(rare, between, two):
  for ends in ((0.0, 1.0), (1.0, 0.0)):
    rows = np.repeat([*ends, 0.5], [100 - rare - between, rare, between])[:, None]
    assert of((rows,)).finish().two_valued.tolist() == [two]


def test_units_by_hand():
  one = statistics.Statistics(
    4,
    *(np.array([x, x, x], float) for x in (2, 4, -6, 14, 1, 5)),
    binary=np.array([False, True, False]),
  )
  x = np.array([[6.0, 14.0, 2.0]])
  np.testing.assert_allclose(one.normalize(x), [[1, 1, 0]])  # (6 - 2) / 4; (14 - 4) / 10
  np.testing.assert_allclose(one.normalize(x, "quantile"), [[1.5, 1, -0.5]])  # (6 - 3) / 2
  np.testing.assert_allclose(one.inverse(np.array([[1.0, 1.0, -0.5]]), "quantile"), [[5, 14, 2]])
  np.testing.assert_allclose(one.inverse(np.array([[1.0, -1.0, -0.5]])), [[6, -6, 0]])
  still = dataclasses.replace(
    one, q01=np.full(3, 1.0), q99=np.array([1 + 1.8e-6, 1 + 2e-6, 1.0]), binary=None
  )
  np.testing.assert_allclose(
    still.normalize(np.array([[14.0, 14.0, -6.0]]), "quantile"), [[1, (14 - 1 - 1e-6) / 1e-6, -1]]
  )
  flat = dataclasses.replace(one, std=np.zeros(3), binary=None)  # sums that canceled
  np.testing.assert_allclose(flat.normalize(x), [[4, 12, 0]])
  assert one.to_json()["binary"] == [False, True, False] and one.to_json()["count"] == 4
  assert statistics.Statistics.from_json(one.to_json()).binary.tolist() == [False, True, False]


def test_summaries_by_hand():
  levels = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0]
  rows = np.stack([np.arange(101.0), np.full(101, 3.0)], 1)
  found = summaries.summarize(rows)
  np.testing.assert_allclose(
    found[:, 0], [50, ((rows[:, 0] - 50) ** 2).sum(), *(100 * level for level in levels)], atol=1e-9
  )
  np.testing.assert_allclose(found[:, 1], [3, 0] + [3] * 17)
  # A piece of 0 to 1 and one of 10 to 11, three times as long: a share of 0.99 lies below 11 - 1 /
  # 75.
  ramp = summaries.summarize(np.linspace(0, 1, 1001))
  merged = summaries.merge([ramp, summaries.summarize(np.linspace(10, 11, 1001))], [1001, 3003])
  assert (
    merged.q99[0] == pytest.approx(11 - 0.01 / 0.75)
    and merged.q01[0] == pytest.approx(0.04)
    and merged.count == 4004
  )
  low = summaries.merge(
    [summaries.summarize(np.full((n, 1), 10.0 * (n > 1))) for n in (1, 99)], [1, 99]
  )
  # the least value that a hundredth lies below
  assert low.q01[0] == pytest.approx(0, abs=1e-9) and low.q99[0] == 10
  assert (merged.mean[0], merged.min[0], merged.max[0]) == pytest.approx(
    (0.25 * 0.5 + 0.75 * 10.5, 0, 11)
  )
