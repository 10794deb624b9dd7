"""Parity with torch twins to 1e-5, on random (not initial) parameters so that no bias or scale is trivial."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import models, objectives, trees
from como_jax.models import pixels, transformer
from como_jax.objectives import perceptual
from tests.models import tiny
from tests.objectives.test_objectives import random_weights

torch = pytest.importorskip("torch")
from tests.reference import torch_models as twins  # noqa: E402  (needs torch)

pytestmark = pytest.mark.reference
ENCODER = dict(width=32, depth=2, heads=2, mlp=128)
IDM = dict(width=24, depth=2, heads=2, mlp=48)
FDM = dict(width=32, depth=2, heads=2, mlp=64)


def to_torch(frames):
  return torch.tensor(np.asarray(frames).transpose(0, 3, 1, 2).copy())


def close(ours, theirs):
  np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def made():
  return tiny.made(tiny.MOTION)


def test_block():
  x = tiny.frames((2, 5), 1).repeat(4, axis=-1)
  block = transformer.Block(heads=2, mlp=24, initialiser="mae")
  params = tiny.fill(jax.eval_shape(block.init, jax.random.key(0), x)["params"])
  twin = twins.load(twins.Block(12, 2, 24), trees.flatten(params))
  close(jax.jit(block.apply)({"params": params}, x), twin(torch.tensor(np.asarray(x))))


def test_encoder(made):
  model, params = made
  frames = tiny.frames((2, 16, 16))
  twin = twins.load(twins.Encoder(**ENCODER, patch=8, tokens=5), trees.flatten(params["encoder"]))
  close(jax.jit(model.features)(params, frames), twin(to_torch(frames)))


@pytest.mark.parametrize("kind, types", [("legacy", (0, 0)), ("distinct", (0, 1))])
def test_qformer(made, kind, types):
  model = models.build(tiny.section(tiny.MOTION, **{"idm.token_types": kind}))
  params = made[1]["idm"]["qformer"]
  first, second = (jax.random.normal(jax.random.key(i), (2, 5, 32)) for i in range(2))
  twin = twins.load(twins.QFormer(**IDM, queries=3, features=32, length=14), trees.flatten(params))
  a, b = (torch.tensor(np.asarray(x)) for x in (first, second))
  close(jax.jit(model.qformer.apply)({"params": params}, first, second, jax.random.key(0)), twin(a, b - a, types))


def test_fdm(made):
  model, params = made
  frames, latent = tiny.frames((2, 16, 16)), jax.random.normal(jax.random.key(3), (2, 3, 4))
  twin = twins.load(twins.FDM(**FDM, patch=8, patches=4, queries=3, dims=4), trees.flatten(params["fdm"]))
  ours = jax.jit(model.decode)(params, frames, latent.reshape((2, 12)))["pixels"]
  close(ours.transpose((0, 3, 1, 2)), twin(to_torch(frames), torch.tensor(np.asarray(latent))))


def test_contrastive_and_its_gradient():
  z = [np.asarray(jax.random.normal(jax.random.key(i), (6, 1, 8))) for i in range(3)]
  objective = objectives.build({"contrastive": {"weight": 1.0}})

  def ours(z):
    total, count = objective(dict(zip(("z", "z_jittered", "z_reversed"), z, strict=True)), {})["contrastive"]
    return total / count
  value, gradient = jax.value_and_grad(ours)([jnp.asarray(x) for x in z])
  leaves = [torch.tensor(x[:, 0], requires_grad=True) for x in z]
  theirs = twins.contrastive(*leaves)
  theirs.backward()
  close(value, theirs)
  for mine, leaf in zip(gradient, leaves, strict=True):
    close(mine[:, 0], leaf.grad)


def test_lpips(tmp_path):
  stored = random_weights()
  np.savez(tmp_path / "weights.npz", **stored)
  weights = perceptual.load(str(tmp_path / "weights.npz"))
  a, b = (jax.random.uniform(jax.random.key(i), (2, 32, 32, 3)) for i in range(2))
  normal = [(x - pixels.MEAN[None, None, None]) / pixels.STD[None, None, None] for x in (a, b)]
  theirs = twins.lpips({name: torch.tensor(value) for name, value in stored.items()}, perceptual.CONVOLUTIONS,
                       to_torch(a), to_torch(b))
  close(jax.jit(perceptual.distance)(weights, *normal), theirs)
