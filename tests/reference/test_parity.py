"""Parity with torch twins to 1e-5, on random (not initial) parameters so that no bias or scale is
trivial.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from como_jax import models, objectives, trees
from como_jax.models import attention, pixels, specs, transformer
from como_jax.objectives import perceptual
from tests.models import tiny
from tests.objectives.test_perceptual import random_weights

torch = pytest.importorskip("torch")
from tests.reference import torch_models as twins

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
  stack = specs.StackConfig(width=12, depth=1, num_heads=2, mlp_dim=24, initializer="mae")
  block = transformer.Block(stack)
  params = tiny.fill(jax.eval_shape(block.init, jax.random.key(0), x)["params"])
  twin = twins.load(twins.Block(12, 2, 24), trees.flatten(params))
  close(jax.jit(block.apply)({"params": params}, x), twin(torch.tensor(np.asarray(x))))


def test_gelu_and_its_gradient():
  x = np.linspace(-6, 6, 97, dtype=np.float32)
  value, gradient = jax.vmap(jax.value_and_grad(transformer.gelu))(x)
  leaf = torch.tensor(x, requires_grad=True)
  theirs = torch.nn.functional.gelu(leaf)
  theirs.sum().backward()
  close(value, theirs)
  close(gradient, leaf.grad)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradient(masked):
  query, key, value = (
    np.asarray(jax.random.normal(jax.random.key(i), (2, count, 3, 8)))
    for i, count in enumerate((5, 7, 7))
  )
  mask = np.random.default_rng(0).random((2, 1, 5, 7)) < 0.6 if masked else None
  # every token may look at one at least
  mask = None if mask is None else mask | (np.arange(7) == 0)

  def ours(*given):
    out = attention.attend(*given, mask)
    return jnp.sum(jnp.square(out)), out

  (_, out), gradient = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True))(
    query, key, value
  )
  leaves = [torch.tensor(x, requires_grad=True) for x in (query, key, value)]
  allowed = None if mask is None else torch.tensor(mask)
  theirs = torch.nn.functional.scaled_dot_product_attention(
    *(x.transpose(1, 2) for x in leaves), attn_mask=allowed
  ).transpose(1, 2)
  theirs.square().sum().backward()
  close(out, theirs)
  for mine, leaf in zip(gradient, leaves, strict=True):
    close(mine, leaf.grad)


def test_encoder(made):
  model, params = made
  frames = tiny.frames((2, 16, 16))
  twin = twins.load(twins.Encoder(**ENCODER, patch=8, tokens=5), trees.flatten(params["encoder"]))
  close(jax.jit(model.encode_frames)(params, frames), twin(to_torch(frames)))


@pytest.mark.parametrize("kind, types", [("legacy", (0, 0)), ("distinct", (0, 1))])
def test_qformer(made, kind, types):
  model = models.build(tiny.section(tiny.MOTION, **{"idm.token_types": kind}))
  params = made[1]["idm"]["qformer"]
  first, second = (jax.random.normal(jax.random.key(i), (2, 5, 32)) for i in range(2))
  twin = twins.load(twins.QFormer(**IDM, queries=3, features=32, length=14), trees.flatten(params))
  a, b = (torch.tensor(np.asarray(x)) for x in (first, second))
  close(
    jax.jit(model.qformer.apply)({"params": params}, first, second, jax.random.key(0)),
    twin(a, b - a, types),
  )


def test_fdm(made):
  model, params = made
  frames, latent = tiny.frames((2, 16, 16)), jax.random.normal(jax.random.key(3), (2, 3, 4))
  twin = twins.load(
    twins.FDM(**FDM, patch=8, patches=4, queries=3, dims=4), trees.flatten(params["fdm"])
  )
  ours = jax.jit(model.decode)(params, frames, latent.reshape((2, 12)))["pixels"]
  close(ours.transpose((0, 3, 1, 2)), twin(to_torch(frames), torch.tensor(np.asarray(latent))))


def test_the_whole_loss_and_its_gradient(made):
  model, params = made
  frames, jittered = (
    np.random.default_rng(0).integers(0, 256, (3, count, 16, 16, 3), np.uint8) for count in (2, 1)
  )
  objective = objectives.build(
    {"reconstruction": {"weight": 1.0}, "contrastive": {"weight": 0.004}}
  )

  def ours(trained):
    batch = {"frames": frames, "jittered": jittered}
    terms = objective(model.forward({**params, **trained}, batch, key=jax.random.key(0)), batch)
    return sum(
      weight * terms[name][0] / terms[name][1]
      for name, weight in objective.weights.items()
      if weight is not None
    )

  value, gradient = jax.jit(jax.value_and_grad(ours))(
    {name: params[name] for name in ("idm", "fdm")}
  )
  twin = twins.load(
    twins.Motion(
      twins.Encoder(**ENCODER, patch=8, tokens=5),
      twins.QFormer(**IDM, queries=3, features=32, length=14),
      twins.Bottleneck(24, 4),
      twins.FDM(**FDM, patch=8, patches=4, queries=3, dims=4),
    ),
    trees.flatten(params),
  )
  theirs = twin(torch.tensor(frames), torch.tensor(jittered))
  theirs.backward()
  np.testing.assert_allclose(value, theirs.item(), rtol=1e-5)
  norm = sum(
    leaf.grad.square().sum()
    for name, leaf in twin.named_parameters()
    if not name.startswith("encoder")
  ).sqrt()
  np.testing.assert_allclose(optax.global_norm(gradient), norm.item(), rtol=1e-4)


def test_contrastive_and_its_gradient():
  z = [np.asarray(jax.random.normal(jax.random.key(i), (6, 1, 8))) for i in range(3)]
  objective = objectives.build({"contrastive": {"weight": 1.0}})

  def ours(z):
    total, count = objective(dict(zip(("z", "z_jittered", "z_reversed"), z, strict=True)), {})[
      "contrastive"
    ]
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
  theirs = twins.lpips(
    {name: torch.tensor(value) for name, value in stored.items()},
    perceptual.CONVOLUTIONS,
    to_torch(a),
    to_torch(b),
  )
  close(jax.jit(perceptual.distance)(weights, *normal), theirs)
