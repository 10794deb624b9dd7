"""Clips that an earlier episode shows too."""

import numpy as np

from como_jax.data import duplicate_clips, duplicates


class Opened:
  """A shard with facts of frames."""

  def __init__(self, facts, index=("frame/picture_hash/cam",)):
    self.index, self._facts = index, facts

  def frame_fact(self, clip, name):
    return self._facts[clip, name]


def test_clips_of_which_half_is_known(monkeypatch):
  lengths, asked = {0: 4, 1: 4, 2: 6, 3: 3}, []
  facts = {
    (clip, name): np.full(length, clip + 10 * (name[0] == "m"))
    for clip, length in lengths.items()
    for name in ("picture_hash/cam", "motion/cam")
  }
  opened = {0: Opened(facts), 1: Opened({}, index=())}
  monkeypatch.setattr(
    duplicate_clips.reader,
    "ShardFiles",
    lambda output, files: asked.append((output, files)) or opened,
  )

  def find(signatures):
    assert [one.times.tolist() for one in signatures] == [
      [0, 1, 2, 3, 8, 9, 10, 11],
      [5, 6, 7, 9, 11, 13],
    ]
    assert [one.picture_hash.tolist() for one in signatures] == [[0] * 4 + [1] * 4, [2] * 6]
    assert [one.motion.tolist() for one in signatures] == [[10] * 4 + [11] * 4, [12] * 6]
    return [duplicates.Duplicate(1, 0, 3, 0, 4.0), duplicates.Duplicate(0, 3, 6, 1, -2.5)]

  monkeypatch.setattr(duplicate_clips.duplicates, "find", find)
  monkeypatch.setattr(
    duplicate_clips.duplicates,
    "mask",
    lambda found, number, count: (
      np.isin(np.arange(count), [t for one in found for t in range(one.first, one.last)])
      if [one.episode for one in found] == [number]
      else None
    ),
  )

  def row(shard, clip, name, **more):
    return {
      "shard": shard,
      "clip": clip,
      "episode": name,
      "length": lengths[clip],
      "seconds": None,
      "duplicate": False,
    } | more

  rows = [
    row(0, 0, "x", first=0, interval=1),
    row(0, 2, "y", seconds=[5, 6, 7, 9, 11, 13]),
    row(1, 3, "z", first=0, interval=1),
    row(0, 1, "x", first=8, interval=1),
  ]
  notes = duplicate_clips.mark("out", [{"shard": 0}, {"shard": 1}], rows)
  assert asked == [("out", [{"shard": 0}, {"shard": 1}])]
  assert notes == [
    {"name": "y", "note": "from 5.00 to 7.00 s it shows what x shows from 1.00 s on"},
    {"name": "x", "note": "from 3.00 to 9.00 s it shows what y shows from 5.50 s on"},
  ]
  # 3 of 6 frames of y; 1 of 4 and 2 of 4 of x.
  assert [one["duplicate"] for one in rows] == [False, True, False, True]
  assert duplicate_clips._text(-0.001) == "0.00" and duplicate_clips._text(2.345678) == "2.35"
