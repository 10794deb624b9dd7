"""The parts of a shard, and the files that keep their labels."""

import os
import pathlib
import types

import jax
import numpy as np

from como_jax.data import labels, sequences
from como_jax.inference import label_parts


def planned(*lengths):
  """A plan of one shard with these sequences."""
  return types.SimpleNamespace(
    sequences=lambda shard: (
      [sequences.Sequence(i, "a", length) for i, length in enumerate(lengths)] if shard == 3 else []
    )
  )


def test_a_shard_is_cut_where_a_part_is_full(monkeypatch):
  monkeypatch.setattr(label_parts, "PART_BATCHES", 2)

  def parts(*lengths, **changes):
    return label_parts.parts(
      "F", planned(*lengths), 3, **{"batch_size": 5, "facts": {"b": 1, "a": 2}} | changes
    )

  (whole,) = parts(4, 5, 9)  # the last one begins before there are 10 frames
  assert (whole.shard, whole.file, whole.frames, len(whole.sequences)) == (3, None, 18, 3)
  found = parts(4, 6, 3, 7, 1)
  assert [[one.length for one in part.sequences] for part in found] == [[4, 6], [3, 7], [1]]
  assert [part.file for part in found] == [f"F/labels-00003.part-0000{i}.npz" for i in range(3)]
  assert [part.frames for part in found] == [10, 10, 1] and len({part.facts for part in found}) == 3
  assert [part.facts for part in parts(4, 6, 3, 7, 1, facts={"a": 2, "b": 1})] == [
    part.facts for part in found
  ], "in any order"
  assert (
    parts(4, 5, 9, batch_size=9)[0].facts != whole.facts != parts(4, 5, 9, facts={"a": 3})[0].facts
    and len(whole.facts) == 16
  )


def labeled(value=1.0):
  motion = labels.Motion(
    np.full((2, 3), value, np.float32), np.array([True, False]), np.array([0.5, 0], np.float32)
  )
  return label_parts.Labeled(
    [motion, labels.Motion(*(array[:1] for array in motion))],
    [{"row": 1, "camera": "a", "frames": 2, "reason": "torn"}],
  )


def part_of(folder, *, facts="f", count=2, number=0):
  return label_parts.Part(
    3,
    tuple(sequences.Sequence(i, "a", 2) for i in range(count)),
    str(folder / f"labels-00003.part-0000{number}.npz"),
    facts,
  )


def test_a_part_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
  part, synced = part_of(tmp_path), []
  assert label_parts.load(part) is None
  monkeypatch.setattr(
    label_parts.os,
    "fsync",
    lambda number: synced.append([(path.name, path.stat().st_size) for path in tmp_path.iterdir()]),
  )
  label_parts.save(part, labeled())
  ((name, size),) = synced[0]
  assert (
    name == f"labels-00003.part-00000.npz.{os.getpid()}.tmp"
    and size == pathlib.Path(part.file).stat().st_size
  )
  assert [path.name for path in tmp_path.iterdir()] == ["labels-00003.part-00000.npz"]
  found = label_parts.load(part)
  assert found.damaged == labeled().damaged and len(found.motions) == 2
  for one, other in zip(found.motions, labeled().motions, strict=False):
    jax.tree.map(np.testing.assert_array_equal, one, other)
  assert (
    label_parts.load(part_of(tmp_path, facts="other")) is None
    and label_parts.load(part_of(tmp_path, count=3)) is None
  )
  for content in (b"", b"no zip", pathlib.Path(part.file).read_bytes()[:200]):
    pathlib.Path(part.file).write_bytes(content)
    assert label_parts.load(part) is None
  for name in ("labels-00003.part-00001.npz", "labels-00004.part-00000.npz", "labels-00003.json"):
    (tmp_path / name).touch()
  label_parts.remove_parts(str(tmp_path), 3)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "labels-00003.json",
    "labels-00004.part-00000.npz",
  ]


def test_parts_in_a_folder_with_a_star_are_found(tmp_path):
  folder = tmp_path / "a[b]*"
  folder.mkdir()
  label_parts.save(part_of(folder), labeled())
  label_parts.remove_parts(str(folder), 3)
  assert not list(folder.iterdir())


def test_a_part_that_is_the_whole_shard_has_no_file(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  whole = label_parts.Part(3, (sequences.Sequence(0, "a", 2),), None, "f")
  label_parts.save(whole, labeled())
  assert label_parts.load(whole) is None and not list(tmp_path.iterdir())
