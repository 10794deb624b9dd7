"""The one rule by which frames are chosen by time, against brute force."""

import numpy as np
import pytest

from como_jax.data import times
from como_jax.data.times import FrameTimes


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
  slow = FrameTimes.of(np.arange(40) / 10)
  # 0.05 s away, a fifth of the offset is 0.03
  assert not slow.partners(np.arange(20), 0.15)[1].any()
  assert slow.valid_starts(0.15, 2) == (pytest.approx([]), 38)
  gap = PATTERNS["gap"]
  # 0.5 s from the nearest, though half of the gap is more
  assert not FrameTimes.of(gap).partners(np.array([10]), 1.3)[1][0]
  assert not FrameTimes.of(np.arange(30) / 30).partners(np.array([25]), 0.2)[1][0]  # beyond the end


def test_the_slow_part_of_a_phone_clip_is_left_out_and_counted():
  starts, left_out = FrameTimes.of(phone()).valid_starts(0.15, 2)
  expected = [t for t in range(len(phone())) if partner(phone(), t, 0.15)[1]]
  assert starts.tolist() == expected
  ends_in_time = [t for t in range(len(phone())) if phone()[t] + 0.15 <= phone()[-1]]
  assert left_out == len(set(ends_in_time) - set(expected)) and left_out > 35


def test_rounded_clocks_are_uniform_and_real_jitter_is_not():
  milliseconds = np.round(np.arange(300) * 1000 / 29.97) / 1000
  found = FrameTimes.of(milliseconds)
  assert (
    found.explicit is None
    and np.abs(found.at(np.arange(300)) - milliseconds).max() <= times.UNIFORM_WITHIN
  )
  exact = FrameTimes.of(np.float32(np.arange(200) / 40).astype(np.float64))
  assert exact.explicit is None and exact.interval == 0.025 and abs(exact.rate - 40) < 1e-9
  jittered = np.arange(100) / 30 + np.random.default_rng(0).uniform(-4e-3, 4e-3, 100)
  assert FrameTimes.of(jittered).explicit is not None
  # at 960 frames a second 1 ms is no rounding
  fast = FrameTimes.of(np.round(np.arange(100) * 1000 / 960) / 1000)
  assert fast.explicit is None or np.array_equal(
    fast.explicit, np.round(np.arange(100) * 1000 / 960) / 1000
  )


@pytest.mark.parametrize(
  "seconds, message",
  [([0.0, np.nan], "time of frame 1 is nan"), ([0.0, 0.1, 0.1], "frame 1 at 0.1.*frame 2 at 0.1")],
)
def test_times_that_are_none_are_named(seconds, message):
  with pytest.raises(ValueError, match=message):
    FrameTimes.of(np.array(seconds))


def test_slices_and_single_frames():
  for seconds in (PATTERNS["30"], PATTERNS["random"]):
    whole = FrameTimes.of(seconds)
    np.testing.assert_allclose(whole.slice(10, 30).at(np.arange(20)), seconds[10:30], atol=1e-9)
  one = FrameTimes.of(np.array([2.5]))
  assert (one.at(0), one.rate, len(one)) == (2.5, 0.0, 1) and not one.partners(np.array([0]), 0.1)[
    1
  ][0]
  assert one.valid_starts(0.1, 1)[0].tolist() == [0]


def test_jitter_stays_within_a_fifth_of_the_offset_and_is_even_in_seconds():
  rng = np.random.default_rng(0)
  found = FrameTimes.of(np.arange(200) / 30)
  drawn = [times.draw_jittered(found, 10, 40, 1.0, rng) - 40 for _ in range(2000)]
  assert set(drawn) == {-6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6}
  # four times as many frames behind the partner
  crowded = FrameTimes.of(np.concatenate([np.arange(31) / 30, 1 + np.arange(1, 40) / 120]))
  behind = np.mean([times.draw_jittered(crowded, 0, 30, 1.0, rng) > 30 for _ in range(2000)])
  assert 0.45 < behind < 0.6  # by seconds, not by frames (24 of 30 lie behind)
  # 14 is the partner, 15 as near to 0.15 s
  assert times.draw_jittered(found, 10, 14, 0.15, rng) in (14, 15)
  sparse = FrameTimes.of(np.arange(20) / 5)
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
    wanted = float(found.at(start)) + offset
    goal = wanted + other.uniform(-1, 1) * times.FRACTION * offset
    low, high = found.nearest(
      np.array([wanted - times.FRACTION * offset - 1e-9, wanted + times.FRACTION * offset + 1e-9])
    )[0]
    near = [
      t
      for t in range(max(int(low), start + 1), int(high) + 1)
      if t != partner and abs(found.at(t) - wanted) <= times.FRACTION * offset + 1e-9
    ]
    assert drawn == (
      near[int(np.argmin(np.abs(found.at(np.array(near)) - goal)))] if near else partner
    )
    assert mine.bit_generator.state == other.bit_generator.state
    beside += len(near) > 1
  assert beside > 200
