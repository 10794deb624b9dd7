"""The motion model learns one batch of moving squares: it draws the future, and z tells the clips
apart.
"""

import jax
import numpy as np

from como_jax import model_presets, models, objectives
from como_jax.evaluate import consistency
from como_jax.inference import motion_evaluator
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import state, step
from tests import toy

SIZE, CLIPS, FRAMES = 32, 8, 3


def squares():
  """uint8 [CLIPS, 2 * FRAMES - 1, H, W, 3]: a bright square on a gradient, moving by a vector of
  its own, then jittered frames.
  """
  r = np.random.default_rng(0)
  gradient = np.linspace(40, 90, SIZE)[:, None] * np.ones((1, SIZE))
  frames = (
    np.repeat(gradient[None, None, :, :, None], 3, axis=-1)
    .repeat(2 * FRAMES - 1, 1)
    .repeat(CLIPS, 0)
  )
  for clip in range(CLIPS):
    angle, start = 2 * np.pi * clip / CLIPS, r.integers(10, 16, 2)
    for place, t in enumerate([0, 1, 2, 1.2, 2.2]):
      y, x = np.rint(start + 4 * t * np.array([np.sin(angle), np.cos(angle)])).astype(int)
      frames[clip, place, max(0, y) : y + 6, max(0, x) : x + 6] = 230
  return frames.astype(np.uint8)


def test_overfits_one_batch():
  config = model_presets.preset("motion", "debug")
  config["image_size"] = SIZE
  config["encoder"]["size"] = "32x2x2/8"
  config["idm"].update(width=64, depth=1, mlp_dim=128)
  config["fdm"].update(width=64, depth=2, mlp_dim=128)
  model = models.build(config)
  objective = objectives.build(
    {"reconstruction": {"weight": 1.0}, "contrastive": {"weight": 0.004}}
  )
  mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])
  tx, _ = toy.make_optimizer(steps=200, learning_rate=3e-3)
  now = jax.jit(lambda key: state.create(model.init(key), tx, frozen=model.frozen, ema=False))(
    jax.random.key(0)
  )
  now = jax.device_put(now, rules.shardings(now, mesh))
  encoder = jax.device_get(now.params["encoder"])
  traced = []

  def loss(params, batch, key):
    traced.append(1)
    return objective(model.forward(params, batch, key=key), batch)

  train = step.TrainStep(
    loss,
    tx,
    step.StepOptions(weights=objective.weights, frozen=model.frozen, seed=0),
    mesh=mesh,
    state=now,
  )
  frames = squares()
  batch = jax.device_put(
    {"frames": frames[:, :FRAMES], "jittered": frames[:, FRAMES:]}, mesh_lib.batch_sharding(mesh)
  )
  first = None
  for _ in range(200):
    now, metrics = train(now, batch)
    first = first or float(metrics["reconstruction"])
  assert len(traced) == 1
  last, copy = float(metrics["reconstruction"]), float(metrics["copy_current"])
  # residual output: it starts as the copy
  assert first > 0.9 * copy and last < copy / 10, (first, last, copy)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(now.params["encoder"]), encoder)

  run = jax.jit(motion_evaluator.MotionEvaluator(model)._latents)
  out = jax.device_get(run(now.params, frames[:, :FRAMES]))
  unit = out["z"] / np.linalg.norm(out["z"], axis=1, keepdims=True)
  similar = unit @ unit.T - np.eye(CLIPS)
  assert similar.max() < 0.99, "two different motions have the same z"
  assert consistency.s_pcfc(out["past"], out["future"]).mean < 0.9
