"""Videos of a data set that show the same recording: encoded again, trimmed, at another size or
frame rate.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from como_jax.data import frame_measures

# equal pictures at one offset in time before two episodes are compared frame by frame
_MIN_VOTES = 3
# earlier episodes that a picture is compared with, so that common pictures cost no more
_MAX_PARTNERS = 4
_VOTE_SECONDS = 0.1
_MIN_ALIKE = 0.8  # of the frames in a stretch
# Mean distance of the hashes of two episodes, as a share of that within the stretch, and what their
# motion's correlation lacks to 1, together.
_MAX_DOUBT = 0.22
_PLAIN = 6  # bits of a hash that must be set, and unset, for it to tell anything


@dataclasses.dataclass(frozen=True)
class Signature:
  """What is compared of an episode of T frames: seconds, hashes and motion of one camera (see
  `FrameMeasures`).
  """

  times: np.ndarray
  picture_hash: np.ndarray
  motion: np.ndarray


@dataclasses.dataclass(frozen=True)
class Duplicate:
  """Frames first .. last - 1 of `episode` show what the earlier episode `of` shows at its time less
  `offset`.
  """

  episode: int
  first: int
  last: int
  of: int
  offset: float


def find(episodes: Sequence[Signature], min_seconds: float = 1.0) -> list[Duplicate]:
  """The stretches of at least `min_seconds` that an earlier episode shows too.

  Equal hashes are collected by sorting; each one votes for an offset in time between two episodes;
  the offsets with several votes are then compared frame by frame. Other recordings of one scene by
  one camera have near hashes as well, so that three things must hold: most hashes are near
  (`HASH_DISTANCE`), they are several times nearer than hashes of the stretch are to each other, and
  the motion goes up and down in the same way. A copy that is encoded so badly that it cannot be
  told from another recording of its scene is not reported. The work grows with the number of frames
  (and of a sort), not with its square.

  A still picture gives no vote: two slides that are the same are not found here,
  `FrameMeasures.still` finds them.
  """
  votes: dict[tuple[int, int], list[float]] = collections.defaultdict(list)
  for later, earlier, offset in _equal_pictures(episodes):
    votes[later, earlier].append(offset)
  found = []
  for (later, earlier), offsets in sorted(votes.items()):
    offset = _most_common(np.array(offsets))
    if offset is not None:
      found += _compare(episodes, later, earlier, offset, min_seconds)
  return found


def mask(duplicates: Sequence[Duplicate], episode: int, count: int) -> np.ndarray:
  """[count] bool: the frames of an episode that are duplicates."""
  out = np.zeros(count, bool)
  for one in duplicates:
    if one.episode == episode:
      out[one.first : one.last] = True
  return out


def _equal_pictures(episodes: Sequence[Signature]):
  """(later episode, earlier episode, seconds between) of frames with equal hashes."""
  hashes, numbers, times = [], [], []
  for number, one in enumerate(episodes):
    bits = np.bitwise_count(one.picture_hash)
    # no repeated ones
    new = np.concatenate([[True], one.picture_hash[1:] != one.picture_hash[:-1]])[: len(bits)]
    new &= (bits >= _PLAIN) & (bits <= 64 - _PLAIN)
    hashes.append(one.picture_hash[new])
    numbers.append(np.full(new.sum(), number))
    times.append(one.times[new])
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
  """The offset with the most votes within `_VOTE_SECONDS`; None where it has too few."""
  offsets = np.sort(offsets)
  reach = np.searchsorted(offsets, offsets + _VOTE_SECONDS, side="right") - np.arange(len(offsets))
  best = int(np.argmax(reach))
  return float(np.median(offsets[best : best + reach[best]])) if reach[best] >= _MIN_VOTES else None


def _compare(
  episodes: Sequence[Signature], later: int, earlier: int, offset: float, min_seconds: float
) -> list[Duplicate]:
  """The stretches of `later` that are those of `earlier` at an offset."""
  a, b = episodes[earlier], episodes[later]
  wanted = b.times - offset
  right = np.clip(np.searchsorted(a.times, wanted), 1, max(1, len(a.times) - 1))
  if len(a.times) < 2 or len(b.times) < 2:
    return []
  nearest = right - (wanted - a.times[right - 1] <= a.times[right] - wanted)
  reach = max(np.median(np.diff(a.times)), np.median(np.diff(b.times)))
  near = np.abs(a.times[nearest] - wanted) <= reach
  distance = frame_measures.hash_distance(a.picture_hash[nearest], b.picture_hash)
  alike = near & (distance <= frame_measures.HASH_DISTANCE)
  if not alike.any():
    return []
  frames = np.flatnonzero(alike)
  first, last = int(frames[0]), int(frames[-1]) + 1
  if b.times[last - 1] - b.times[first] < min_seconds or alike[first:last].mean() < _MIN_ALIKE:
    return []
  here, there = b.motion[first:last], np.interp(wanted[first:last], a.times, a.motion)
  smooth = np.ones(3) / 3  # frames of another rate lie between
  here, there = np.convolve(here, smooth, "valid"), np.convolve(there, smooth, "valid")
  if min(here.std(), there.std()) < 1e-6:
    return []
  sample = b.picture_hash[first : last : max(1, (last - first) // 64)]
  usual = frame_measures.hash_distance(sample[:, None], sample).mean()
  if (
    distance[first:last].mean() / max(usual, 1e-6) + 1 - np.corrcoef(here, there)[0, 1] > _MAX_DOUBT
  ):
    return []
  return [Duplicate(later, first, last, earlier, offset)]
