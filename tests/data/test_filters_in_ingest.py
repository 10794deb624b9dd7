"""What is measured of videos decides, in ingest, where segments end and which frames are kept;
counts say what was left out and why.
"""

import numpy as np

from como_jax.data import frame_filters, ingest_manifest, shards
from tests.data import ingests, makers

QUICK = {"workers": 0, "progress": False}


def scene(seed, count, *, speed=2, size=64):
  """A patch that moves over a textured picture."""
  rng = np.random.default_rng(seed)
  ground = np.kron(rng.integers(40, 216, (size // 8, size // 8, 3)), np.ones((8, 8, 1))).astype(
    np.uint8
  )
  patch = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
  frames = []
  for t in range(count):
    image, x = ground.copy(), (5 + t * speed) % (size - 12)
    image[20:32, x : x + 12] = patch
    frames.append(image)
  return frames


class Videos(makers.Synthetic):
  """Episodes of given frames at 25 a second, as videos are: cuts are looked for."""

  def __init__(self, videos, *, continuous=False):
    super().__init__([len(frames) for frames in videos], fps=25)
    self._videos, self._continuous = videos, continuous

  def image(self, i, t):
    return self._videos[i][t]

  def __getitem__(self, i):
    raw = super().__getitem__(i)
    return type(raw)(raw.episode, raw.task, raw.cameras, raw.arrays, continuous=self._continuous)

  def fingerprint(self):
    return str([[frame.sum() for frame in frames] for frames in self._videos])


def make(tmp_path, videos, **settings):
  path = str(tmp_path / "s")
  ingests.run(
    Videos(videos, continuous=settings.pop("continuous", False)), path, **(QUICK | settings)
  )
  table = shards.read_table(path)
  return shards.read_manifest(path), table, shards.segments(table)


def test_a_pair_never_crosses_a_cut(tmp_path):
  cut = scene(0, 30) + scene(1, 20)
  manifest, table, segments = make(tmp_path, [cut, scene(2, 25)])
  assert segments.count.tolist() == [30, 20, 25] and table.shot.tolist() == [0, 1, 0]
  assert manifest["notes"] == [
    {"name": "episode_0", "note": "1 cuts between shots: no pair of frames crosses one"}
  ]
  assert manifest["frames"] == {"kept": 75} and (table.motion > 0).all()
  for codec in ("jpeg", "h264"):
    for continuous, expected in ((True, [50]), (False, [30, 20])):
      folder = tmp_path / f"{codec}{continuous}"
      folder.mkdir()
      assert (
        make(folder, [cut], codec=codec, measure="on", continuous=continuous)[2].count.tolist()
        == expected
      )
  folder = tmp_path / "off"
  folder.mkdir()
  _, table, segments = make(folder, [cut], measure="off")
  assert segments.count.tolist() == [50] and np.isnan(table.motion).all()


def test_still_stretches_and_repeated_frames(tmp_path):
  moving = scene(0, 40)
  still = moving[:20] + [moving[20]] * 40 + moving[20:]  # 40 frames without motion: 1.6 s
  doubled = [frame for frame in scene(3, 30) for _ in range(2)]
  for codec in ("jpeg", "h264"):
    folder = tmp_path / codec
    folder.mkdir()
    manifest, table, segments = make(
      folder,
      [still, doubled],
      codec=codec,
      quality=95 if codec == "jpeg" else 5,
      filters={"drop_still": True, "drop_repeated": True},
    )
    dropped = manifest["frames"]
    assert (
      38 <= dropped["still"] <= 42
      and 27 <= dropped["repeated"] <= 31
      and sum(dropped.values()) == 80 + 60
    )
    assert len(segments) == 3  # before and behind the still stretch; doubled frames leave no gap
    last = 2
    found, read = makers.segments(folder / "s")
    times = read.times(last)
    assert found.length(last) in (30, 31) and abs(times.interval - 2 / 25) < 0.01
    action = read.read_array(last, "action", 0, found.length(last))[:, 0]
    # numbers stay with their frames
    np.testing.assert_allclose(
      times.seconds_at(np.arange(found.length(last))), action / 25, atol=1e-6
    )
    for t in (3, 17):
      image = read.images(last, "camera", [t])[0].astype(int)
      assert np.abs(image - doubled[int(action[t])]).mean() < 6


def test_bars_are_cut_off_before_the_picture_is_scaled(tmp_path):
  inside = scene(0, 30)
  barred = [
    np.concatenate([np.zeros((16, 64, 3), np.uint8), frame, np.zeros((16, 64, 3), np.uint8)])
    for frame in inside
  ]
  manifest, table, segments = make(tmp_path, [barred], image_size=64, filters={"crop_bars": True})
  found, read = makers.segments(tmp_path / "s")
  for t in (0, 12):
    assert np.abs(read.images(0, "camera", [t])[0].astype(int) - inside[t]).mean() < 8
  assert manifest["frames"] == {"kept": 30}


def test_what_another_episode_shows_is_marked_or_left_out(tmp_path):
  rng, wander = np.random.default_rng(0), []
  ground = np.kron(rng.integers(40, 216, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
  for t in range(80):
    image = ground.copy()
    x, y = (
      int(24 + 18 * np.sin(0.13 * t) + 6 * np.sin(0.41 * t)),
      int(24 + 20 * np.sin(0.17 * t + 1)),
    )
    image[y : y + 16, x : x + 16] = 255
    wander.append(image)
  videos = [wander, scene(7, 40), wander[20:]]
  manifest, table, _ = make(tmp_path, videos, clip_frames=30)
  assert [bool(one) for one in table.duplicate] == [False] * (len(table) - 2) + [True] * 2
  assert manifest["notes"][-1] == {
    "name": "episode_2",
    "note": "from 0.00 to 2.36 s it shows what episode_0 shows from 0.80 s on",
  }
  folder = tmp_path / "dropped"
  folder.mkdir()
  manifest, table, _ = make(folder, videos, clip_frames=30, filters={"drop_duplicates": True})
  assert {table.episodes[e] for e in table.episode} == {"episode_0", "episode_1"}
  assert manifest["frames"] == {
    "kept": 120,
    "duplicate": 60,
  } and "left out: 60 duplicate" in "\n".join(ingest_manifest.remarks(manifest))


def test_an_episode_without_a_frame_left_is_named(tmp_path):
  summary = ingests.run(
    Videos([scene(0, 30), [scene(1, 1)[0]] * 40]),
    str(tmp_path / "s"),
    filters={"drop_still": True},
    **QUICK,
  )
  assert summary.quarantined == [
    {"name": "episode_1", "reason": "the filters leave no frame (40 still)"}
  ]
  assert set(frame_filters.FilterOptions().__dict__) >= {"drop_still", "max_global_motion"}
