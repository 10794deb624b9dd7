"""The programs of a training config, built from shapes alone.

They are the train step, labeling with the motion model, and acting with the policy. They use the
code of a real run (`train.step.TrainStep`, the functions of the model, the mesh and the sharding
rules). Only data and weights are missing. The shapes of batches are from `inputs_spec` of the
model.
"""

from typing import Any

import jax
import jax.numpy as jnp

from como_jax import errors, models, objectives, trees
from como_jax.assembly import policy_setup
from como_jax.inference import policy_evaluator
from como_jax.models import pixels
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules, topology
from como_jax.serve import policy_checkpoint
from como_jax.train import optimizer, rng, state, step
from como_jax.train.compiled import Program

# task -> its programs
KINDS = {"motion": ("train", "extract"), "mae": ("train",), "policy": ("train", "policy")}


def check(config) -> None:
  """Checks that a config trains something.

  Raises:
    errors.UserError: it does not; the message names the tasks that do.
  """
  if config.get("task", "") not in KINDS:
    raise errors.UserError(
      f"config.of: the task {config.get('task', '')!r} trains nothing, one of "
      f"{', '.join(KINDS)} is expected"
    )


def train(config, machine: topology.Topology, *, batch_size: int, useful: bool = False) -> Program:
  """The train step.

  Args:
    config: resolved config of a training task.
    machine: the machine.
    batch_size: batch size over all devices.
    useful: without operations that are repeated to save memory (rematerialization, backward pass
      of fused attention).

  Raises:
    errors.UserError: the mesh or the batch does not fit the machine.
  """
  section = config.train
  mesh = mesh_lib.make(**section.mesh, devices=topology.devices(machine))
  mesh_lib.check_batch(mesh, batch_size, accumulate=section.accumulate)
  model = _model(config, useful)
  loss, weights, constants, batch = _PARTS[config.task](config, model, batch_size)
  tx, rate = optimizer.from_section(section)
  frozen = tuple(model.frozen if section.frozen is None else section.frozen)
  initial_state = jax.eval_shape(
    lambda key: state.create(model.init(key), tx, frozen=frozen, ema=section.ema > 0),
    rng.key(0, "init"),
  )
  function = step.TrainStep(
    loss,
    tx,
    step.StepOptions(
      weights=weights,
      frozen=frozen,
      seed=config.seed,
      lr_schedule=rate,
      num_microbatches=section.accumulate,
      ema_decay=section.ema,
    ),
    mesh=mesh,
    state=initial_state,
    constants=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), constants),
  )
  num_parameters = optimizer.count(initial_state.params)
  num_frozen = optimizer.count(trees.split(initial_state.params, frozen)[1])
  return Program(
    lambda: function.trace(initial_state, batch),
    mesh,
    batch_size,
    "clips" if config.task == "motion" else "examples",
    num_parameters - num_frozen,
    num_parameters,
  )


def extract(
  config, machine: topology.Topology, *, batch_size: int, useful: bool = False
) -> Program:
  """Labeling: encodes each frame once, and computes its motion from an earlier frame.

  The tokens of the earlier frame are known, as in `inference/latent_stream.py`. Each process of
  labeling works alone, so the machine is one host. Arguments are as for `train`.
  """
  model = _model(config, useful)
  mesh = mesh_lib.make(devices=topology.devices(machine))
  side = model.image_size

  def label(params, frames, earlier):
    with rules.activations(mesh):
      images = pixels.normalize(frames)
      tokens = model.encode_frames(params, images)
      before = pixels.normalize(earlier["frames"])
      return tokens, model.encode(params, before, images, tokens=(earlier["tokens"], tokens)).z

  params = jax.eval_shape(model.init, rng.key(0, "init"))
  params = {name: params[name] for name in ("encoder", "idm")}
  frames = jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.uint8)
  tokens = jax.eval_shape(lambda p, x: model.encode_frames(p, pixels.normalize(x)), params, frames)
  rows, replicated = mesh_lib.batch_sharding(mesh), mesh_lib.replicated(mesh)
  function = jax.jit(
    label,
    in_shardings=(rules.shardings(params, mesh), rows, rows),
    out_shardings=(rows, replicated),
  )
  return Program(
    lambda: function.trace(params, frames, {"tokens": tokens, "frames": frames}),
    mesh,
    batch_size,
    "frames",
    0,
    optimizer.count(params),
  )


def policy(config, machine: topology.Topology, *, batch_size: int, useful: bool = False) -> Program:
  """Acting: action chunks of the first robot, on one device, as in the server.

  Arguments are as for `train`.
  """
  model = _model(config, useful)
  mesh = mesh_lib.make(devices=topology.devices(machine)[:1])
  robot, guidance_scale = model.robots[0], float(config.policy.guidance_scale)

  def sample(params, batch, key):
    with rules.activations(mesh):
      return model.sample(params, batch, key, robot=robot, guidance_scale=guidance_scale)

  params = jax.eval_shape(
    lambda key: policy_checkpoint.cast_kernels(model.init(key), config.model.dtype),
    rng.key(0, "init"),
  )
  batch = {
    name: spec
    for name, spec in model.inputs_spec(batch_size).items()
    if name not in policy_evaluator.TARGETS
  }
  function = jax.jit(
    sample, in_shardings=mesh_lib.replicated(mesh), out_shardings=mesh_lib.replicated(mesh)
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  return Program(
    lambda: function.trace(params, batch, key),
    mesh,
    batch_size,
    "chunks",
    0,
    optimizer.count(params),
  )


def _model(config, useful: bool) -> Any:
  return models.build(models.without_repetition(config.model) if useful else config.model.to_dict())


def _motion_parts(config, model, batch_size: int):
  objective = objectives.build(objectives.active(config.objectives))
  batch = model.inputs_spec(
    batch_size, config.data.frames, jittered="contrastive" in objective.functions
  )
  loss = objectives.model_loss(model, objective)
  return loss, objective.weights, objective.constants, batch


def _mae_parts(config, model, batch_size: int):
  objective = objectives.build(config.objectives.to_dict())
  loss = objectives.model_loss(model, objective)
  return loss, objective.weights, objective.constants, model.inputs_spec(batch_size)


def _policy_parts(config, model, batch_size: int):
  return model.losses, policy_setup.loss_weights(config, model), {}, model.inputs_spec(batch_size)


# Task -> function that returns (loss, weights, constants, shapes of a batch).
_PARTS = {"motion": _motion_parts, "mae": _mae_parts, "policy": _policy_parts}
