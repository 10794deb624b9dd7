"""LPIPS: values, gradients and files of weights."""

import re
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, objectives
from como_jax.models import pixels as pixels_lib
from como_jax.objectives import perceptual
from como_jax.parallel import flops
from tests.models import tiny
from tests.objectives.means import BATCH


def random_weights():
  """Small random VGG16 and heads with the real structure but four channels a block, in the file's
  layout.
  """
  stored, inputs, rng = {}, 3, np.random.default_rng(0)
  for number, block in enumerate(perceptual.CONVOLUTIONS):
    for i in block:
      stored[f"features.{i}.weight"] = rng.normal(size=(4, inputs, 3, 3), scale=0.4).astype(
        np.float32
      )
      stored[f"features.{i}.bias"] = rng.normal(size=4, scale=0.1).astype(np.float32)
      inputs = 4
    stored[f"lin{number}.model.1.weight"] = rng.uniform(size=(1, 4, 1, 1)).astype(np.float32)
  return stored


@pytest.fixture(scope="module")
def lpips(tmp_path_factory):
  path = tmp_path_factory.mktemp("lpips") / "weights.npz"
  np.savez(path, **random_weights())
  return objectives.build({"perceptual": {"weight": 0.5, "weights_path": str(path)}})


def test_perceptual(lpips):
  target = tiny.frames((1, 2, 16, 16))

  def value(pixels, constants):
    return lpips({"pixels": pixels, "target": target}, BATCH, constants)["perceptual"][0]

  step = jax.jit(jax.value_and_grad(value))
  same, _ = step(target, lpips.constants)
  assert same < 1e-10
  other, gradient = step(tiny.frames((1, 2, 16, 16), 9), lpips.constants)
  assert other > 0 and np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 0
  assert lpips({"pixels": target, "target": target}, BATCH)["perceptual"][1] == 2
  _, flat = step(jnp.zeros_like(target), lpips.constants)
  assert np.all(np.isfinite(flat))
  assert lpips.weights == {"perceptual": 0.5}


def test_perceptual_scale_is_that_of_the_models_pixels():
  np.testing.assert_array_equal(perceptual.IMAGENET_MEAN, pixels_lib.MEAN)
  np.testing.assert_array_equal(perceptual.IMAGENET_STD, pixels_lib.STD)


def test_perceptual_is_off_without_weights():
  objective = objectives.build(
    {"perceptual": {"weight": 1.0, "weights_path": ""}, "kl": {"weight": 1.0}}
  )
  assert (
    objective.weights == {"kl": 1.0}
    and set(objective.functions) == {"kl"}
    and objective.constants == {}
  )


def test_perceptual_files(tmp_path):
  def build(path):
    return objectives.build({"perceptual": {"weight": 1.0, "weights_path": str(path)}})

  with pytest.raises(errors.UserError, match="no file"):
    build(tmp_path / "none.npz")
  (tmp_path / "weights.pth").write_bytes(b"")
  with pytest.raises(errors.UserError, match="neither"):
    build(tmp_path / "weights.pth")
  stored = random_weights()
  lacking = {name: value for name, value in stored.items() if name != "features.10.bias"}
  np.savez(tmp_path / "lacking.npz", **lacking)
  with pytest.raises(errors.UserError, match="features.10.bias"):
    build(tmp_path / "lacking.npz")
  import safetensors.numpy

  short = {name.replace("model.1.", ""): value for name, value in stored.items()}
  safetensors.numpy.save_file(short, tmp_path / "w.safetensors")
  constants = build(tmp_path / "w.safetensors").constants["perceptual"]
  assert constants["conv2/kernel"].shape == (3, 3, 4, 4) and constants["head4"].shape == (4,)


@pytest.fixture(scope="module")
def two_sets():
  weights = {name: jnp.asarray(x) for name, x in loaded().items()}
  return weights, tiny.frames((2, 16, 16)), tiny.frames((2, 16, 16), 9)


def loaded():
  """The random weights as `perceptual.load` returns them."""
  with tempfile.TemporaryDirectory() as folder:
    np.savez(f"{folder}/weights.npz", **random_weights())
    return perceptual.load(f"{folder}/weights.npz")


def test_a_stopped_target_changes_no_value_and_costs_half_a_backward_pass(two_sets):
  weights, pixels, target = two_sets

  def step(stop_target):
    def value(pixels, target):
      return jnp.sum(perceptual.distance(weights, pixels, target, stop_target=stop_target))

    return jax.value_and_grad(value, argnums=(0, 1))

  plain, stopped = step(False)(pixels, target), step(True)(pixels, target)
  np.testing.assert_allclose(stopped[0], plain[0], rtol=1e-6)
  np.testing.assert_allclose(stopped[1][0], plain[1][0], rtol=1e-4, atol=1e-6)
  assert np.abs(plain[1][1]).max() > 0 and not np.any(stopped[1][1])

  def operations(stop_target):
    only = jax.grad(
      lambda x: jnp.sum(perceptual.distance(weights, x, target, stop_target=stop_target))
    )
    return flops.count(jax.make_jaxpr(only)(pixels))

  # two passes forward, two or one backward
  np.testing.assert_allclose(operations(True) / operations(False), 3 / 4, rtol=1e-3)


def test_bfloat16_is_near_float32(two_sets):
  weights, pixels, target = two_sets
  exact = perceptual.distance(weights, pixels, target)
  half = perceptual.distance(weights, pixels, target, dtype="bfloat16")
  assert half.dtype == jnp.float32 and not np.array_equal(half, exact)
  np.testing.assert_allclose(half, exact, rtol=3e-2)
  program = str(
    jax.make_jaxpr(lambda x: perceptual.distance(weights, x, target, dtype="bfloat16"))(pixels)
  )
  assert len(re.findall(r"bf16\[[\d,]+\] = conv_general_dilated", program)) == 13
  with pytest.raises(errors.UserError, match="dtype is 'float'; did you mean 'float32'"):
    perceptual.perceptual({}, BATCH, weights={}, dtype="float")
