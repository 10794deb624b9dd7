"""Which labels belong to which rows."""

import fractions
import json
import pathlib
import types

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import labels, lerobot_columns, lerobot_labels, shards
from tests.data import makers, test_index


def motions(z, valid):
  return labels.Motion(np.float32(z), np.array(valid), np.float32(valid))


def test_labels_find_their_rows():
  found = {"episode_000002": {"a": motions([[1, 1], [2, 2]], [True, False])}}
  stored = types.SimpleNamespace(
    episodes=["episode_000002"],
    frame_numbers=lambda name: np.array([1, 4]),
    episode=found.__getitem__,
  )
  find = lerobot_labels._by_index(stored)
  assert find(0) == {}
  motion = find(2)["a"]
  assert motion.z.tolist() == [
    [0, 0],
    [1, 1],
    [0, 0],
    [0, 0],
    [2, 2],
  ] and motion.valid.tolist() == [False, True, False, False, False]
  clips = {(0, 0): {"a": motions([[1, 1]], [True])}, (0, 1): {"a": motions([[2, 2]], [False])}}
  segments = types.SimpleNamespace(
    rows=lambda segment: {7: [3, 4]}[segment], clip_location=lambda row: (0, row - 3)
  )
  find = lerobot_labels._by_segment(
    types.SimpleNamespace(clip=lambda *place: clips[place]), segments, [5, 7]
  )
  assert find(1)["a"].z.tolist() == [[1, 1], [2, 2]] and find(1)["a"].valid.tolist() == [
    True,
    False,
  ]
  assert find.cache_info().maxsize == lerobot_labels._by_index(stored).cache_info().maxsize == 4


def segments(*rates, frames=100, **columns):
  records = test_index.table([(f"e{i}", 0, frames, 1) for i in range(len(rates))])
  records.interval[:] = [1 / rate if rate else 0 for rate in rates]
  for name, value in columns.items():
    getattr(records, name)[:] = value
  return shards.segments(records)


@pytest.mark.parametrize(
  "rates, rate",
  [
    ((30,), 30),
    ((30000 / 1001, 30000 / 1001), "30000/1001"),
    ((12.5,), "25/2"),
    ((0, 25), 25),
    ((0,), 1),
    ((0.25,), "1/4"),
    # 1 us, or 1 ms at the end of the segment
    ((30, 1 / (1 / 30 + 0.9e-6)), 30),
    ((30, 1 / (1 / 30 + 9e-6)), 30),
  ],
)
def test_the_one_rate_of_segments(rates, rate):
  assert lerobot_labels.one_rate(segments(*rates)) == fractions.Fraction(rate)


def test_several_rates():
  with pytest.raises(
    errors.UserError,
    match="the clips have 29.997, 30 frames a second, a LeRobot data set has one rate",
  ):
    lerobot_labels.one_rate(segments(30, 29.997, frames=2000))
  with pytest.raises(
    errors.UserError, match="^config.lerobot: the time between the frames of episode 'e1' varies"
  ):
    lerobot_labels.one_rate(segments(30, 30, uniform=[True, False]))


def test_groups_by_number():
  records = test_index.table(
    [
      ("episode_000003", 0, 4, 10),
      ("episode_000003", 4, 4, 10),
      ("episode_12", 0, 4, 10),
      ("other", 0, 4, 10),
    ]
  )
  records.group[:] = [0, 0, 1, 1]
  records = lerobot_labels.shards.dataclasses.replace(records, groups=("", "g"))
  assert lerobot_labels._groups(records) == {3: "", 12: "g"}


@pytest.mark.parametrize(
  "version, is_v3", [("v3.0", True), ("3.1", True), ("v2.1", False), ("v30", False), (None, False)]
)
def test_versions(tmp_path, version, is_v3):
  (tmp_path / "meta").mkdir()
  (tmp_path / "meta/info.json").write_text(json.dumps({"codebase_version": version}))
  assert lerobot_labels.is_v3(str(tmp_path)) is is_v3 and isinstance(
    lerobot_columns.read_info(pathlib.Path(tmp_path)), dict
  )


def test_kinds_of_robots(tmp_path, monkeypatch):
  monkeypatch.setattr(
    lerobot_labels.shards, "read_manifest", lambda path: {"source": {"robot_type": path}}
  )
  monkeypatch.setattr(lerobot_labels.sources, "detect", lambda path: path)
  monkeypatch.setattr(
    lerobot_labels.lerobot_columns, "read_info", lambda path: {"robot_type": "panda"}
  )
  assert [
    lerobot_labels._robot_type(*given)
    for given in (("lerobot", "x"), ("shards", "x"), ("video_folder", ""))
  ] == ["panda", "x", "unknown"]


@pytest.mark.parametrize(
  "fps, rate", [(10.0, 10), (30000 / 1001, "30000/1001"), (12.5, "25/2"), (29.5, "59/2")]
)
def test_one_rate(tmp_path, fps, rate):
  segments = shards.segments(shards.read_table(makers.shards(tmp_path / "s", (40, 9), fps=fps)))
  assert lerobot_labels.one_rate(segments) == fractions.Fraction(rate)


def test_time_stamps_in_whole_milliseconds_are_one_rate(tmp_path):
  data = makers.shards(
    tmp_path / "s", (100, 61), times=lambda i, n: np.round((i / 3 + np.arange(n)) / 30, 3)
  )
  assert lerobot_labels.one_rate(shards.segments(shards.read_table(data))) == 30
