"""Label sets: the format, joining over clips, statistics, refusals; and the walk over every frame once."""

import json
import pickle

import numpy as np
import pytest
from array_record.python import array_record_module

from como_jax import errors
from como_jax.data import episode, labels, sequences, shard_writer, sources, statistics, video
from como_jax.data.sources import shards
from tests.data import makers

FACTS = {"model": "aaaa", "offset_seconds": 0.2}
LENGTHS = (14, 9, 5)


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory):
  """Two cameras, clips of 6 frames of which 2 are repeated, two episodes a shard."""
  return makers.shards(tmp_path_factory.mktemp("data") / "s", LENGTHS, cameras=("left", "right"), clip_frames=6, clip_overlap=2,
                       episodes_per_shard=2)


def truth(table, row, stride):
  """z[t] = (frame of the episode, episode) and valid of one record."""
  length = {f"episode_{i}": n for i, n in enumerate(LENGTHS)}[table.episode[row]]
  t = table.start[row] + np.arange(table.length[row])
  valid = t + stride < length
  return np.where(valid[:, None], np.stack([t, np.full(len(t), int(table.episode[row][-1]))], 1), 0).astype(np.float32), valid


def write(data, folder, *, model="aaaa", scale=1.0, damaged=()):
  """A whole label set of the camera "left"; returns its folder."""
  folder.mkdir()
  table, sidecars = shards.read_table(data), []
  for shard in (0, 1):
    rows, clips = np.flatnonzero(table.shard == shard), []
    for row in rows:
      z, valid = truth(table, row, 2)
      valid &= (shard, table.record[row]) not in damaged
      arrays = {"z/left": np.where(valid[:, None], z * np.float32(scale), 0).astype(np.float32), "valid/left": valid.astype(np.uint8)}
      clips.append(episode.Clip(table.episode[row], int(table.start[row]), 10.0, table.task[row], {}, arrays))
    sidecars.append(labels.write_shard(str(folder), shard, clips, frames=int(table.length[rows].sum()), facts=FACTS))
  source = shards.read_manifest(data)["source"]["fingerprint"]
  labels.write_manifest(str(folder), sidecars, table=table, size=2, queries=1, dims=2, offset_seconds=0.2, cameras=["left"],
                        model={"path": "m", "fingerprint": model, "config": {}}, data={"path": data, "fingerprint": source, "image_size": 0})
  return str(folder)


def test_records_and_episodes_come_back(data, tmp_path):
  table = shards.read_table(data)
  found = labels.Labels(write(data, tmp_path / "l"))
  assert found.size == 2 and found.manifest["cameras"] == ["left"] and found.manifest["offset_seconds"] == 0.2
  found = pickle.loads(pickle.dumps(found))  # as Grain's workers do
  for row in range(len(table)):
    z, valid = found.clip(table.shard[row], table.record[row])["left"]
    expected = truth(table, row, 2)
    np.testing.assert_array_equal(z, expected[0])
    np.testing.assert_array_equal(valid, expected[1])
    assert z.dtype == np.float32 and valid.dtype == bool
  z, valid = found.episode(table, np.flatnonzero(table.episode == "episode_0")[::-1])["left"]
  np.testing.assert_array_equal(z[:, 0], [*range(12), 0, 0])
  assert valid.tolist() == [True] * 12 + [False] * 2
  with pytest.raises(video.Unreadable, match="labels-00001.array_record record 99"):
    found.clip(1, 99)


def test_statistics_count_every_frame_once(data, tmp_path):
  found = labels.Labels(write(data, tmp_path / "l")).statistics
  rows = np.concatenate([np.stack([np.arange(n - 2), np.full(n - 2, i)], 1) for i, n in enumerate(LENGTHS)]).astype(float)
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  assert found.count == len(rows)  # not the repeated frames again
  for name in ("mean", "std", "min", "max", "q01", "q99"):
    np.testing.assert_allclose(getattr(found, name), getattr(accumulator.finish(), name), rtol=1e-9)


def test_a_shared_frame_of_a_damaged_clip_keeps_the_label_of_the_other(data, tmp_path):
  table = shards.read_table(data)
  found = labels.Labels(write(data, tmp_path / "l", damaged={(0, 1)}))  # frames 4 to 9 of episode 0
  z, valid = found.episode(table, np.flatnonzero(table.episode == "episode_0"))["left"]
  assert np.flatnonzero(~valid).tolist() == [6, 7, 12, 13] and z[5, 0] == 5


def test_fingerprint_follows_the_labels_and_verify_sees_damage(data, tmp_path):
  one, same, other = (write(data, tmp_path / name, scale=scale) for name, scale in (("a", 1), ("b", 1), ("c", 2)))
  assert labels.fingerprint(one) == labels.fingerprint(same) != labels.fingerprint(other)
  assert labels.verify(one) == []
  (tmp_path / "a" / labels.file_name(0)).write_bytes(b"")
  (tmp_path / "a" / labels.file_name(1)).unlink()
  assert len(labels.verify(one)) == 2


def test_check_refuses_other_data_and_other_clips(data, tmp_path):
  folder = write(data, tmp_path / "l")
  labels.check(folder, data_path=data)
  other = makers.shards(tmp_path / "other", (14, 9), cameras=("left",))
  with pytest.raises(errors.UserError) as caught:
    labels.check(folder, data_path=other)
  assert folder in str(caught.value) and other in str(caught.value) and data in str(caught.value)
  recut = makers.shards(tmp_path / "recut", LENGTHS, cameras=("left", "right"), clip_frames=7, episodes_per_shard=2)
  with pytest.raises(errors.UserError, match="cut into other clips"):
    labels.check(folder, data_path=recut)


def test_raw_data_is_checked_by_its_own_fingerprint(tmp_path):
  raw = makers.video_folder(tmp_path / "raw", lengths=(6,))
  data = makers.shards(tmp_path / "s", source=sources.open_source(raw))
  table = shards.read_table(data)
  clips = [episode.Clip(table.episode[0], 0, 10.0, "", {}, {"z/camera": np.ones((6, 2), np.float32), "valid/camera": np.ones(6, np.uint8)})]
  (tmp_path / "l").mkdir()
  sidecar = labels.write_shard(str(tmp_path / "l"), 0, clips, frames=6, facts={})
  source = shards.read_manifest(data)["source"]["fingerprint"]
  labels.write_manifest(str(tmp_path / "l"), [sidecar], table=table, size=2, queries=1, dims=2, offset_seconds=0.2, cameras=["camera"],
                        model={}, data={"path": raw, "fingerprint": source, "image_size": 0})
  labels.check(str(tmp_path / "l"), data_path=raw)
  labels.check(str(tmp_path / "l"), data_path=data)
  makers.write_video(tmp_path / "raw" / "a" / "more.mp4", 5)
  with pytest.raises(errors.UserError, match="fingerprint"):
    labels.check(str(tmp_path / "l"), data_path=raw)


@pytest.mark.parametrize("text, message", [
  (None, "labels.json is missing"), ("{", "expected kind"), ('{"kind": "como_jax shards", "version": 1}', "expected kind"),
  ('{"kind": "como_jax labels", "version": 9}', "update como_jax"), ('{"kind": "como_jax labels", "version": 1}', "'size'"),
])
def test_what_is_no_label_set_is_refused(tmp_path, text, message):
  if text is not None:
    (tmp_path / labels.MANIFEST).write_text(text)
  with pytest.raises(errors.UserError, match=message):
    labels.Labels(str(tmp_path))


def test_finished_shards(data, tmp_path):
  folder = write(data, tmp_path / "l")
  assert labels.finished(folder, 0, facts=FACTS)["records"] == 5  # 3 clips of episode 0, 2 of episode 1
  assert labels.finished(folder, 7, facts=FACTS) is None
  with pytest.raises(errors.UserError, match="model 'aaaa', now it is 'bbbb'"):
    labels.finished(folder, 0, facts={"model": "bbbb"})
  (tmp_path / "l" / labels.file_name(0)).write_bytes(b"torn")
  assert labels.finished(folder, 0, facts=FACTS) is None
  (tmp_path / "l" / "labels-00001.json").write_text("{")
  assert labels.finished(folder, 1, facts=FACTS) is None


def test_no_label_at_all_is_said(data, tmp_path):
  with pytest.raises(errors.UserError, match="no frame has a label"):
    write(data, tmp_path / "l", damaged={(shard, record) for shard in (0, 1) for record in range(9)})


def test_a_walk_shows_every_frame_of_every_camera_once(data):
  table = shards.read_table(data)
  plan = [one for shard in (0, 1) for one in sequences.plan(table, shard, offset_seconds=0.2)]
  assert [(one.episode, one.camera, one.length, one.stride) for one in plan] == [
    (f"episode_{i}", camera, n, 2) for i, n in enumerate(LENGTHS) for camera in ("left", "right")]
  for settings in (dict(threads=0), dict(threads=2, prefetch=3), dict(workers=1, prefetch=1)):
    with sequences.walk(data, table, plan, image_size=8, **settings) as pieces:
      for one in plan:
        seen = [next(pieces) for _ in one.pieces]
        numbers = [makers.number(image) for piece in seen for image in piece["frames"]]
        assert numbers == list(range(one.length)) and all(piece["readable"].all() and str(piece["damage"]) == "" for piece in seen)
        assert seen[0]["frames"].shape[1:] == (8, 8, 3)
      with pytest.raises(StopIteration):
        next(pieces)


def test_a_damaged_clip_is_named_and_what_its_neighbours_repeat_is_used(tmp_path):
  data = makers.shards(tmp_path / "s", (14,), clip_frames=6, clip_overlap=2)  # clips 0-5, 4-9, 8-13
  table = shards.read_table(data)
  plan = sequences.plan(table, 0, offset_seconds=0.1)
  assert [(piece.first, piece.last) for piece in plan[0].pieces] == [(0, 6), (6, 10), (10, 14)]
  damage(data, table, 1)
  with sequences.walk(data, table, plan, image_size=16) as pieces:
    first, middle, last = pieces
  assert first["readable"].all() and last["readable"].all()
  assert middle["readable"].tolist() == [False, False, True, True] and [makers.number(x) for x in middle["frames"][2:]] == [8, 9]
  assert "shard-00000.array_record record 1" in str(middle["damage"]) and not middle["frames"][:2].any()


def damage(data, table, row):
  """Replaces the last frame's JPEG of one record by zeros."""
  reader, clips = shards.Reader(data), []
  for at in range(len(table)):
    clip = reader.clip(table.shard[at], table.record[at])
    raw = episode.encode(clip)
    size = len(clip.frames["camera"].blobs[-1])
    clips.append(raw[:-size] + bytes(size) if at == row else raw)
  writer = array_record_module.ArrayRecordWriter(f"{data}/{shards.shard_name(0)}", "group_size:1,uncompressed")
  for raw in clips:
    writer.write(raw)
  writer.close()


def test_plan_and_check_refuse_by_name(data, tmp_path):
  table = shards.read_table(data)
  assert sequences.check(table, offset_seconds=0.2, cameras=(), name="d") == ("left", "right")
  for settings, message in (
    (dict(cameras=("lefft",)), "did you mean 'left'"), (dict(offset_seconds=0.0), "expected more than 0"),
    (dict(offset_seconds=2.0), "no pair of frames is 2.0 s apart: the longest episode has 14 frames at 10 frames"),
  ):
    with pytest.raises(errors.UserError, match=message):
      sequences.check(table, **{"offset_seconds": 0.2, "cameras": (), "name": "d"} | settings)
  table.start[1] += 3
  with pytest.raises(errors.UserError, match="'episode_0': no clip holds its frames 6 to 6"):
    sequences.plan(table, 0, offset_seconds=0.2)


def test_sidecars_hold_no_time_and_no_process(data, tmp_path):
  write(data, tmp_path / "a")
  write(data, tmp_path / "b")
  for name in ("labels.json", "labels-00000.json", labels.file_name(0)):
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
  assert json.loads((tmp_path / "a/labels-00000.json").read_text()) == shard_writer.read_json(labels.sidecar_path(str(tmp_path / "a"), 0))
