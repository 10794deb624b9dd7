"""Finds videos of a data set that show the same recording.

They may be encoded again, trimmed, or have another size or frame rate.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from como_jax.data import frame_measures

# Two episodes are compared frame by frame if they have so many equal pictures at one time offset.
_MIN_VOTES = 3
# A picture is compared with at most so many earlier episodes, which limits the cost of common
# pictures.
_MAX_PARTNERS = 4
_VOTE_SECONDS = 0.1  # votes for one offset differ by at most this
_MIN_ALIKE = 0.8  # smallest share of frames with near hashes in a stretch
# Largest sum of two terms: the mean hash distance of two episodes, as a share of the mean distance
# within the stretch; and 1 minus the correlation of their motion.
_MAX_DOUBT = 0.22
_PLAIN = 6  # a hash with fewer bits that are set, or not set, carries no information


@dataclasses.dataclass(frozen=True)
class Signature:
  """The values of an episode that are compared, for one camera (see `FrameMeasures`).

  Attributes:
    times: [T] seconds.
    picture_hash: [T].
    motion: [T].
  """

  times: np.ndarray
  picture_hash: np.ndarray
  motion: np.ndarray


@dataclasses.dataclass(frozen=True)
class Duplicate:
  """A stretch of an episode that an earlier episode shows too.

  Attributes:
    episode: number of the episode.
    first: first frame of the stretch.
    last: last frame, exclusive.
    original: number of the earlier episode.
    offset: time in `episode` minus time in the earlier episode, in seconds.
  """

  episode: int
  first: int
  last: int
  original: int
  offset: float


def find(episodes: Sequence[Signature], min_seconds: float = 1.0) -> list[Duplicate]:
  """Finds stretches of episodes that an earlier episode shows too.

  Equal hashes are collected by sorting. Each pair votes for a time offset between two episodes. The
  offsets with several votes are then compared frame by frame. Other recordings of the same scene by
  the same camera also have near hashes. So three conditions must hold: most hashes are near
  (`HASH_DISTANCE`); they are several times nearer than the hashes within the stretch are to each
  other; and the motions are correlated. A copy with very strong compression looks like another
  recording of the scene, and is not reported. The cost is that of sorting the frames, not the
  square of their number.

  A still picture gives no vote, so two equal slides are not found here. `FrameMeasures.still` finds
  them.

  Args:
    episodes: of the data set, in order.
    min_seconds: shortest stretch.
  """
  votes: dict[tuple[int, int], list[float]] = collections.defaultdict(list)
  for later, earlier, offset in _equal_pictures(episodes):
    votes[later, earlier].append(offset)
  result = []
  for (later, earlier), offsets in sorted(votes.items()):
    offset = _most_common(np.array(offsets))
    if offset is not None:
      result += _compare(episodes, later, earlier, offset, min_seconds)
  return result


def mask(duplicates: Sequence[Duplicate], episode: int, count: int) -> np.ndarray:
  """The frames of an episode that are duplicates, bool [count].

  Args:
    duplicates: from `find`.
    episode: number of the episode.
    count: number of its frames.
  """
  out = np.zeros(count, bool)
  for duplicate in duplicates:
    if duplicate.episode == episode:
      out[duplicate.first : duplicate.last] = True
  return out


def _equal_pictures(episodes: Sequence[Signature]):
  """Yields (later episode, earlier episode, time offset in seconds) of frames with equal hashes."""
  hashes, numbers, times = [], [], []
  for number, episode in enumerate(episodes):
    bits = np.bitwise_count(episode.picture_hash)
    # Leave out frames that repeat the one before.
    used = np.concatenate([[True], episode.picture_hash[1:] != episode.picture_hash[:-1]])[
      : len(bits)
    ]
    used &= (bits >= _PLAIN) & (bits <= 64 - _PLAIN)
    hashes.append(episode.picture_hash[used])
    numbers.append(np.full(used.sum(), number))
    times.append(episode.times[used])
  if not sum(map(len, hashes)):
    return
  hashes, numbers, times = np.concatenate(hashes), np.concatenate(numbers), np.concatenate(times)
  order = np.lexsort((numbers, hashes))
  hashes, numbers, times = hashes[order], numbers[order], times[order]
  starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
  for first, last in zip(starts, [*starts[1:], len(hashes)], strict=True):
    if last - first < 2 or numbers[first] == numbers[last - 1]:
      continue
    for i in range(first + 1, last):
      partners: dict[int, int] = {}
      for j in range(first, min(i, first + 4 * _MAX_PARTNERS)):
        if numbers[j] != numbers[i] and len(partners) < _MAX_PARTNERS:
          partners.setdefault(int(numbers[j]), j)
      for number, j in partners.items():
        yield int(numbers[i]), number, float(times[i] - times[j])


def _most_common(offsets: np.ndarray) -> float | None:
  """The offset with the most votes within `_VOTE_SECONDS`, None when it has too few votes."""
  offsets = np.sort(offsets)
  reach = np.searchsorted(offsets, offsets + _VOTE_SECONDS, side="right") - np.arange(len(offsets))
  best = int(np.argmax(reach))
  return float(np.median(offsets[best : best + reach[best]])) if reach[best] >= _MIN_VOTES else None


def _compare(
  episodes: Sequence[Signature], later: int, earlier: int, offset: float, min_seconds: float
) -> list[Duplicate]:
  """Compares two episodes frame by frame at a time offset.

  Args:
    episodes: of the data set.
    later: number of the later episode.
    earlier: number of the earlier episode.
    offset: time in the later minus time in the earlier episode, in seconds.
    min_seconds: shortest stretch.

  Returns:
    The stretch of the later episode that the earlier episode shows too, if any.
  """
  a, b = episodes[earlier], episodes[later]
  target = b.times - offset
  right = np.clip(np.searchsorted(a.times, target), 1, max(1, len(a.times) - 1))
  if len(a.times) < 2 or len(b.times) < 2:
    return []
  nearest = right - (target - a.times[right - 1] <= a.times[right] - target)
  reach = max(np.median(np.diff(a.times)), np.median(np.diff(b.times)))
  near = np.abs(a.times[nearest] - target) <= reach
  distance = frame_measures.hash_distance(a.picture_hash[nearest], b.picture_hash)
  alike = near & (distance <= frame_measures.HASH_DISTANCE)
  if not alike.any():
    return []
  frames = np.flatnonzero(alike)
  first, last = int(frames[0]), int(frames[-1]) + 1
  if b.times[last - 1] - b.times[first] < min_seconds or alike[first:last].mean() < _MIN_ALIKE:
    return []
  motion, motion_of = b.motion[first:last], np.interp(target[first:last], a.times, a.motion)
  smooth = np.ones(3) / 3  # with different rates, frames lie between those of the other episode
  motion, motion_of = np.convolve(motion, smooth, "valid"), np.convolve(motion_of, smooth, "valid")
  if min(motion.std(), motion_of.std()) < 1e-6:
    return []
  sample = b.picture_hash[first : last : max(1, (last - first) // 64)]
  usual = frame_measures.hash_distance(sample[:, None], sample).mean()
  if (
    distance[first:last].mean() / max(usual, 1e-6) + 1 - np.corrcoef(motion, motion_of)[0, 1]
    > _MAX_DOUBT
  ):
    return []
  return [Duplicate(later, first, last, earlier, offset)]
