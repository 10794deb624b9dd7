"""Label sets: the format, reading by episode, statistics, refusals; and the walk over every frame
once, pairs chosen by time.
"""

import json
import pathlib
import pickle
import re

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import (
  label_file,
  labels,
  number_file,
  sequences,
  shards,
  sources,
  statistics,
  stored,
  video,
)
from tests.data import makers

FACTS = {"model": "aaaa", "offset_seconds": 0.2}
LENGTHS = (14, 9, 5)
COMPAT = pathlib.Path(__file__).parents[1] / "compat"


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory):
  """Two cameras, clips of 6 frames, two episodes a shard."""
  return makers.shards(
    tmp_path_factory.mktemp("data") / "s",
    LENGTHS,
    cameras=("left", "right"),
    clip_frames=6,
    episodes_per_shard=2,
  )


def truth(table, row, *, scale=1.0):
  """Labels of one clip: z[t] = (frame of the episode, episode) * scale, two frames apart."""
  name = table.episodes[table.episode[row]]
  length = {f"episode_{i}": n for i, n in enumerate(LENGTHS)}[name]
  t = table.start[row] + np.arange(table.length[row])
  valid = t + 2 < length
  z = np.where(valid[:, None], np.stack([t, np.full(len(t), int(name[-1]))], 1) * scale, 0).astype(
    np.float32
  )
  return labels.Motion(z, valid, np.where(valid, 0.2, 0).astype(np.float32))


def write(data, folder, *, model="aaaa", scale=1.0, damaged=()):
  """A whole label set of the camera "left"; returns its folder."""
  folder.mkdir()
  table, sidecars = shards.read_table(data), []
  for shard in (0, 1):
    rows = np.flatnonzero(table.shard == shard)
    rows, clips = rows[np.argsort(table.clip[rows])], []
    for row in rows:
      motion = truth(table, row, scale=scale)
      if (shard, table.clip[row]) in damaged:
        motion = labels.Motion(*(np.zeros_like(array) for array in motion))
      clips.append((table.start[row], {"left": motion}))
    sidecars.append(
      label_file.write_shard(
        str(folder), shard, clips, facts=FACTS, at_end=2 * len(np.unique(table.episode[rows]))
      )
    )
  source = shards.read_manifest(data)["source"]["fingerprint"]
  label_file.write_manifest(
    str(folder),
    sidecars,
    data_shards=data,
    size=2,
    queries=1,
    dims=2,
    offset_seconds=0.2,
    cameras=["left"],
    model={"path": "m", "fingerprint": model, "config": {}},
    data={"path": data, "fingerprint": source, "image_size": 0},
  )
  return str(folder)


def test_clips_and_episodes_come_back(data, tmp_path):
  table = shards.read_table(data)
  found = labels.Labels(write(data, tmp_path / "l"))
  assert found.size == 2 and found.cameras == ("left",) and found.manifest["offset_seconds"] == 0.2
  assert {
    key: found.manifest[key] for key in ("frames", "valid", "left_out", "at_end", "unreadable")
  } == {"frames": 28, "valid": 22, "left_out": 0, "at_end": 6, "unreadable": 0}
  assert found.episodes == ("episode_0", "episode_1", "episode_2")
  found = pickle.loads(pickle.dumps(found))  # as Grain's workers do
  for row in range(len(table)):
    motion = found.clip(table.shard[row], table.clip[row])["left"]
    for array, expected in zip(motion, truth(table, row), strict=True):
      np.testing.assert_array_equal(array, expected)
      assert array.dtype == expected.dtype
  seconds, z, valid, difference = found.episode("episode_0")["left"]
  np.testing.assert_allclose(seconds, np.arange(14) / 10, atol=1e-9)
  np.testing.assert_array_equal(z[:, 0], [*range(12), 0, 0])
  assert valid.tolist() == [True] * 12 + [False] * 2 and difference[11] == np.float32(0.2)
  np.testing.assert_array_equal(found.frame_numbers("episode_1"), range(9))
  with pytest.raises(errors.UserError, match="episode 'episode_7' does not exist"):
    found.episode("episode_7")
  with pytest.raises(video.UnreadableError, match="lists no shard-00099"):
    found.clip(99, 0)


def test_a_label_set_is_read_without_its_data(data, tmp_path):
  copy = makers.shards(
    tmp_path / "s", LENGTHS, cameras=("left", "right"), clip_frames=6, episodes_per_shard=2
  )
  folder = write(copy, tmp_path / "l")
  (tmp_path / "s").rename(tmp_path / "gone")
  assert len(labels.Labels(folder).episode("episode_1")["left"].z) == 9


def test_the_example_of_the_page_on_data_reads_labels(data, tmp_path, capsys):
  (block,) = re.findall(
    r"```python\n(from como_jax.data import labels.*?)```",
    (COMPAT.parents[1] / "docs" / "data.md").read_text(),
    re.S,
  )
  exec(block.replace("runs/labels", write(data, tmp_path / "l")), {})
  assert capsys.readouterr().out.splitlines()[1] == f"episode_1 left (9, 2) {7 / 9}"


def test_statistics_count_every_valid_frame_once(data, tmp_path):
  found = labels.Labels(write(data, tmp_path / "l")).statistics
  rows = np.concatenate(
    [np.stack([np.arange(n - 2), np.full(n - 2, i)], 1) for i, n in enumerate(LENGTHS)]
  ).astype(float)
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  assert found.count == len(rows)
  for name in ("mean", "std", "min", "max", "q01", "q99"):
    np.testing.assert_allclose(getattr(found, name), getattr(accumulator.finish(), name), rtol=1e-9)


def test_fingerprint_follows_the_labels_and_verify_sees_damage(data, tmp_path):
  one, same, other = (
    write(data, tmp_path / name, scale=scale) for name, scale in (("a", 1), ("b", 1), ("c", 2))
  )
  assert labels.fingerprint(one) == labels.fingerprint(same) != labels.fingerprint(other)
  assert labels.verify(one) == []
  (tmp_path / "a" / labels.file_name(0)).write_bytes(b"")
  (tmp_path / "a" / labels.file_name(1)).unlink()
  (tmp_path / "a" / shards.RECORDS).write_bytes(b"")
  assert len(labels.verify(one)) == 3


def test_labels_of_frames_are_read_by_rows(data, tmp_path):
  found = labels.Labels(write(data, tmp_path / "l"))
  whole = found.clip(0, 1)["left"]
  numbers = [len(whole.z) - 1, 2, 2]
  with stored.counter() as asked:
    z, valid = found.frames(0, 1, "left", numbers[1:])
  np.testing.assert_array_equal(z, whole.z[[2, 2]])
  np.testing.assert_array_equal(valid, whole.valid[[2, 2]])
  # a block of rows each, and its checksum
  rows = min(len(whole.z), number_file.BLOCK)
  assert asked.bytes == rows * (4 * found.size + 1) + 2 * 8
  z, valid = found.frames(0, 1, "left", numbers)
  np.testing.assert_array_equal(z, whole.z[numbers])
  assert found.length(0, 1) == len(whole.z) and valid.tolist() == whole.valid[numbers].tolist()
  with pytest.raises(video.UnreadableError, match=r"clip 1 has no array 'z/nothing'$"):
    found.frames(0, 1, "nothing", [0])


def test_a_flipped_bit_is_noticed_when_it_is_read(data, tmp_path):
  folder = pathlib.Path(write(data, tmp_path / "l"))
  file = folder / labels.file_name(0)
  raw = bytearray(file.read_bytes())
  raw[raw.index(truth(shards.read_table(data), 0).z.tobytes()) + 8] ^= 1
  file.write_bytes(raw)
  found = labels.Labels(str(folder))
  with pytest.raises(
    video.UnreadableError, match="labels-00000.labels clip 0: the checksum of 'z/left' differs"
  ):
    found.clip(0, 0)
  assert found.clip(0, 1)["left"].valid.any()
  text = (folder / labels.MANIFEST).read_text()
  value = next(one for one in json.loads(text)["statistics"]["mean"])
  (folder / labels.MANIFEST).write_text(text.replace(repr(value), repr(value + 1), 1))
  with pytest.raises(errors.UserError, match="labels.json has changed since it was written"):
    labels.Labels(str(folder))


def test_check_refuses_other_data_and_other_clips(data, tmp_path):
  folder = write(data, tmp_path / "l")
  labels.check(folder, data_path=data)
  other = makers.shards(tmp_path / "other", (14, 9), cameras=("left",))
  with pytest.raises(errors.UserError) as caught:
    labels.check(folder, data_path=other)
  assert folder in str(caught.value) and other in str(caught.value) and data in str(caught.value)
  recut = makers.shards(
    tmp_path / "recut", LENGTHS, cameras=("left", "right"), clip_frames=7, episodes_per_shard=2
  )
  with pytest.raises(errors.UserError, match="cut into other clips"):
    labels.check(folder, data_path=recut)


def test_raw_data_is_checked_by_its_own_fingerprint(tmp_path):
  raw = makers.video_folder(tmp_path / "raw", lengths=(6,))
  data = makers.shards(tmp_path / "s", source=sources.open_source(raw))
  (tmp_path / "l").mkdir()
  motion = labels.Motion(np.ones((6, 2), np.float32), np.ones(6, bool), np.ones(6, np.float32))
  sidecar = label_file.write_shard(str(tmp_path / "l"), 0, [(0, {"camera": motion})], facts={})
  source = shards.read_manifest(data)["source"]["fingerprint"]
  label_file.write_manifest(
    str(tmp_path / "l"),
    [sidecar],
    data_shards=data,
    size=2,
    queries=1,
    dims=2,
    offset_seconds=0.2,
    cameras=["camera"],
    model={},
    data={"path": raw, "fingerprint": source, "image_size": 0},
  )
  labels.check(str(tmp_path / "l"), data_path=raw)
  labels.check(str(tmp_path / "l"), data_path=data)
  makers.write_video(tmp_path / "raw" / "a" / "more.mp4", 5)
  with pytest.raises(errors.UserError, match="fingerprint"):
    labels.check(str(tmp_path / "l"), data_path=raw)


@pytest.mark.parametrize(
  "text, message",
  [
    (None, "labels.json is missing"),
    ("{", "expected kind"),
    ('{"kind": "como_jax shards", "version": 1}', "expected kind"),
    ('{"kind": "como_jax labels", "version": 9}', "update como_jax"),
    ('{"kind": "como_jax labels", "version": 2}', "changed since"),
  ],
)
def test_what_is_no_label_set_is_refused(tmp_path, text, message):
  if text is not None:
    (tmp_path / labels.MANIFEST).write_text(text)
  with pytest.raises(errors.UserError, match=message):
    labels.Labels(str(tmp_path))


def test_labels_of_version_1_are_refused_in_one_line():
  folder = COMPAT / "labels_v1"
  assert labels.MANIFEST in [path.name for path in folder.iterdir()] and list(
    folder.glob("*.array_record")
  )
  for read in (labels.Labels, labels.read_manifest, labels.fingerprint, labels.verify):
    with pytest.raises(
      errors.UserError,
      match=r"labels.json has version 1, this program reads version 2: extract them again",
    ) as caught:
      read(str(folder))
    assert "\n" not in str(caught.value)
  with pytest.raises(errors.UserError, match="were made with version None, now it is 2"):
    label_file.finished(str(folder), 0, facts={"version": labels.VERSION})


def test_a_walk_shows_every_frame_of_every_camera_once(data):
  plan = sequences.plan(shards.read_table(data), offset_seconds=0.2)
  every = [one for shard in (0, 1) for one in plan.sequences(shard)]
  assert [(one.segment, one.camera, one.length) for one in every] == [
    (i, camera, n) for i, n in enumerate(LENGTHS) for camera in ("left", "right")
  ]
  assert plan.reach == 2
  for settings in (dict(threads=0), dict(threads=2, prefetch=3), dict(workers=1, prefetch=1)):
    with sequences.iterate_clips(data, plan, every, image_size=8, **settings) as clips:
      for one in every:
        seen = [next(clips) for _ in plan.segments.rows(one.segment)]
        numbers = [makers.number(image) for clip in seen for image in clip["frames"]]
        assert numbers == list(range(one.length)) and all(
          clip["readable"].all() and str(clip["damage"]) == "" for clip in seen
        )
        assert seen[0]["frames"].shape[1:] == (8, 8, 3)
      with pytest.raises(StopIteration):
        next(clips)


def test_plan_refuses_by_name(data, tmp_path):
  table = shards.read_table(data)
  assert sequences.plan(table, offset_seconds=0.2, name="d").cameras == ("left", "right")
  for settings, message in (
    (dict(cameras=("lefft",)), "did you mean 'left'"),
    (dict(offset_seconds=0.0), "expected more than 0"),
    (
      dict(offset_seconds=2.0),
      "no pair of frames is 2.0 s apart: the longest segment has 14 frames at 10 frames",
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      sequences.plan(table, **{"offset_seconds": 0.2, "cameras": (), "name": "d"} | settings)
  table.clip[-1] += 1
  with pytest.raises(errors.UserError, match="records.parquet does not list every clip"):
    sequences.plan(table, offset_seconds=0.2)
  table.shard[1] += 1
  with pytest.raises(errors.UserError, match="'episode_0' lies in several shards"):
    sequences.plan(table, offset_seconds=0.2)


def test_a_camera_without_labels_is_named(data, tmp_path):
  found = labels.Labels(write(data, tmp_path / "l"))
  for read in (found.z, found.valid):
    with pytest.raises(
      video.UnreadableError, match="labels-00000.labels clip 0 has no array '.*/right'"
    ):
      read(0, 0, "right")
  assert found.clip(0, 0, ["right"]) == {}
