"""What the training tasks share: from a model, a loss and batches to a finished run directory."""

import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import errors, trees, weights
from como_jax.data import read_options
from como_jax.models.backbones import mae_vit
from como_jax.parallel import distributed, rules
from como_jax.parallel import mesh as mesh_lib
from como_jax.tasks import data_identity, motion_data
from como_jax.train import (
  atomic,
  checkpoint,
  integrity,
  log,
  loop,
  memory,
  meter,
  optimizer,
  rng,
  rundir,
  state,
  step,
)

ASSETS = pathlib.Path(__file__).parent.parent / "assets"
BUNDLED_ENCODER = ASSETS / "mae_debug"


@dataclasses.dataclass(frozen=True)
class TrainJob:
  """What a task brings to the shared machinery.

  Attributes:
    model: record with `init`, `frozen` and `config`.
    loss: `(params, batch, key) -> {term: (sum, count)}`.
    weights: weight of each term.
    batches: `start_step -> iterator` of numpy batches, closable.
    evaluate: `params -> {name: value}`, or None.
    examples_per_step, unit: for the throughput ("pairs", "images").
    loading: how the batches are read, for the log.
    batch: shapes of a whole batch, for the program to be compiled before there is one.
    data: (folder of shards, folder of labels or "") of each data set, in the config's order.
    constants: arrays the loss takes as a fourth argument (see `step.TrainStep`).
    start: named parts of the parameters to replace after init, as {"encoder": tree}.
    begin: `params -> named parts` that the task measures on its data where a run starts, and never
      again on resume: nested dicts as the parameters, with the leaves to replace alone. It must not
      call collectives.
    files: JSON files that stand beside the checkpoints and the weights, name -> text.
  """

  model: Any
  loss: step.Loss
  weights: Mapping[str, float]
  batches: Callable[[int], Iterator[dict]]
  evaluate: Callable[[Any], dict[str, float]] | None
  examples_per_step: int
  unit: str
  loading: read_options.ReadOptions
  batch: Mapping[str, jax.ShapeDtypeStruct]
  data: Sequence[tuple[str, str]]
  start: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  begin: Callable[[Any], Mapping[str, Any]] | None = None
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)


def fit(command: config_lib.CommandLine, make: Callable[[], TrainJob]) -> int:
  """Runs a training task; returns the exit code.

  The run directory is checked first and written only after the job has been made and its step
  compiled, so that bad input, and a run that cannot fit into memory, leave nothing behind. Where
  several processes run it, all prepare together and process 0 alone writes, but for the
  checkpoints.
  """
  config, workdir = command.config, command.workdir
  section = config.train
  begin = time.monotonic()
  first = distributed.is_primary()
  flags = {"resume": command.resume, "overwrite": command.overwrite}
  distributed.assert_same_on_all(
    "\n".join([config_lib.to_json(config), str(workdir), str(flags)]), what="the command line"
  )
  motion_data.cores()  # here, where all processes come

  def look():
    if first:
      rundir.check(workdir, config, **flags)
    if section.wandb:
      log.check_wandb()
    if not (first and command.resume):
      return "", None
    rundir.changes(workdir, config)  # what is refused is refused before anything is compiled
    return done_already(workdir, section.steps), rate_before(workdir)

  enough, old_rate = distributed.run_on_all_processes(look)
  if enough := distributed.broadcast_from_primary(enough):
    print(enough)
    return 0

  def prepare():
    mesh = mesh_lib.make(**section.mesh)
    mesh_lib.check_batch(mesh, section.batch_size, accumulate=section.accumulate)
    job = make()
    data = data_identity.record(config, job.data) if first else []
    changed = (
      data_identity.check(workdir, data, accept=section.accept_changed_data)
      if first and command.resume
      else []
    )
    return mesh, job, optimizer.build(steps=section.steps, **section.optimizer), data, changed

  mesh, job, (tx, rate), data, changed = distributed.run_on_all_processes(prepare)
  frozen = tuple(job.model.frozen if section.frozen is None else section.frozen)
  shapes = state_shapes(job, tx, frozen=frozen, ema=section.ema > 0, mesh=mesh)
  train_step = step.TrainStep(
    job.loss,
    tx,
    step.StepOptions(
      weights=job.weights,
      frozen=frozen,
      seed=config.seed,
      num_microbatches=section.accumulate,
      ema_decay=section.ema,
      lr_schedule=rate,
    ),
    mesh=mesh,
    state=shapes,
    constants=job.constants,
  )
  distributed.run_on_all_processes(lambda: check_memory(train_step, shapes, job, section, mesh))

  def open_directory():
    if not first:
      rundir.join(workdir, config)
      return
    rundir.open_run(workdir, config, **flags)
    for name, text in job.files.items():
      atomic.write(workdir / name, text)
    data_identity.write(workdir, data)
    for line in changed:
      print(line)

  distributed.run_on_all_processes(open_directory, first_alone=True)

  current = initial_state(job, tx, frozen=frozen, ema=section.ema > 0, seed=config.seed, mesh=mesh)
  checkpointer = checkpoint.Checkpointer(workdir, keep=section.keep_checkpoints)
  restored = checkpointer.restore(current, mesh) if command.resume else None
  current = begun(job, current) if restored is None else restored
  if first:
    rundir.write_parameters(workdir, current.params)
  start = int(current.step)
  trainable = trees.split(current.params, frozen)[0]
  writer = None
  if first:
    writer = log.Log(
      workdir,
      steps=section.steps,
      start=start,
      tensorboard=section.tensorboard,
      wandb=section.wandb,
      name=command.name,
      config=config.to_dict(),
    )
  validated = json.loads(
    distributed.broadcast_from_primary(json.dumps(writer.validated if writer else []))
  )
  writer = writer or log.NullLog(validated)
  writer.say(
    f"{command.name}: {optimizer.count(current.params):,} parameters, "
    f"{optimizer.count(trainable):,} trainable; devices {rundir.hardware()['devices']}, mesh "
    f"{dict(mesh.shape)}, processes {jax.process_count()}; {job.loading}; step {start} of "
    f"{section.steps}; {workdir}"
  )
  if old_rate and not np.isclose(old_rate(start), rate(start), rtol=1e-4):
    writer.say(
      f"resume: the learning rate of step {start} was {float(old_rate(start)):.4g} and is now "
      f"{float(rate(start)):.4g} (train.steps and train.optimizer decide the schedule)"
    )

  # A sample holds more than the loss reads: with all of it, the program would be another than the
  # one compiled above.
  def used(batch):
    return {name: batch[name] for name in job.batch}

  batches = job.batches(start)
  evaluate = job.evaluate and (
    lambda now: job.evaluate(_replicated_params(state.weights(now, frozen=frozen)))
  )
  schedule = loop.Schedule(
    section.steps, section.log_every, section.checkpoint_every, section.evaluate_every
  )
  advice = meter.advice(**dataclasses.asdict(job.loading))
  throughput = loop.Throughput(job.examples_per_step, job.unit, advice)
  lost = False  # another process: then nothing here can be ended in order, Orbax would wait for it
  try:
    outcome = loop.TrainLoop(train_step, schedule, throughput, writer, checkpointer, evaluate).run(
      current, map(used, batches)
    )
  except Exception as error:
    lost = distributed.lost_process(error)
    raise
  finally:
    if not lost:
      batches.close()
      writer.close()
      checkpointer.close()
  if outcome.stopped:
    return loop.EXIT_SIGNALED
  final = distributed.gather(state.weights(outcome.state, frozen=frozen), keep=first)
  return export(command, job, outcome, final, seconds=time.monotonic() - begin) if first else 0


def export(
  command: config_lib.CommandLine,
  job: TrainJob,
  outcome: loop.TrainResult,
  final: dict[str, Any],
  *,
  seconds: float,
) -> int:
  """Leaves the weights and the speed of a finished run in its directory; returns the exit code."""
  workdir, steps = command.workdir, command.config.train.steps
  if not checkpoint.all_finite(final):
    raise errors.NonFinite(
      f"step {steps}: the weights are infinite or not a number and are not exported: lower "
      "config.train.optimizer.learning_rate, or go on from an earlier checkpoint"
    )
  # resuming a finished run measures nothing: keep the old file
  if outcome.examples_per_s or not (workdir / "speed.json").exists():
    speed = {
      f"{job.unit}_per_s": outcome.examples_per_s,
      "wait_share": outcome.wait_share,
      "steps": steps,
      "seconds": seconds,
    }
    atomic.write(workdir / "speed.json", json.dumps(speed, indent=2))
  for stale in workdir.glob(f".{checkpoint.WEIGHTS}.new-*"):  # of a start that was killed in here
    shutil.rmtree(stale, ignore_errors=True)
  weights.save(
    workdir / checkpoint.WEIGHTS,
    final,
    json.loads(config_lib.to_json(command.config)),
    step=steps,
    overwrite=True,
    files=job.files,
  )
  failed = (
    f"; the validation failed at step {', '.join(map(str, outcome.unvalidated))} (see above)"
    if outcome.unvalidated
    else ""
  )
  print(
    f"done: {steps} steps, {outcome.examples_per_s:.1f} {job.unit}/s, waited for data "
    f"{outcome.wait_share:.1%}; weights in {workdir / checkpoint.WEIGHTS}{failed}"
  )
  return 0


def done_already(workdir: pathlib.Path, steps: int) -> str:
  """What to say of a run that has done more steps than it is asked for; "" for any other.

  Nothing is written then.
  """
  folder = workdir / checkpoint.FOLDER
  good = (
    step
    for step in integrity.steps(folder)
    if step > steps and not integrity.problem(folder / str(step))
  )
  step = next(good, None)
  if step is None:
    return ""
  exported = workdir / checkpoint.WEIGHTS
  has = weights.read_step(exported) if (exported / weights.PARAMS).is_file() else None
  if has == step:
    words = f"{exported} holds its weights"
  else:
    state = "its weights are not exported yet" if has is None else f"{exported} is of step {has}"
    words = (
      f"{state}, "
      f"the checkpoint of step {step} is what other tasks use; --config.train.steps={step} "
      "exports it"
    )
  return f"already at step {step} of {steps} asked: nothing to do; {words}"


def rate_before(workdir: pathlib.Path) -> Callable[[int], Any] | None:
  """The learning-rate schedule that the run had so far; None where its config does not say."""
  before = weights.read_config(workdir / rundir.CONFIG).get("train", {})
  settings = dict(before.get("optimizer", {}))
  known = ("learning_rate", "floor", "warmup_steps", "warmup_start")
  if "steps" not in before or "schedule" not in settings or not set(known) <= set(settings):
    return None
  return optimizer.learning_rate_schedule(
    kind=settings["schedule"], steps=before["steps"], **{key: settings[key] for key in known}
  )


def check_memory(
  train_step: Any, shapes: state.TrainState, job: TrainJob, section, mesh: jax.sharding.Mesh
) -> None:
  """Compiles the train step (the first call finds it compiled) and refuses it where it cannot fit
  into memory.

  Raises:
    errors.UserError: with what it needs and what there is.
  """
  settings = dict(batch_size=section.batch_size, accumulate=section.accumulate)
  memory.check(
    memory.size(shapes, mesh_size=mesh.size),
    mesh.local_devices,
    **settings,
    what="the state of the run (weights and optimizer) alone",
  )
  rows = mesh_lib.batch_sharding(mesh)
  batch = {
    name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=rows)
    for name, spec in job.batch.items()
  }
  try:
    need = memory.needed(train_step.lower(shapes, batch).compile())
  except jax.errors.JaxRuntimeError as error:  # compilers of accelerators refuse what cannot fit
    if not memory.is_out_of_memory(error):
      raise
    raise errors.UserError(
      f"a train step does not fit into memory ({str(error).splitlines()[0][:200]}): {memory.ADVICE}"
    ) from error
  if need is not None:
    memory.check(need, mesh.local_devices, **settings)


def _replicated_params(params):
  """Parameters to evaluate: where they are spread over processes, whole ones on a device of each,
  which then all compute (and process 0 logs) the same scores; waiting for one of them in a
  collective would take as long.
  """
  return params if jax.process_count() == 1 else jax.device_put(distributed.gather(params))


def state_shapes(
  job: TrainJob, tx, *, frozen: tuple[str, ...], ema: bool, mesh: jax.sharding.Mesh
) -> state.TrainState:
  """Shapes, types and shardings of the state."""
  shapes = jax.eval_shape(
    _creator(job, tx, frozen=frozen, ema=ema), rng.key(0, "init"), dict(job.start)
  )
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
    shapes,
    rules.shardings(shapes, mesh),
  )


def initial_state(
  job: TrainJob, tx, *, frozen: tuple[str, ...], ema: bool, seed: int, mesh: jax.sharding.Mesh
) -> state.TrainState:
  """The state at step 0, made sharded under jit, with the job's given parts (a pretrained encoder)
  in place.
  """
  create, key = _creator(job, tx, frozen=frozen, ema=ema), rng.key(seed, "init")
  start = jax.tree.map(np.asarray, dict(job.start))
  shapes = jax.eval_shape(create, key, start)
  return jax.jit(create, out_shardings=rules.shardings(shapes, mesh))(key, start)


def begun(job: TrainJob, current: state.TrainState) -> state.TrainState:
  """The state of a new run with what the job measures on its data in place, in the averaged weights
  too.

  Raises:
    errors.UserError: the data do not allow it.
  """
  if job.begin is None:
    return current
  params = _replicated_params(current.params)
  parts = distributed.broadcast_arrays_from_primary(
    distributed.run_on_all_processes(lambda: job.begin(params))
  )
  flat = trees.flatten(parts)

  def put(tree):
    if tree is None:
      return None
    leaves = trees.flatten(tree)
    for name in flat.keys() & leaves.keys():
      old = leaves[name]  # jit makes an array of its own, as the state is donated
      leaves[name] = jax.jit(lambda x, old=old: x.astype(old.dtype), out_shardings=old.sharding)(
        flat[name]
      )
    return trees.unflatten(leaves)

  return dataclasses.replace(current, params=put(current.params), ema=put(current.ema))


def _creator(job: TrainJob, tx, *, frozen: tuple[str, ...], ema: bool) -> Callable:
  return lambda key, start: state.create(
    {**job.model.init(key), **start}, tx, frozen=frozen, ema=ema
  )


def encoder_weights(path: str, *, model: Any) -> dict[str, Any]:
  """{"encoder": parameters} from a weights folder or run directory, refitted to the image size; {}
  for "" (random).

  "bundled" is the shipped tiny encoder. `model` is the record it is for.

  Raises:
    errors.UserError: there is no encoder in it, or one of another size.
  """
  if not path:
    return {}
  folder = BUNDLED_ENCODER if path == "bundled" else pathlib.Path(path)
  params, given = checkpoint.load(folder)
  if "encoder" not in params:
    raise errors.UserError(
      f"encoder weights {str(folder)!r} hold no encoder, only: {', '.join(params)}"
    )
  epsilon = given.get(
    "layer_norm_epsilon", given.get("model", {}).get("encoder", {}).get("epsilon")
  )
  section = model.config["encoder"]
  if epsilon is not None and epsilon != section["epsilon"]:
    raise errors.UserError(
      f"encoder weights {str(folder)!r} were trained with a LayerNorm epsilon of {epsilon}, the "
      f"config has {section['epsilon']}: give --config.model.encoder.epsilon={epsilon}"
    )
  encoder = params["encoder"]
  if {"patch/kernel", "position"} <= set(trees.flatten(encoder)):
    encoder = mae_vit.refit_positions(encoder, model.config["image_size"])
  expected = jax.eval_shape(model.init, rng.key(0, "init"))["encoder"]
  return {"encoder": trees.merge(expected, encoder, what=f"encoder weights {str(folder)!r}")}
