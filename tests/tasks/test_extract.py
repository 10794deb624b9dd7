"""Labels of tiny data by tiny models: the same z as the model's own, each frame encoded once."""

import json

import jax
import numpy as np
import pytest

from como_jax import errors, weights
from como_jax.data import labels, reader, shards
from como_jax.models import pixels
from como_jax.models.motion import como
from como_jax.tasks import extract
from tests.data import makers
from tests.models import tiny
from tests.tasks.small_labels import LENGTHS, N, Noise, command, content, model_folder, run
from tests.tasks.small_labels import _checkpoint as _checkpoint  # fixtures
from tests.tasks.small_labels import _data as _data
from tests.tasks.small_labels import _whole as _whole


def every_frame(data, camera):
  """Name of an episode -> all its frames, uint8 [L, H, W, 3], read one at a time."""
  segments = shards.segments(shards.read_table(data))
  source, found = reader.SegmentReader(data, segments), {}
  for s in range(len(segments)):
    name = segments.table.episodes[segments.table.episode[segments.first_row[s]]]
    frames = [source.images(s, camera, [t])[0] for t in range(segments.length(s))]
    found[name] = np.concatenate([found.get(name, np.zeros((0, 16, 16, 3), np.uint8)), frames])
  return found


def own(model, params):
  """The model's own function of two pictures."""
  return jax.jit(lambda a, b: model.encode(params, pixels.normalize(a), pixels.normalize(b)).z)


@pytest.mark.parametrize("changes, pairs", [({}, 16), ({"idm.inputs": "rgb_diff"}, 8)])
def test_z_is_the_models_own_for_every_pair_of_frames(data, tmp_path, monkeypatch, changes, pairs):
  encoded = []
  encode = como.MotionModel.encode_frames
  monkeypatch.setattr(
    como.MotionModel,
    "encode_frames",
    lambda self, params, frames: encoded.append(frames.shape) or encode(self, params, frames),
  )
  folder = run(
    tmp_path / "l", model_folder(tmp_path / "m", data, **changes), f"--config.pairs_batch={pairs}"
  )
  # Traced once to know the shapes and once to run; the pairs' program encodes only where pixels are
  # subtracted.
  assert encoded == [(8, 16, 16, 3)] * (2 if not changes else 3)
  speed = json.loads((tmp_path / "l" / extract.SPEED).read_text())
  # 46 and 28 frames, in whole batches of 8
  assert speed["frames"] == 2 * sum(LENGTHS) and speed["encoded"] == 48 + 32

  model, params = tiny.made(tiny.MOTION, **changes)
  monkeypatch.undo()
  encode, found = own(model, params), labels.Labels(folder)
  assert (
    found.size == 12
    and found.manifest["queries"] == 3
    and found.manifest["dims"] == 4
    and found.manifest["offset_seconds"] == 0.3
  )
  assert found.manifest["cameras"] == ["a", "bb"] and found.manifest["damaged"] == []
  count = 2 * sum(max(0, n - N) for n in LENGTHS)
  assert {
    key: found.manifest[key] for key in ("frames", "valid", "left_out", "at_end", "unreadable")
  } == {
    "frames": sum(LENGTHS),
    "valid": count,
    "left_out": 0,
    "at_end": 2 * sum(LENGTHS) - count,
    "unreadable": 0,
  }
  assert found.statistics.count == count
  labels.check(folder, data_path=data)
  firsts, seconds, motion = [], [], []
  pictures = {camera: every_frame(data, camera) for camera in ("a", "bb")}
  for number, length in enumerate(LENGTHS):
    for camera, (times, z, valid, difference) in found.episode(f"episode_{number}").items():
      assert valid.tolist() == [t + N < length for t in range(length)]
      assert not z[~valid].any() and len(z) == length and not difference[~valid].any()
      np.testing.assert_allclose(times, np.arange(length) / 10, atol=1e-9)
      np.testing.assert_allclose(difference[valid], 0.3, rtol=1e-6)
      if valid.any():
        frames = pictures[camera][f"episode_{number}"]
        firsts, seconds, motion = (
          [*firsts, frames[:-N]],
          [*seconds, frames[N:]],
          [*motion, z[valid]],
        )
  np.testing.assert_allclose(
    np.concatenate(motion),
    encode(np.concatenate(firsts), np.concatenate(seconds)),
    rtol=1e-4,
    atol=1e-5,
  )


def test_frames_are_paired_by_time_across_clips_and_never_across_a_cut(tmp_path, capsys):
  """20 frames a second, then 10, a cut of the shot, then 10: where the rate falls one frame is the
  partner of several.
  """
  times = np.concatenate([np.arange(16) / 20, 0.8 + np.arange(14) / 10])
  data = makers.shards(
    tmp_path / "s",
    source=Noise((30,), times=lambda i, n: times, cuts=[(22,)], cameras=("a",)),
    clip_frames=7,
  )
  folder = run(tmp_path / "l", model_folder(tmp_path / "m", data))
  found, model, params = labels.Labels(folder), *tiny.made(tiny.MOTION)
  _, z, valid, difference = found.episode("episode_0")["a"]
  frames, expected = every_frame(data, "a")["episode_0"], {}
  for first, last in ((0, 22), (22, 30)):
    for t in range(first, last):
      wanted = times[t] + 0.3
      nearest = first + int(np.argmin(np.round(np.abs(times[first:last] - wanted), 9)))
      if nearest > t and abs(times[nearest] - wanted) <= 0.06:
        expected[t] = nearest
  assert (
    np.flatnonzero(valid).tolist() == list(expected)
    and max(np.bincount(list(expected.values()))) == 2
  )
  assert 21 not in expected and 20 not in expected and 19 not in expected
  for t, partner in expected.items():
    assert difference[t] == np.float32(times[partner] - times[t])
  z_own = own(model, params)(frames[list(expected)], frames[list(expected.values())])
  np.testing.assert_allclose(z[valid], z_own, rtol=1e-4, atol=1e-5)
  manifest = found.manifest
  assert (
    manifest["valid"] + manifest["left_out"] + manifest["at_end"] == 30
    and manifest["unreadable"] == 0
  )
  assert f"{manifest['at_end']} at the end of a segment" in capsys.readouterr().out


def test_damaged_frames_have_no_labels_and_are_listed(tmp_path, capsys):
  data = makers.shards(tmp_path / "s", (14, 9), clip_frames=6)
  makers.damage(data, "episode_0", frame=5)
  found = labels.Labels(run(tmp_path / "l", model_folder(tmp_path / "m", data)))
  printed = capsys.readouterr().out
  assert (
    "damaged: shard-00000.shard clip 0 camera camera: 1 frames cannot be read: "
    "shard-00000.shard clip 0"
  ) in printed
  assert "6 at the end of a segment, 2 lost with damaged frames" in printed
  # two threads were asked for
  assert "data workers 0, threads 2, prefetch 8 (CPU cores " in printed
  assert [
    (one["shard"], one["clip"], one["camera"], one["frames"]) for one in found.manifest["damaged"]
  ] == [(0, 0, "camera", 1)]
  assert found.manifest["unreadable"] == 2 and str(tmp_path) not in json.dumps(
    found.manifest["damaged"]
  )
  _, z, valid, difference = found.episode("episode_0")["camera"]
  # 2 -> 5 and 5 -> 8 are lost
  assert np.flatnonzero(valid).tolist() == [0, 1, 3, 4, 6, 7, 8, 9, 10]
  assert not z[~valid].any() and not difference[~valid].any()
  assert found.episode("episode_1")["camera"].valid.sum() == 6


def test_what_does_not_fit_is_refused_by_name(data, checkpoint, whole, tmp_path):
  folder, before = whole, content(whole)
  other = model_folder(tmp_path / "other", **{"idm.depth": 1})
  more = makers.shards(tmp_path / "more", (5, 6))
  mae = tmp_path / "mae"
  weights.save(mae, tiny.made(tiny.MAE)[1], {"model": tiny.MAE})
  bare = tmp_path / "bare"
  weights.save(bare, tiny.made(tiny.MOTION)[1], {"model": tiny.MOTION})
  for words, message in (
    ([f"--config.checkpoint={checkpoint}"], "is not empty: give --resume"),
    (
      [f"--config.checkpoint={checkpoint}", "--resume", "--config.offset_seconds=0.2"],
      "offset_seconds 0.3, now it is 0.2",
    ),
    (
      [f"--config.checkpoint={other}", f"--config.data.path={data}", "--resume"],
      "were made with model '.*', now it is '.*'",
    ),
    (
      [f"--config.checkpoint={checkpoint}", f"--config.data.path={more}", "--resume"],
      "were made with data .*, now it is ",
    ),
    (
      [f"--config.checkpoint={checkpoint}", "--config.data.cameras=('aa',)"],
      "camera 'aa' does not exist",
    ),
    (
      [f"--config.checkpoint={checkpoint}", "--config.batch_size=12"],
      "batch_size=12 is not divisible by the 8 devices",
    ),
    (
      [f"--config.checkpoint={checkpoint}", "--config.batch_size=0"],
      "batch_size=0, expected a whole number of at least 1",
    ),
    ([f"--config.checkpoint={checkpoint}", "--config.dtype=bfloat"], "did you mean 'bfloat16'"),
    (
      [f"--config.checkpoint={checkpoint}", "--config.offset_seconds=9.0"],
      "no pair of frames is 9.0 s apart.*Set config.offset_seconds",
    ),
    ([f"--config.checkpoint={checkpoint}", f"--config.lerobot={folder}"], "exists already"),
    ([f"--config.checkpoint={tmp_path}/mm"], "does not exist"),
    ([f"--config.checkpoint={mae}"], "kind 'mae', a motion model is expected"),
    ([f"--config.checkpoint={bare}"], "config.data.path is missing"),
    (
      [f"--config.checkpoint={bare}", f"--config.data.path={data}"],
      "config.offset_seconds is missing",
    ),
    ([f"--config.checkpoint={checkpoint}", f"--config.data.path={data}x"], "does not exist"),
    (["--config.data.path=x"], "config.checkpoint is empty"),
  ):
    fresh = "not empty" not in message and "now it is" not in message
    with pytest.raises(errors.UserError, match=message) as caught:
      extract.run(command(tmp_path / "new" if fresh else folder, *words))
    assert "\n" not in str(caught.value)
    assert content(folder) == before and not (tmp_path / "new").exists(), words


def test_bfloat16_and_one_camera(checkpoint, whole, tmp_path):
  half = labels.Labels(
    run(tmp_path / "half", checkpoint, "--config.dtype=bfloat16", "--config.data.cameras=('bb',)")
  )
  assert (
    half.manifest["cameras"] == ["bb"]
    and list(half.clip(0, 0)) == ["bb"]
    and half.manifest["model"]["dtype"] == "bfloat16"
  )
  one, other = labels.Labels(whole).clip(0, 0)["bb"].z, half.clip(0, 0)["bb"].z
  assert one.dtype == other.dtype == np.float32
  assert 0 < np.abs(one - other).max() < 0.1 * np.abs(one).max() + 0.05
