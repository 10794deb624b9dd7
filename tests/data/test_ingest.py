"""Any source to shards: content, determinism, resume, quarantine, death of workers."""

import json
import os
import pathlib
import shutil
import weakref

import numpy as np
import pyarrow.parquet as pq
import pytest

from como_jax import errors
from como_jax.data import ingest_manifest, reader, shard_file, shards
from tests.data import ingests, lerobot_folders, makers
from tests.data.ingests import QUICK
from tests.data.shown_clips import clips, contents


def test_folder_of_videos(tmp_path):
  source, output = makers.video_folder(tmp_path / "videos"), str(tmp_path / "out")
  settings = dict(image_size=32, clip_frames=6, episodes_per_shard=3)
  summary = ingests.run(source, output, **settings, **QUICK)
  assert (summary.episodes, summary.clips, summary.frames, summary.quarantined) == (
    4,
    2 + 2 + 2 + 3,
    43,
    [],
  )
  manifest = shards.read_manifest(output)
  assert (
    manifest["kind"] == "como_jax shards"
    and manifest["image_size"] == 32
    and len(manifest["shards"]) == 2
  )
  assert str(tmp_path) not in json.dumps(manifest)
  rows = pq.read_table(f"{output}/records.parquet").to_pylist()
  assert [(row["episode"], row["start"], row["length"]) for row in rows[:4]] == [
    ("a/clip_0.mp4", 0, 6),
    ("a/clip_0.mp4", 6, 6),
    ("a/clip_3.mp4", 0, 6),
    ("a/clip_3.mp4", 6, 1),
  ]
  for clip in clips(output):
    images = clip.images["camera"]
    assert images.shape[1:] == (32, 32, 3)
    assert [makers.number(image) for image in images] == list(
      range(clip.start, clip.start + len(clip))
    )
  assert (
    not shards.verify(output)
    and json.loads(pathlib.Path(f"{output}/quarantine.json").read_text()) == []
  )


@pytest.mark.parametrize("codec", ["jpeg", "h264"])
def test_lerobot_with_several_cameras(tmp_path, codec):
  source = lerobot_folders.lerobot_v30(tmp_path / "set", image=True)
  output = str(tmp_path / "out")
  ingests.run(source, output, codec=codec, clip_frames=4, **QUICK)
  for clip in clips(output):
    assert list(clip.images) == ["top", "wrist"] and clip.task in ("task 0", "task 1")
    np.testing.assert_allclose(
      clip.seconds, np.arange(clip.start, clip.start + len(clip)) / 10, atol=1e-6
    )
    for images in clip.images.values():
      assert [makers.number(image) for image in images] == list(clip.arrays["action"][:, 0])
  manifest = shards.read_manifest(output)
  assert (manifest["action"]["size"], manifest["action"]["names"], manifest["state"]["size"]) == (
    3,
    ["a", "b", "c"],
    2,
  )
  whole = np.concatenate([makers.vectors(length, i)[0] for i, length in enumerate((8, 11, 6))])
  for name in ("mean", "std", "min", "max"):
    np.testing.assert_allclose(
      manifest["action"]["statistics"][name], getattr(whole.astype(float), name)(0), atol=1e-6
    )
  np.testing.assert_allclose(
    manifest["action"]["statistics"]["q99"], np.quantile(whole, 0.99, axis=0), atol=0.5
  )
  ingests.run(source, str(tmp_path / "one"), cameras=("wrist",), **QUICK)
  assert list(clips(str(tmp_path / "one"))[0].images) == ["wrist"]
  assert (
    ingest_manifest.remarks(shards.read_manifest(str(tmp_path / "one")))[-1]
    == "cameras that the source has and that are not stored: top"
  )


def test_irregular_times_are_stored_and_uniform_ones_are_not(tmp_path):
  slow = np.concatenate(
    [np.arange(10) / 30, 10 / 30 + np.arange(10) / 10, 10 / 30 + 1 + np.arange(10) / 30]
  )

  def times(i, length):
    return slow if i else 5 + np.arange(length) / 25

  path = makers.shards(tmp_path / "s", (30, 30), times=times, clip_frames=8)
  table = shards.read_table(path)
  assert table.uniform[table.episode == 0].all() and not table.uniform[table.episode == 1].all()
  column = pq.read_table(f"{path}/records.parquet").column("seconds").to_pylist()
  assert [value is None for value in column] == [
    bool(table.uniform[np.flatnonzero(table.order == i)[0]]) for i in range(len(column))
  ]
  stored = clips(path)
  for episode, expected in (("episode_0", 5 + np.arange(30) / 25), ("episode_1", slow)):
    np.testing.assert_allclose(
      np.concatenate([clip.seconds for clip in stored if clip.episode == episode]),
      expected,
      atol=1e-6,
    )
  np.testing.assert_allclose([1 / rate for rate in table.rates[table.episode == 0]], 0.04)


def test_cuts_instructions_and_groups_survive_a_second_ingest(tmp_path):
  task = [["open"] * 7 + ["close"] * 13, "push"]
  path = makers.shards(
    tmp_path / "a", (20, 9), task=lambda i: task[i], cuts=[(), (4,)], group=["g", ""], clip_frames=6
  )
  found = clips(path)
  assert [(clip.start, len(clip), clip.task) for clip in found if clip.episode == "episode_0"] == [
    (0, 6, "open"),
    (6, 1, "open"),
    (7, 6, "close"),
    (13, 6, "close"),
    (19, 1, "close"),
  ]
  again = str(tmp_path / "b")
  ingests.run(path, again, clip_frames=50, **QUICK)
  table, before = shards.read_table(again), shards.read_table(path)
  segments = shards.segments(table)
  assert segments.count.tolist() == [20, 4, 5] == shards.segments(before).count.tolist()
  assert [table.groups[g] for g in table.group] == ["g", "g", "", ""] and set(
    table.split_key
  ) == set(before.split_key)
  assert [(clip.start, len(clip), clip.task) for clip in clips(again)] == [
    (0, 7, "open"),
    (7, 13, "close"),
    (0, 4, "push"),
    (4, 5, "push"),
  ]
  for clip in clips(again):
    np.testing.assert_array_equal(
      clip.arrays["action"][:, 0], np.arange(clip.start, clip.start + len(clip))
    )
    np.testing.assert_allclose(clip.seconds, clip.arrays["action"][:, 0] / 10, atol=1e-9)
    assert [makers.number(image) for image in clip.images["camera"]] == list(
      clip.arrays["action"][:, 0]
    )


class Disagreeing(makers.Synthetic):
  """Its second camera's clock is ahead, or time stands still."""

  def __getitem__(self, i):
    raw = super().__getitem__(i)
    if i == 0:
      raw.cameras["b"] = lambda geometry: (
        (t / 10 + 0.02, makers.picture(t, 16, 16)) for t in range(5)
      )
    elif i == 1:
      raw.cameras["b"] = raw.cameras["a"] = lambda geometry: (
        (0.1, makers.picture(t, 16, 16)) for t in range(5)
      )
    elif i == 2:
      raw.arrays["action"] = raw.arrays["action"][:4]
    return raw


def test_clocks_that_disagree_and_numbers_that_end_early_are_named(tmp_path):
  source = Disagreeing((5, 5, 5, 5), cameras=("a", "b"))
  summary = ingests.run(source, str(tmp_path / "s"), **QUICK)
  assert [item["reason"] for item in summary.quarantined] == [
    "frame 0: camera 'a' is at 0.0000 s, 'b' at 0.0200 s",
    "time does not go on: frame 0 at 0.100000 s, frame 1 at 0.100000 s",
    "5 frames but 4 values of 'action'",
  ]


def test_bytes_do_not_depend_on_workers(tmp_path):
  source = makers.video_folder(tmp_path / "videos")
  for workers in (0, 2):
    ingests.run(
      source,
      str(tmp_path / str(workers)),
      image_size=16,
      episodes_per_shard=1,
      workers=workers,
      progress=False,
    )
  assert contents(tmp_path / "0") == contents(tmp_path / "2")


@pytest.mark.parametrize("kill", ["sidecar", "before_rename", "before_manifest", "torn_sidecar"])
def test_resume_after_a_kill_gives_the_same_bytes(tmp_path, kill):
  source, output = makers.Synthetic((9, 8, 7, 6)), tmp_path / "out"
  ingests.run(source, str(output), episodes_per_shard=1, **QUICK)
  whole = contents(output)
  untouched = output / "shard-00000.shard"
  stamp = untouched.stat().st_mtime_ns
  for name in ("manifest.json", "records.parquet", "quarantine.json"):
    (output / name).unlink()
  if kill == "sidecar":
    (output / "shard-00002.json").unlink()
  elif kill == "before_rename":
    (output / "shard-00003.json").unlink()
    (output / "shard-00003.shard").rename(output / "shard-00003.shard.77.tmp")
  elif kill == "torn_sidecar":
    (output / "shard-00001.json").write_text('{"shard": 1, "ro')
  ingests.run(source, str(output), episodes_per_shard=1, **QUICK)
  assert contents(output) == whole and untouched.stat().st_mtime_ns == stamp
  assert not list(output.glob("*.tmp"))


def test_a_folder_of_many_shards_is_not_open_at_once(tmp_path, monkeypatch):
  """The usual limit is 1024 files."""
  living, most = weakref.WeakSet(), []

  class Counted(shard_file.ShardFile):
    def __init__(self, *arguments):
      super().__init__(*arguments)
      living.add(self)
      most.append(len(living))

  monkeypatch.setattr(shard_file, "ShardFile", Counted)
  monkeypatch.setattr(reader, "_OPEN_FILES", 2)
  ingests.run(makers.Synthetic((5,) * 12), str(tmp_path / "s"), episodes_per_shard=1, **QUICK)
  assert len(most) >= 24 and max(most) <= 4


def test_other_settings_or_source_in_the_folder_are_refused(tmp_path):
  output = str(tmp_path / "out")
  ingests.run(makers.Synthetic((5,)), output, image_size=16, **QUICK)
  before = contents(output)
  with pytest.raises(errors.UserError, match="image_size was 16 and is now 8"):
    ingests.run(makers.Synthetic((5,)), output, image_size=8, **QUICK)
  with pytest.raises(errors.UserError, match="shards of another source"):
    ingests.run(makers.Synthetic((6,)), output, image_size=16, **QUICK)
  assert contents(output) == before
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.txt").write_text("x")
  with pytest.raises(errors.UserError, match="not empty.*thesis.txt"):
    ingests.run(makers.Synthetic((5,)), str(tmp_path / "mine"), **QUICK)


def test_a_source_that_is_not_the_folders_is_named_by_its_path(tmp_path):
  output, source = str(tmp_path / "out"), makers.video_folder(tmp_path / "source", (5, 6))
  ingests.run(source, output, image_size=16, **QUICK)
  (tmp_path / "other").mkdir()
  shutil.copytree(source, tmp_path / "moved")
  # the same files elsewhere go on
  ingests.run(str(tmp_path / "moved"), output, image_size=16, **QUICK)
  shutil.copyfile(
    next(file for file in pathlib.Path(source).rglob("*") if file.is_file()),
    tmp_path / "other" / "one.mp4",
  )
  with pytest.raises(errors.UserError) as told:
    ingests.run(str(tmp_path / "other"), output, image_size=16, **QUICK)
  assert f"shards of another source: of {source} (folder of 2 video files" in str(told.value)
  assert f"and not of {tmp_path / 'other'} (folder of 1 video files" in str(told.value)
  shutil.copyfile(tmp_path / "other" / "one.mp4", pathlib.Path(source) / "third.mp4")
  with pytest.raises(
    errors.UserError,
    match=(
      "holds shards of .*source .folder of 2 video files.*, whose files have changed since "
      ".folder of 3 video"
    ),
  ):
    ingests.run(source, output, image_size=16, **QUICK)


def test_an_ingest_that_goes_on_says_so(tmp_path, capsys):
  output, settings = str(tmp_path / "out"), dict(image_size=16, episodes_per_shard=1, workers=0)
  ingests.run(makers.Synthetic((5, 5, 5)), output, **settings)
  assert capsys.readouterr().out == ""
  os.remove(os.path.join(output, shards.MANIFEST))
  os.remove(next(iter(sorted(pathlib.Path(output).glob("*00001*.json")))))
  ingests.run(makers.Synthetic((5, 5, 5)), output, **settings)
  assert (
    capsys.readouterr().out == "ingest: 2 of 3 shards are there already: going on with the others\n"
  )
  ingests.run(makers.Synthetic((5, 5, 5)), output, **settings)
  assert capsys.readouterr().out == "ingest: 3 of 3 shards are there already: nothing to do\n"


@pytest.mark.parametrize(
  "arguments,message",
  [
    ({"codec": "jpg"}, "codec 'jpg'.*did you mean 'jpeg'"),
    ({"resize": "squish"}, "did you mean 'squash'"),
    ({"clip_frames": 0}, "clip_frames is 0"),
    ({"cameras": ("camra",)}, "'camra'.*did you mean 'camera'"),
    ({"quality": 101}, "quality is 101"),
  ],
)
def test_bad_arguments_write_nothing(tmp_path, arguments, message):
  with pytest.raises(errors.UserError, match=message):
    ingests.run(makers.Synthetic((5,)), str(tmp_path / "out"), **QUICK, **arguments)
  assert not (tmp_path / "out").exists()


def test_ensure_shards_converts_once(tmp_path, capsys):
  source, cache = makers.video_folder(tmp_path / "videos"), str(tmp_path / "cache")
  arguments = dict(image_size=16, cache_dir=cache, **QUICK)
  path = ingests.ensure_shards(source, **arguments)
  assert "is converted once" in capsys.readouterr().out
  assert ingests.ensure_shards(source, **arguments) == path
  assert "converted" not in capsys.readouterr().out
  assert ingests.ensure_shards(path, **arguments) == path
  assert ingests.ensure_shards(source, **(arguments | {"image_size": 8})) != path
  shutil.rmtree(tmp_path / "videos" / "c")
  assert ingests.ensure_shards(source, **arguments) != path


def test_resizing_modes_reach_the_shards(tmp_path):
  for mode in ("squash", "crop", "pad"):
    path = makers.shards(tmp_path / mode, (3,), size=(16, 32), image_size=16, resize=mode)
    image = clips(path)[0].images["camera"][2]
    assert (
      image.shape == (16, 16, 3) and np.abs(int(image[0, 0, 0]) - (0 if mode == "pad" else 32)) < 4
    )
