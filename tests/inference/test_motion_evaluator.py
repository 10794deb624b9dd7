"""What the metrics of a motion model are computed from: which pair gives which latent, which action
belongs to it, no padding.
"""

import contextlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors
from como_jax.inference import motion_evaluator
from como_jax.models import pixels
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from tests.end_to_end import program

SIZE = 12
# [M, t - n and t and t + n]; the last is padding
GRAYS = np.array([[10, 60, 110], [20, 40, 90], [200, 150, 50], [5, 5, 5]], np.uint8)


class Grays:
  """A model that can be computed by hand: z = (gray level of the first frame, of the second) plus a
  shift, and a decoder that draws the first frame plus half the difference.
  """

  def encode_frames(self, params, images):
    return (255 * (images[..., 0, 0, 0] * pixels.STD[0] + pixels.MEAN[0]) + params["shift"])[
      ..., None, None
    ]

  def encode(self, params, first, second, tokens=None):
    levels = (
      (self.encode_frames(params, first), self.encode_frames(params, second))
      if tokens is None
      else tokens
    )
    return SimpleNamespace(z=jnp.concatenate(levels, -1)[:, 0] * params.get("scale", 1))

  def decode(self, params, first, z, tokens=None):
    levels = (self.encode_frames(params, first) if tokens is None else tokens)[:, 0, 0]
    drawn = (levels + (z[:, 1] - z[:, 0]) / 2 - params["shift"])[:, None, None, None] / 255
    return {
      "pixels": jnp.broadcast_to(
        (drawn - pixels.MEAN[None, None, None]) / pixels.STD[None, None, None], first.shape
      )
    }


class Windows:
  """Three windows in two batches of two; the last row is padding."""

  num_batches, size = 2, 3

  def batches(self):
    frames = np.broadcast_to(GRAYS[:, :, None, None, None], (*GRAYS.shape, SIZE, SIZE, 3))
    rows = [
      {
        "frames": frames[part],
        "valid": np.arange(4)[part] < 3,
        "damaged": np.zeros(2, bool),
        "episode": np.arange(4)[part] + 7,
      }
      for part in (slice(0, 2), slice(2, 4))
    ]
    return contextlib.nullcontext(iter(rows))


@pytest.fixture(name="measure", scope="module")
def _measure():
  return motion_evaluator.MotionEvaluator(Grays()), {"shift": np.float32(1)}


def test_z_is_the_second_pair_and_s_pcfc_compares_the_two_that_end_in_the_middle_frame(measure):
  run, params = measure
  found = run(params, Windows())
  levels = GRAYS[:3].astype(float) + 1
  np.testing.assert_allclose(found.z, levels[:, [1, 2]], rtol=1e-5)
  np.testing.assert_allclose(found.past, levels[:, [0, 1]], rtol=1e-5)
  np.testing.assert_allclose(found.future, levels[:, [2, 1]], rtol=1e-5)
  assert found.columns["episode"].tolist() == [7, 8, 9]
  # Half the way from t to t + n is drawn: a quarter of the squared error of copying frame t.
  assert found.frames.images == 3 and found.frames.ratio == pytest.approx(0.25, rel=1e-4)
  step = np.array([50, 50, -100]) / 255
  assert found.frames.copy_mse == pytest.approx(
    np.mean(step**2)
  ) and found.frames.mse == pytest.approx(np.mean(step**2) / 4, rel=1e-4)
  logged = found.scalars()
  cosines = [
    np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
    for a, b in zip(levels[:, [0, 1]], levels[:, [2, 1]], strict=False)
  ]
  assert (
    logged["s_pcfc"] == pytest.approx(np.mean(cosines), rel=1e-5)
    and logged["copy_ratio"] == found.frames.ratio
  )
  assert (
    logged["copy_ratio_moving"] == pytest.approx(0.25, rel=1e-4)
    and 1 < logged["effective_rank"] < 2
  )
  assert logged["psnr"] == pytest.approx(logged["psnr_copy_last"] + 20 * np.log10(2), rel=1e-4)


def spread(params, *, fsdp=1, tensor=1, devices=8):
  """Parameters on a mesh."""
  mesh = mesh_lib.make(fsdp=fsdp, tensor=tensor, devices=jax.devices()[:devices])
  return jax.device_put(params, rules.shardings(params, mesh))


@pytest.mark.parametrize("shape", [{"devices": 1}, {}, {"fsdp": 4}, {"fsdp": 2, "tensor": 2}])
def test_windows_are_spread_over_the_devices_and_give_the_same(measure, shape):
  run, params = measure
  alone, found = run(params, Windows(), pictures=True), run(spread(params, **shape), Windows())
  np.testing.assert_allclose(found.z, alone.z, rtol=1e-6)
  assert found.scalars() == pytest.approx(alone.scalars(), rel=1e-6)
  assert found.columns["episode"].tolist() == [7, 8, 9] and found.frames.images == 3
  labels = run.labels({"one": spread(params, **shape)}, Windows())
  np.testing.assert_allclose(labels.z["one"], alone.z, rtol=1e-6)
  np.testing.assert_array_equal(labels.pictures, alone.pictures)


def test_each_device_has_its_own_windows(measure):
  run, _ = measure
  seen = []

  class Watched(Grays):
    def encode_frames(self, params, images):
      jax.debug.inspect_array_sharding(images, callback=seen.append)
      return super().encode_frames(params, images)

  class Eight(Windows):
    num_batches, size = 1, 8

    def batches(self):
      frames = np.zeros((8, 3, SIZE, SIZE, 3), np.uint8)
      row = {"valid": np.ones(8, bool), "damaged": np.zeros(8, bool), "episode": np.arange(8)}
      return contextlib.nullcontext(iter([{"frames": frames, **row}]))

  found = motion_evaluator.MotionEvaluator(Watched())({"shift": np.float32(1)}, Eight())
  assert len(found.z) == 8
  assert {one.shard_shape((8, 3, SIZE, SIZE, 3))[0] for one in seen} == {1}


def processes(*arguments, count, devices):
  """What the processes of a run have printed: the evaluation of the debug model."""
  module = "tests.inference.evaluated_in_two"
  return program.local_processes(module, *arguments, count=count, devices=devices)


@pytest.mark.flow
def test_two_processes_share_the_windows_and_both_have_the_figures_of_one():
  (alone,) = processes(count=1, devices=1)
  two = processes(count=2, devices=4)
  assert two[0]["scalars"] == two[1]["scalars"] and two[0]["time"] == two[1]["time"]
  assert two[0]["time"] == alone["time"] and len(alone["time"]) == 21
  assert alone["read"] == 24 and [one["read"] for one in two] == [12, 12]  # with padding
  assert two[0]["scalars"] == pytest.approx(alone["scalars"], rel=1e-5)


def test_a_failure_to_read_is_told_to_the_other_processes(monkeypatch):
  def broken(error):
    raise error
    yield

  with pytest.raises(OSError):
    motion_evaluator._read(broken(OSError("no such shard\nmore")))
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(errors.UserError, match="^OSError: no such shard$"):
    motion_evaluator._read(broken(OSError("no such shard\nmore")))
  with pytest.raises(errors.UserError, match="^mine$"):
    motion_evaluator._read(broken(errors.UserError("mine")))


def test_each_frame_is_encoded_once():
  class Counting(Grays):
    encoded = 0

    def encode_frames(self, params, images):
      self.encoded += 1
      return super().encode_frames(params, images)

  model = Counting()
  motion_evaluator.MotionEvaluator(model)({"shift": np.float32(1)}, Windows())
  assert model.encoded == 1, "traced once, for three frames"


def test_labels_are_the_same_z_without_the_rest(measure):
  run, params = measure
  found = run.labels({"one": params, "other": params | {"scale": np.float32(2)}}, Windows())
  whole = run(params, Windows(), pictures=True)
  np.testing.assert_array_equal(found.z["one"], whole.z)
  np.testing.assert_array_equal(found.z["other"], 2 * whole.z)
  assert (
    found.columns["episode"].tolist() == [7, 8, 9]
    and set(found.columns) == {"episode"}
    and run(params, Windows()).pictures is None
  )
  for pictures in (found.pictures, whole.pictures):
    assert pictures.dtype == np.float16
    np.testing.assert_allclose(pictures, GRAYS[:3, 1:, None].astype(float) + 1, rtol=1e-3)


def test_pictures_are_all_tokens_or_a_grid_of_their_means():
  tokens = np.float32(np.random.default_rng(0).normal(size=(2, 3, 1 + 16, 4)))
  np.testing.assert_allclose(motion_evaluator.summary(tokens), tokens.reshape(2, 3, -1), atol=1e-3)
  small = motion_evaluator.summary(tokens, max_values=5 * 4)
  grid = tokens[:, :, 1:].reshape(2, 3, 2, 2, 2, 2, 4).mean((3, 5)).reshape(2, 3, 4, 4)
  np.testing.assert_allclose(
    small, np.concatenate([tokens[:, :, :1], grid], 2).reshape(2, 3, -1), atol=1e-3
  )
  assert motion_evaluator.summary(tokens, max_values=1).shape == (
    2,
    3,
    8,
  ) and motion_evaluator.summary(tokens, max_values=10 * 4).shape == (2, 3, 40)


def test_a_motion_is_drawn_onto_its_own_or_another_frame(measure):
  run, params = measure
  frames = np.broadcast_to(GRAYS[:2, :, None, None, None], (2, 3, SIZE, SIZE, 3))
  first, second = frames[:, 1], frames[:, 2]
  drawn = run.predict(params, first, second)
  assert (
    drawn.dtype == np.uint8
    and drawn.shape == (2, SIZE, SIZE, 3)
    and (np.ptp(drawn, (1, 2, 3)) == 0).all()
  )
  assert drawn[:, 0, 0, 0].tolist() == [85, 65]
  assert run.predict(params, first, second, first[::-1])[:, 0, 0, 0].tolist() == [65, 85]


def test_windows_that_cannot_be_read_are_left_out_and_said(measure, capsys):
  run, params = measure

  class Damaged(Windows):
    def __init__(self, *damaged):
      self._damaged = np.array(damaged)

    def batches(self):
      def rows():
        with super(Damaged, self).batches() as found:
          for i, batch in enumerate(found):
            part = self._damaged[2 * i : 2 * i + 2]
            yield {**batch, "damaged": part, "valid": batch["valid"] & ~part}

      return contextlib.nullcontext(rows())

  found = run.labels({"one": params}, Damaged(False, True, False, False))
  assert found.columns["episode"].tolist() == [7, 9] and len(found.z["one"]) == 2
  assert capsys.readouterr().out == "evaluation: 1 of 3 windows cannot be read and are left out\n"
  run.labels({"one": params}, Windows())
  assert not capsys.readouterr().out
  with pytest.raises(errors.UserError) as caught:
    run.labels({"one": params}, Damaged(True, True, True, False))
  assert str(caught.value) == (
    "none of the 3 evaluation windows can be read: check the data with its checksums "
    "(shards.verify)"
  )
