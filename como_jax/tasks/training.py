"""What the training tasks share: from a model, a loss and batches to a finished run directory."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import errors, trees, weights
from como_jax.data import loading
from como_jax.models.backbones import mae_vit
from como_jax.parallel import distributed, rules
from como_jax.parallel import mesh as mesh_lib
from como_jax.tasks import sources
from como_jax.train import checkpoint, files, log, loop, meter, optimizer, rng, rundir, state, step

ASSETS = pathlib.Path(__file__).parent.parent / "assets"
BUNDLED_ENCODER = ASSETS / "mae_debug"


@dataclasses.dataclass(frozen=True)
class Job:
  """What a task brings to the shared machinery.

  Attributes:
    model: record with `init`, `frozen` and `config`.
    loss: `(params, batch, key) -> {term: (sum, count)}`.
    weights: weight of each term.
    batches: `start_step -> iterator` of numpy batches, closable.
    evaluate: `params -> {name: value}`, or None.
    examples_per_step, unit: for the throughput ("pairs", "images").
    loading: how the batches are read, for the log.
    constants: arrays the loss takes as a fourth argument (see `step.build`).
    start: named parts of the parameters to replace after init, as {"encoder": tree}.
  """

  model: Any
  loss: step.Loss
  weights: Mapping[str, float]
  batches: Callable[[int], Iterator[dict]]
  evaluate: Callable[[Any], dict[str, float]] | None
  examples_per_step: int
  unit: str
  loading: loading.Loading
  start: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def fit(command: config_lib.CommandLine, make: Callable[[], Job]) -> int:
  """Runs a training task; returns the exit code.

  The run directory is checked first and written only after the job has been made, so bad input leaves nothing behind. Where
  several processes run it, all prepare together and process 0 alone writes, but for the checkpoints.
  """
  config, workdir = command.config, command.workdir
  section = config.train
  begin = time.monotonic()
  first, flags = distributed.is_first(), {"resume": command.resume, "overwrite": command.overwrite}
  distributed.same("\n".join([config_lib.to_json(config), str(workdir), str(flags)]), what="the command line")
  sources.cores()  # here, where all processes come
  def prepare():
    if first:
      rundir.check(workdir, config, **flags)
    check_numbers(section)
    mesh = mesh_lib.make(**section.mesh)
    mesh_lib.check_batch(mesh, section.batch_size, accumulate=section.accumulate)
    return mesh, make(), optimizer.build(steps=section.steps, **section.optimizer)
  mesh, job, (tx, rate) = distributed.together(prepare)
  frozen = tuple(job.model.frozen if section.frozen is None else section.frozen)
  distributed.together(lambda: rundir.open_run(workdir, config, **flags) if first else rundir.join(workdir, config), first_alone=True)

  current = initial_state(job, tx, frozen=frozen, ema=section.ema > 0, seed=config.seed, mesh=mesh)
  checkpointer = checkpoint.Checkpointer(workdir, keep=section.keep_checkpoints)
  if command.resume and checkpointer.latest() is not None:
    current = checkpointer.restore(current, mesh)
  start = int(current.step)
  trainable = trees.split(current.params, frozen)[0]
  writer = log.Log(workdir, steps=section.steps, start=start, tensorboard=section.tensorboard, wandb=section.wandb,
                   name=command.name, config=config.to_dict()) if first else None
  validated = json.loads(distributed.from_first(json.dumps(writer.validated if writer else [])))
  writer = writer or log.Quiet(validated)
  writer.say(f"{command.name}: {optimizer.count(current.params):,} parameters, {optimizer.count(trainable):,} trainable; "
             f"mesh {dict(mesh.shape)}, processes {jax.process_count()}; {job.loading}; step {start} of {section.steps}; {workdir}")
  train_step = step.build(job.loss, tx, weights=job.weights, frozen=frozen, seed=config.seed, mesh=mesh, state=current,
                          accumulate=section.accumulate, ema=section.ema, rate=rate, constants=job.constants)
  batches = job.batches(start)
  evaluate = job.evaluate and (lambda now: job.evaluate(_at_hand(state.weights(now, frozen=frozen))))
  try:
    outcome = loop.run(
        current, step=train_step, batches=batches, mesh=mesh, steps=section.steps, log=writer, checkpointer=checkpointer,
        examples_per_step=job.examples_per_step, unit=job.unit, log_every=section.log_every,
        checkpoint_every=section.checkpoint_every, evaluate=evaluate, evaluate_every=section.evaluate_every,
        slow_data=meter.advice(**dataclasses.asdict(job.loading)))
  finally:
    batches.close()
    writer.close()
    checkpointer.close()
  if outcome.stopped:
    return loop.STOPPED
  final = distributed.gather(state.weights(outcome.state, frozen=frozen), keep=first)
  if not first:
    return 0
  if outcome.examples_per_s or not (workdir / "speed.json").exists():  # resuming a finished run measures nothing: keep the old file
    speed = {f"{job.unit}_per_s": outcome.examples_per_s, "wait_share": outcome.wait_share, "steps": section.steps,
             "seconds": time.monotonic() - begin}
    files.write(workdir / "speed.json", json.dumps(speed, indent=2))
  weights.save(workdir / checkpoint.WEIGHTS, final, json.loads(config_lib.to_json(config)), overwrite=True)
  print(f"done: {section.steps} steps, {outcome.examples_per_s:.1f} {job.unit}/s, waited for data {outcome.wait_share:.1%}; "
        f"weights in {workdir / checkpoint.WEIGHTS}", flush=True)
  return 0


def _at_hand(params):
  """Parameters to evaluate: where they are spread over processes, whole ones on a device of each, which then all compute (and
  process 0 logs) the same scores; waiting for one of them in a collective would take as long."""
  return params if jax.process_count() == 1 else jax.device_put(distributed.gather(params))


def check_numbers(section) -> None:
  """Refuses numbers that no run can have, before anything is written."""
  for key, least in dict(batch_size=1, steps=1, accumulate=1, log_every=1, keep_checkpoints=1, evaluate_every=0, checkpoint_every=0).items():
    if section[key] < least:
      raise errors.UserError(f"config.train.{key}={section[key]}, expected at least {least}")
  if not 0 <= section.ema < 1:
    raise errors.UserError(f"config.train.ema={section.ema}, expected at least 0 and less than 1")
  if section.wandb:
    log.check_wandb()


def initial_state(job: Job, tx, *, frozen: tuple[str, ...], ema: bool, seed: int, mesh: jax.sharding.Mesh) -> state.TrainState:
  """The state at step 0, made sharded under jit, with the job's given parts (a pretrained encoder) in place."""
  def create(key, start):
    params = job.model.init(key)
    params = {**params, **start}
    return state.create(params, tx, frozen=frozen, ema=ema)
  key = rng.key(seed, "init")
  start = jax.tree.map(np.asarray, dict(job.start))
  shapes = jax.eval_shape(create, key, start)
  return jax.jit(create, out_shardings=rules.shardings(shapes, mesh))(key, start)


def encoder_weights(path: str, *, model: Any) -> dict[str, Any]:
  """{"encoder": parameters} from a weights folder or run directory, refitted to the image size; {} for "" (random).

  "bundled" is the shipped tiny encoder. `model` is the record it is for.

  Raises:
    errors.UserError: there is no encoder in it, or one of another size.
  """
  if not path:
    return {}
  folder = BUNDLED_ENCODER if path == "bundled" else pathlib.Path(path)
  params, given = checkpoint.load(folder)
  if "encoder" not in params:
    raise errors.UserError(f"encoder weights {str(folder)!r} hold no encoder, only: {', '.join(params)}")
  epsilon = given.get("layer_norm_epsilon", given.get("model", {}).get("encoder", {}).get("epsilon"))
  section = model.config["encoder"]
  if epsilon is not None and epsilon != section["epsilon"]:
    raise errors.UserError(f"encoder weights {str(folder)!r} were trained with a LayerNorm epsilon of {epsilon}, the config has "
                           f"{section['epsilon']}: give --config.model.encoder.epsilon={epsilon}")
  encoder = params["encoder"]
  if {"patch/kernel", "position"} <= set(trees.flatten(encoder)):
    encoder = mae_vit.refit_positions(encoder, model.config["image_size"])
  expected = jax.eval_shape(model.init, rng.key(0, "init"))["encoder"]
  return {"encoder": trees.merge(expected, encoder, what=f"encoder weights {str(folder)!r}")}
