"""Labels of tiny data by tiny models: the same z as the model's own, each frame encoded once, and
nothing left of an interruption.
"""

import json
import pathlib
import shutil
import signal
import subprocess

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.data import labels, reader, shards
from como_jax.data.batching import ProcessSlice
from como_jax.inference import label_options, label_parts, label_run, labeling
from como_jax.models import pixels
from como_jax.models.motion import como
from como_jax.tasks import extract
from como_jax.train import lock
from tests import limits
from tests.data import makers
from tests.end_to_end import program
from tests.models import tiny

CONFIG = f"{program.ROOT}/configs/extract.py:debug"
# at 10 frames a second and 0.3 s: n = 3, so the third episode has no label
LENGTHS = (14, 9, 3, 11)
N = 3


class Noise(makers.Synthetic):
  """Every frame of every camera is other noise."""

  def __getitem__(self, i):
    raw = super().__getitem__(i)

    def camera(name):
      rng = np.random.default_rng([i, len(name)])
      frames = rng.integers(0, 256, (self._lengths[i], 16, 16, 3), np.uint8)
      return lambda geometry: zip(self.seconds(i).tolist(), frames, strict=True)

    raw.cameras.update({name: camera(name) for name in raw.cameras})
    return raw


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory):
  """Two cameras; clips of 6 frames; two episodes a shard."""
  return makers.shards(
    tmp_path_factory.mktemp("data") / "s",
    source=Noise(LENGTHS, cameras=("a", "bb")),
    clip_frames=6,
    episodes_per_shard=2,
  )


@pytest.fixture(name="checkpoint", scope="module")
def _checkpoint(data, tmp_path_factory):
  return model_folder(tmp_path_factory.mktemp("model") / "m", data)


@pytest.fixture(name="whole", scope="module")
def _whole(checkpoint, tmp_path_factory):
  """A label set of the data, uninterrupted."""
  return run(tmp_path_factory.mktemp("labels") / "whole", checkpoint)


def model_folder(folder, data="", **changes):
  """A weights folder of a tiny motion model, as a finished run leaves it."""
  section = tiny.section(tiny.MOTION, **changes)
  weights.save(
    folder,
    tiny.made(tiny.MOTION, **changes)[1],
    {"model": section, "data": {"path": data, "offset_seconds": 0.3, "resize": "squash"}},
  )
  return str(folder)


def command(workdir, *words):
  return config_lib.parse(
    [
      "main",
      f"--config={CONFIG}",
      f"--workdir={workdir}",
      "--config.batch_size=8",
      "--config.data.threads=2",
      *words,
    ]
  )


def run(workdir, checkpoint, *words):
  assert extract.run(command(workdir, f"--config.checkpoint={checkpoint}", *words)) == 0
  return str(workdir)


def content(folder):
  return {
    path.name: path.read_bytes()
    for path in pathlib.Path(folder).iterdir()
    if path.name not in (extract.SPEED, lock.LOCK)
  }


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
  features = como.MotionModel.features
  monkeypatch.setattr(
    como.MotionModel,
    "features",
    lambda self, params, frames: encoded.append(frames.shape) or features(self, params, frames),
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


def test_resumed_equals_uninterrupted_byte_for_byte(data, tmp_path):
  checkpoint = model_folder(tmp_path / "m", data)
  data = makers.shards(
    tmp_path / "s", source=Noise(LENGTHS, cameras=("a",)), clip_frames=5, episodes_per_shard=1
  )
  words = (f"--config.data.path={data}",)
  whole = run(tmp_path / "whole", checkpoint, *words)
  assert "labels-00003.labels" in content(whole)
  todo = {
    "nothing done": [name for name in content(whole) if name.startswith("labels-")],
    # the sidecar is gone, the labels are gone
    "some done": ["labels-00001.json", "labels-00002.labels"],
    "finished": [],
  }
  for broken, names in todo.items():
    cut = tmp_path / broken.replace(" ", "_")
    shutil.copytree(whole, cut)
    if broken != "finished":
      (cut / labels.MANIFEST).unlink()
    for name in names:
      (cut / name).unlink()
    if broken == "some done":  # and some are torn
      (cut / "labels-00000.labels").write_bytes((cut / "labels-00000.labels").read_bytes()[:100])
      (cut / "labels-00003.labels.99.tmp").write_bytes(b"half")
    (cut / extract.SPEED).unlink()
    run(cut, checkpoint, *words, "--resume")
    assert content(cut) == content(whole), broken
    measured = (
      json.loads((cut / extract.SPEED).read_text())["frames"]
      if (cut / extract.SPEED).exists()
      else 0
    )
    assert (
      measured == {"nothing done": sum(LENGTHS), "some done": 14 + 9 + 3, "finished": 0}[broken]
    )


@pytest.mark.flow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
  data = makers.shards(
    tmp_path / "s", source=Noise((20,) * 12, cameras=("a",)), clip_frames=8, episodes_per_shard=1
  )
  words = [
    f"--config.checkpoint={model_folder(tmp_path / 'm', data)}",
    "--config.batch_size=4",
    "--config.data.threads=1",
  ]
  program.run(CONFIG, tmp_path / "whole", *words)
  process = subprocess.Popen(
    program.command(CONFIG, tmp_path / "cut", *words),
    cwd=program.ROOT,
    env=program.environment(),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  assert limits.wait_until(
    lambda: list((tmp_path / "cut").glob("labels-*.json")), while_alive=process
  )
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL and not (tmp_path / "cut" / labels.MANIFEST).exists()
  program.run(CONFIG, tmp_path / "cut", *words, "--resume")
  assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_processes_share_the_shards(checkpoint, whole, tmp_path):
  options = label_options.labeling_options(
    command(tmp_path, f"--config.checkpoint={checkpoint}").config
  )
  work = extract.open_work(options)
  (tmp_path / "shared").mkdir()
  folder, frames = str(tmp_path / "shared"), {}
  stream = work.stream(
    batch_size=options.batch_size,
    pairs_batch=options.pairs_batch,
    mesh=label_options.make_mesh(options),
  )
  for index in (1, 0):
    if index == 0:
      with pytest.raises(
        errors.TransientError,
        match="1 of 2 shards of other processes did not come within 0 s.*labels-00000",
      ):
        label_run.complete(folder, work, timeout=0)
    speed = label_run.label_shards(
      folder, work, stream, batch_size=options.batch_size, process=ProcessSlice(index, 2)
    )
    frames[index] = speed["frames"]
  assert frames == {0: 2 * (14 + 9), 1: 2 * (3 + 11)}
  label_run.complete(folder, work, timeout=limits.SAFETY_NET)
  assert content(folder) == {
    name: text
    for name, text in content(whole).items()
    if name not in ("config.json", "versions.json")
  }


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


def test_a_killed_run_goes_on_behind_its_last_part(checkpoint, tmp_path, monkeypatch):
  """A shard is labeled in parts; what is left of an interruption changes neither the labels nor
  what is in the folder.
  """
  data = makers.shards(tmp_path / "s", source=Noise((20,) * 5, cameras=("a",)), clip_frames=8)
  words = (checkpoint, f"--config.data.path={data}")
  whole = labels.Labels(run(tmp_path / "whole", *words))  # in one part
  monkeypatch.setattr(label_parts, "PART_BATCHES", 2)  # 16 frames
  split, cut = run(tmp_path / "split", *words), tmp_path / "cut"
  once, labeled = labeling.label, []

  def label(part, *rest):
    if len(labeled) == 3:
      raise KeyboardInterrupt
    labeled.append(part)
    return once(part, *rest)

  monkeypatch.setattr(labeling, "label", label)
  with pytest.raises(KeyboardInterrupt):
    run(cut, *words)
  monkeypatch.setattr(labeling, "label", once)
  parts = sorted(cut.glob("*.npz"))
  assert [path.name for path in parts] == [
    f"labels-00000.part-0000{i}.npz" for i in range(3)
  ] and not (cut / "labels-00000.json").exists()
  parts[0].write_bytes(parts[0].read_bytes()[:500])  # one is torn, one is of another model
  with np.load(parts[1]) as file:
    arrays = {name: file[name] for name in file.files}
  np.savez(parts[1], **{**arrays, "facts": np.array("other"), "z/0": arrays["z/0"] + 1})
  run(cut, *words, "--resume")
  assert content(cut) == content(split) and not list(cut.glob("*.npz"))
  # the third part is not made again
  assert json.loads((cut / extract.SPEED).read_text())["frames"] == 4 * 20
  (cut / parts[2].name).write_bytes(b"left over")
  run(cut, *words, "--resume")
  assert content(cut) == content(split)
  for name in whole.episodes:
    for one, other in zip(
      labels.Labels(split).episode(name)["a"], whole.episode(name)["a"], strict=True
    ):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


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
