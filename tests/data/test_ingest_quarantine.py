"""What cannot be read is quarantined, and the rest goes on."""

import json
import os
import pathlib

import pytest

from como_jax import errors
from como_jax.data import ingest_manifest, shards
from tests.data import ingests, lerobot_folders, makers
from tests.data.ingests import QUICK
from tests.data.shown_clips import clips


def test_damaged_videos_are_quarantined_and_the_rest_goes_on(tmp_path):
  source, output = makers.video_folder(tmp_path / "videos"), str(tmp_path / "out")
  makers.damaged_files(tmp_path / "videos" / "bad")
  summary = ingests.run(source, output, image_size=16, episodes_per_shard=3, **QUICK)
  assert summary.episodes == 4
  assert [item["name"] for item in summary.quarantined] == [
    f"bad/{name}"
    for name in (
      "empty.mp4",
      "text.mp4",
      "truncated.mp4",
      "truncated_front.mp4",
      "truncated_webm.webm",
    )
  ]
  assert summary.quarantined[0]["reason"] == "the file is empty"
  assert (
    json.loads(pathlib.Path(tmp_path / "out" / "quarantine.json").read_text())
    == summary.quarantined
  )
  assert not {clip.episode for clip in clips(str(tmp_path / "out"))} & {
    item["name"] for item in summary.quarantined
  }
  # an empty file is told like all others, in manifest and log
  manifest = shards.read_manifest(str(tmp_path / "out"))
  assert manifest["quarantine"] == summary.quarantined and manifest["counts"]["quarantined"] == 5
  lines = ingest_manifest.remarks(manifest)
  assert lines[0] == "quarantined: bad/empty.mp4: the file is empty"
  assert lines[:5] == [
    f"quarantined: {item['name']}: {item['reason']}" for item in summary.quarantined
  ]


def test_lerobot_episodes_are_quarantined_by_name(tmp_path):
  source = lerobot_folders.lerobot_v21(tmp_path / "set", (8, 11, 6))
  os.remove(f"{source}/videos/chunk-000/observation.images.wrist/episode_000001.mp4")
  summary = ingests.run(source, str(tmp_path / "out"), **QUICK)
  assert summary.episodes == 2 and summary.quarantined == [
    {
      "name": "episode_000001",
      "reason": (
        "episode 1: camera 'wrist', "
        "videos/chunk-000/observation.images.wrist/episode_000001.mp4: the file is missing"
      ),
    }
  ]


def test_nothing_readable_is_an_error_and_a_rerun_tries_again(tmp_path):
  (tmp_path / "videos").mkdir()
  (tmp_path / "videos" / "empty.mp4").write_bytes(b"")
  for _ in range(2):
    with pytest.raises(
      errors.UserError, match="none of the 1 episodes.*empty.mp4: the file is empty"
    ):
      ingests.run(str(tmp_path / "videos"), str(tmp_path / "out"), **QUICK)
  with pytest.raises(errors.UserError, match="not a finished folder"):
    shards.read_manifest(str(tmp_path / "out"))


def test_a_dying_worker_costs_only_its_episode(tmp_path):
  output = str(tmp_path / "out")
  summary = ingests.run(
    makers.Synthetic((5, 6, 7, 8, 9), killer=1),
    output,
    episodes_per_shard=3,
    workers=1,
    progress=False,
  )
  assert [item["name"] for item in summary.quarantined] == ["episode_1"]
  assert "exit code -9" in summary.quarantined[0]["reason"]
  assert sorted({clip.episode for clip in clips(output)}) == [
    "episode_0",
    "episode_2",
    "episode_3",
    "episode_4",
  ]
