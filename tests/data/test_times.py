"""The one rule by which frames are chosen by time, against brute force."""

import dataclasses

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import times
from como_jax.data.times import FrameTimes
from tests.data.test_index import table


def partner(seconds, t, offset, k=1):
  """By the definition: (frame, valid)."""
  wanted = seconds[t] + k * offset
  away = np.abs(seconds - wanted)
  best = int(np.flatnonzero(away <= away.min() + 1e-9)[0])
  after = int(np.clip(np.searchsorted(seconds, wanted), 1, len(seconds) - 1))
  gap = seconds[after] - seconds[after - 1]
  return best, bool(away[best] <= min(gap / 2 + 1e-3, offset / 5) + 1e-9) and (best > t) == (
    k > 0
  ) and best != t


def phone():
  """2 s at 30, 4 s at 10, 2 s at 30 frames a second."""
  return np.concatenate([np.arange(60) / 30, 2 + np.arange(40) / 10, 6 + np.arange(60) / 30])


PATTERNS = {
  "30": np.arange(90) / 30,
  "29.97 in ms": np.round(np.arange(90) * 1001 / 30, 0) / 1000,
  "phone": phone(),
  "gap": np.concatenate([np.arange(20) / 25, 3 + np.arange(30) / 25]),
  "dropped": np.delete(np.arange(80) / 25, [7, 8, 30, 55]),
  "random": np.cumsum(np.random.default_rng(0).uniform(0.01, 0.09, 100)),
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("offset", [0.1, 0.15, 0.2, 0.5, 1.0])
def test_partners_are_the_nearest_frames(name, offset):
  seconds = PATTERNS[name]
  found = FrameTimes(float(seconds[0]), 0.0, len(seconds), seconds)
  for k in (1, 3, -2):
    frames, valid = found.partners(np.arange(len(seconds)), offset, steps=k)
    expected = [partner(seconds, t, offset, k) for t in range(len(seconds))]
    assert valid.tolist() == [good for _, good in expected]
    assert [int(frame) for frame, good in zip(frames, valid, strict=True) if good] == [
      frame for frame, good in expected if good
    ]


@pytest.mark.parametrize("rate", [10, 23.976, 24, 25, 29.97, 30, 59.94, 60, 120])
@pytest.mark.parametrize("offset", [0.1, 0.15, 0.2, 0.5])
def test_uniform_times_say_the_same_as_explicit_ones(rate, offset):
  seconds = 3 + np.arange(70) / rate
  explicit, uniform = FrameTimes(3.0, 1 / rate, 70, seconds), FrameTimes(3.0, 1 / rate, 70)
  for k in (1, 2):
    (a, good_a), (b, good_b) = (
      one.partners(np.arange(70), offset, steps=k) for one in (explicit, uniform)
    )
    inside = np.arange(70) + k * offset * rate < 69
    np.testing.assert_array_equal(good_a[inside], good_b[inside])
    np.testing.assert_array_equal(a[inside & good_a], b[inside & good_a])
  starts = uniform.valid_starts(offset, 3)[0]
  assert all(uniform.window(int(t), offset, 3)[-1] < 70 for t in starts)


def test_ties_go_to_the_earlier_frame():
  for found in (FrameTimes(0.0, 1 / 30, 60), FrameTimes(0.0, 1 / 30, 60, np.arange(60) / 30)):
    assert found.partners(np.array([10]), 0.15)[0][0] == 14  # 4.5 frames


def test_what_is_too_far_is_not_valid():
  slow = FrameTimes.from_seconds(np.arange(40) / 10)
  # 0.05 s away, a fifth of the offset is 0.03
  assert not slow.partners(np.arange(20), 0.15)[1].any()
  assert slow.valid_starts(0.15, 2) == (pytest.approx([]), 38)
  gap = PATTERNS["gap"]
  # 0.5 s from the nearest, though half of the gap is more
  assert not FrameTimes.from_seconds(gap).partners(np.array([10]), 1.3)[1][0]
  assert not FrameTimes.from_seconds(np.arange(30) / 30).partners(np.array([25]), 0.2)[1][
    0
  ]  # beyond the end


def test_the_slow_part_of_a_phone_clip_is_left_out_and_counted():
  starts, left_out = FrameTimes.from_seconds(phone()).valid_starts(0.15, 2)
  expected = [t for t in range(len(phone())) if partner(phone(), t, 0.15)[1]]
  assert starts.tolist() == expected
  ends_in_time = [t for t in range(len(phone())) if phone()[t] + 0.15 <= phone()[-1]]
  assert left_out == len(set(ends_in_time) - set(expected)) and left_out > 35


def test_rounded_clocks_are_uniform_and_real_jitter_is_not():
  milliseconds = np.round(np.arange(300) * 1000 / 29.97) / 1000
  found = FrameTimes.from_seconds(milliseconds)
  assert (
    found.explicit is None
    and np.abs(found.seconds_at(np.arange(300)) - milliseconds).max() <= times.UNIFORM_WITHIN
  )
  exact = FrameTimes.from_seconds(np.float32(np.arange(200) / 40).astype(np.float64))
  assert exact.explicit is None and exact.interval == 0.025 and abs(exact.rate - 40) < 1e-9
  jittered = np.arange(100) / 30 + np.random.default_rng(0).uniform(-4e-3, 4e-3, 100)
  assert FrameTimes.from_seconds(jittered).explicit is not None
  # at 960 frames a second 1 ms is no rounding
  fast = FrameTimes.from_seconds(np.round(np.arange(100) * 1000 / 960) / 1000)
  assert fast.explicit is None or np.array_equal(
    fast.explicit, np.round(np.arange(100) * 1000 / 960) / 1000
  )


@pytest.mark.parametrize(
  "seconds, message",
  [([0.0, np.nan], "time of frame 1 is nan"), ([0.0, 0.1, 0.1], "frame 1 at 0.1.*frame 2 at 0.1")],
)
def test_times_that_are_none_are_named(seconds, message):
  with pytest.raises(ValueError, match=message):
    FrameTimes.from_seconds(np.array(seconds))


def test_slices_and_single_frames():
  for seconds in (PATTERNS["30"], PATTERNS["random"]):
    whole = FrameTimes.from_seconds(seconds)
    np.testing.assert_allclose(
      whole.slice(10, 30).seconds_at(np.arange(20)), seconds[10:30], atol=1e-9
    )
  one = FrameTimes.from_seconds(np.array([2.5]))
  assert (one.seconds_at(0), one.rate, len(one)) == (2.5, 0.0, 1) and not one.partners(
    np.array([0]), 0.1
  )[1][0]
  assert one.valid_starts(0.1, 1)[0].tolist() == [0]


def test_jitter_stays_within_a_fifth_of_the_offset_and_is_even_in_seconds():
  rng = np.random.default_rng(0)
  found = FrameTimes.from_seconds(np.arange(200) / 30)
  drawn = [times.draw_jittered(found, 10, 40, 1.0, rng) - 40 for _ in range(2000)]
  assert set(drawn) == {-6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6}
  # four times as many frames behind the partner
  crowded = FrameTimes.from_seconds(
    np.concatenate([np.arange(31) / 30, 1 + np.arange(1, 40) / 120])
  )
  behind = np.mean([times.draw_jittered(crowded, 0, 30, 1.0, rng) > 30 for _ in range(2000)])
  assert 0.45 < behind < 0.6  # by seconds, not by frames (24 of 30 lie behind)
  # 14 is the partner, 15 as near to 0.15 s
  assert times.draw_jittered(found, 10, 14, 0.15, rng) in (14, 15)
  sparse = FrameTimes.from_seconds(np.arange(20) / 5)
  assert times.draw_jittered(sparse, 3, 4, 0.2, rng) == 4


def test_windows_and_jitter_of_uniform_times_are_those_of_arrays():
  """The short ways for one window give what `partners` and `nearest` do, bit by bit, and draw as
  often.
  """
  rng, beside = np.random.default_rng(0), 0
  for _ in range(2000):
    found = FrameTimes(
      float(rng.choice([0.0, 2.5])),
      1 / float(rng.choice([5, 10, 23.976, 29.97, 30, 60])),
      int(rng.integers(2, 200)),
    )
    offset, frames, start = (
      float(rng.choice([0.1, 0.15, 1 / 3, 0.5, 1.0])),
      int(rng.integers(1, 5)),
      int(rng.integers(found.count)),
    )
    later = found.partners(np.full(frames - 1, start), offset, steps=np.arange(1, frames))[0]
    window = found.window(start, offset, frames)
    np.testing.assert_array_equal(window, np.array([start, *later], np.int64), strict=True)
    seed, partner = int(rng.integers(2**31)), int(window[-1])
    mine, other = np.random.default_rng(seed), np.random.default_rng(seed)
    drawn = times.draw_jittered(found, start, partner, offset, mine)
    wanted = float(found.seconds_at(start)) + offset
    goal = wanted + other.uniform(-1, 1) * times.FRACTION * offset
    low, high = found.nearest(
      np.array([wanted - times.FRACTION * offset - 1e-9, wanted + times.FRACTION * offset + 1e-9])
    )[0]
    near = [
      t
      for t in range(max(int(low), start + 1), int(high) + 1)
      if t != partner and abs(found.seconds_at(t) - wanted) <= times.FRACTION * offset + 1e-9
    ]
    assert drawn == (
      near[int(np.argmin(np.abs(found.seconds_at(np.array(near)) - goal)))] if near else partner
    )
    assert mine.bit_generator.state == other.bit_generator.state
    beside += len(near) > 1
  assert beside > 200


def explicit(*seconds):
  return FrameTimes(seconds[0], 0.0, len(seconds), np.array(seconds))


def test_uniform_within_three_quarters_of_a_millisecond():
  line = np.arange(11) / 10
  # the line goes through the middle of a bump
  for away, uniform in ((1.4e-3, True), (1.6e-3, False)):
    bumped = line + away * (np.arange(11) == 5)
    assert (FrameTimes.from_seconds(bumped).explicit is None) == uniform
  # at a thousand a second a quarter of the interval
  for away, uniform in ((4e-4, True), (6e-4, False)):
    bumped = np.arange(11) / 1000 + away * (np.arange(11) == 5)
    assert (FrameTimes.from_seconds(bumped).explicit is None) == uniform
  found = FrameTimes.from_seconds(line + 1e-3 * (np.arange(11) == 5))
  assert (
    found.first == pytest.approx(0.5e-3, abs=5e-5) and found.interval == 0.1 and found.count == 11
  )
  # Two seconds a frame: no whole number of frames a second.
  assert dataclasses.astuple(FrameTimes.from_seconds(3 + 2 * np.arange(4)))[:3] == (3, 2, 4)
  # 30.03 a second is 30 for three frames and not for 30.
  assert FrameTimes.from_seconds(
    np.arange(3) / 30.003
  ).interval == 1 / 30 and FrameTimes.from_seconds(np.arange(90) / 30.03).interval == pytest.approx(
    1 / 30.03
  )
  assert dataclasses.astuple(FrameTimes.from_seconds(np.array([]))) == (
    0.0,
    0.0,
    0,
    None,
  ) and dataclasses.astuple(FrameTimes.from_seconds(np.array([4.0]))) == (4.0, 0.0, 1, None)
  assert dataclasses.astuple(FrameTimes.from_seconds(np.array([4.0, 4.5]))) == (4.0, 0.5, 2, None)
  assert FrameTimes.from_seconds(1.00001 * np.arange(4)).interval == 1.0
  uneven = FrameTimes.from_seconds(np.array([1.0, 1.1, 1.5]))
  assert (uneven.first, uneven.interval, uneven.count) == (
    1.0,
    0.25,
    3,
  ) and uneven.rate == pytest.approx(1 / 0.25)
  assert FrameTimes.from_seconds(np.array([0.0, 0.1, 0.2, 0.7])).rate == pytest.approx(
    10
  )  # the median gap
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


def test_a_single_frame_has_no_rate():
  records = table([("x", 0, 1, 10), ("y", 0, 4, 10)])
  records.interval[0] = 0
  assert records.rates.tolist() == pytest.approx([0, 10]) and records.seconds == pytest.approx(0.4)
