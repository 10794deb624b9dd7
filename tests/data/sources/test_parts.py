"""Long files as several episodes: every frame once, with its time, and shards within the bound."""

import json
import pathlib

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import shards, sources, video
from como_jax.data.sources import parts
from tests.data import ingests, makers

QUICK = dict(image_size=16, measure="off", workers=0, progress=False)


@pytest.fixture(name="films", scope="module")
def _films(tmp_path_factory):
  """A film of 130 frames in MP4, and in a format that cannot be entered; a clip."""
  root = tmp_path_factory.mktemp("films")
  frames = makers.noise(130)
  makers.write_video(root / "a.mp4", frames, fps=25, options={"g": "12", "crf": "10"})
  makers.write_video(root / "b.avi", frames, fps=25, codec="mpeg4")
  makers.write_video(root / "c.mp4", makers.noise(20), fps=25)
  return str(root)


def test_every_frame_is_in_one_part(films, tmp_path):
  whole = sources.open_source(films)
  divided = parts.divide(whole, 50, str(tmp_path / parts.PLAN))
  films_parts = [f"{name} part {i} of 3" for name in ("a.mp4", "b.avi") for i in (1, 2, 3)]
  assert divided.names == (*films_parts, "c.mp4") and len(divided) == 7
  assert divided.frames == (44,) * 6 + (20,) and divided.fingerprint() == whole.fingerprint()
  for film in (0, 1):
    expected = list(whole[film].cameras["camera"](video.Geometry(16)))
    found = []
    for i in range(3 * film, 3 * film + 3):
      raw = divided[i]
      assert (raw.episode, raw.group) == (divided.names[i], whole.names[film])
      found.append(list(raw.cameras["camera"](video.Geometry(16))))
      assert 40 <= len(found[-1]) <= 50
    found = [frame for part in found for frame in part]
    assert [second for second, _ in found] == [second for second, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
      np.testing.assert_array_equal(one, other)
  assert divided[6].episode == "c.mp4" and divided[6].group == ""


def test_the_plan_is_made_once(films, tmp_path, monkeypatch):
  whole = sources.open_source(films)
  first = parts.divide(whole, 50, str(tmp_path / "p"))
  monkeypatch.setattr(parts.video, "probe", None)
  again = parts.divide(whole, 50, str(tmp_path / "p"))
  assert again.names == first.names and again.frames == first.frames
  synthetic = makers.Synthetic((3,))
  assert parts.divide(synthetic, 50, str(tmp_path / "q")) is synthetic
  # small files are not opened
  few = parts.divide(whole, 10**6, str(tmp_path / "r"))
  assert few.names == whole.names and few.frames == (0, 0, 0)


def test_an_end_that_is_missing_is_found(films, tmp_path):
  whole = sources.open_source(films)
  parts.divide(whole, 50, str(tmp_path / "p"))
  plan = json.loads((tmp_path / "p").read_text())
  plan[2][5] += 60.0  # the header declares a minute more
  (tmp_path / "p").write_text(json.dumps(plan))
  divided = parts.divide(whole, 50, str(tmp_path / "p"))
  assert len(list(divided[1].cameras["camera"](video.Geometry(16)))) >= 40
  with pytest.raises(video.UnreadableError, match=r"ends at 5.160 s, its header declares 65.2"):
    list(divided[2].cameras["camera"](video.Geometry(16)))


def test_shards_of_a_film_are_bounded(films, tmp_path):
  bounded = ingests.run(films, str(tmp_path / "bounded"), **QUICK, unit_frames=50)
  assert bounded.manifest["unit_frames"] == 50 and bounded.frames == 2 * 130 + 20
  table = shards.read_table(str(tmp_path / "bounded"))
  counts = np.bincount(table.shard, table.length)
  assert len(counts) == 7 and counts.max() <= 50
  seconds = [
    table.times(row).first for row in np.argsort(table.first) if table.length[row] and row >= 0
  ]
  assert seconds == sorted(seconds)
  films_groups = {table.groups[group] for group in table.group.tolist()}
  assert films_groups == {"a.mp4", "b.avi", ""}
  plain = ingests.run(films, str(tmp_path / "plain"), **QUICK)
  assert "unit_frames" not in plain.manifest and plain.frames == bounded.frames
  assert "unit_frames" not in json.loads((tmp_path / "plain" / "settings.json").read_text())
  assert not (tmp_path / "plain" / parts.PLAN).exists()
  for changed, message in (
    (50, "unit_frames was None and is now 50"),
    (0, "was 50 and is now None"),
  ):
    folder = tmp_path / ("plain" if changed else "bounded")
    with pytest.raises(errors.UserError, match=message):
      ingests.run(films, str(folder), **QUICK, unit_frames=changed)
  before = pathlib.Path(tmp_path / "bounded" / "shard-00003.shard").read_bytes()
  for name in ("shard-00003.json", "shard-00003.shard", "manifest.json"):
    (tmp_path / "bounded" / name).unlink()
  again = ingests.run(films, str(tmp_path / "bounded"), **QUICK, unit_frames=50)
  assert again.manifest == bounded.manifest
  assert pathlib.Path(tmp_path / "bounded" / "shard-00003.shard").read_bytes() == before


@pytest.mark.parametrize(
  "frames, count, bound, firsts",
  [
    ((0,) * 5, 2, 0, [0, 2, 4]),
    ((9,) * 5, 2, 0, [0, 2, 4]),
    ((30, 30, 30, 10, 100, 1), 64, 60, [0, 2, 4, 5]),
    ((0, 0, 70, 0), 64, 60, [0, 3]),
    ((), 2, 0, []),
  ],
)
def test_episodes_of_a_shard(frames, count, bound, firsts):
  assert parts.group(frames, count, bound) == firsts
