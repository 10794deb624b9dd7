"""From a task's job to a finished run directory."""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from como_jax import config as config_lib
from como_jax import trees
from como_jax.parallel import distributed, uncached
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpointer as checkpointer_lib
from como_jax.train import (
  config_changes,
  data_identity,
  export,
  goodput,
  job,
  log,
  loop,
  meter,
  observed,
  optimizer,
  profile,
  reading,
  resume,
  rundir,
  saved_step,
  signals,
  state,
  step,
  step_clock,
  utilization,
  watchdog,
)
from como_jax.train.job import TrainJob


@dataclasses.dataclass(frozen=True)
class _Prepared:
  """What stands before anything is written.

  Attributes:
    mesh: of all devices.
    job: of the task.
    tx: the optimizer.
    rate: step -> learning rate.
    frozen: patterns of the parameters that are not trained.
    data: identity of the data sets, see `data_identity.record`; [] but in process 0.
    changed: lines about data that changed since the run was started.
  """

  mesh: jax.sharding.Mesh
  job: TrainJob
  tx: optax.GradientTransformation
  rate: optax.Schedule
  frozen: tuple[str, ...]
  data: list[dict[str, Any]]
  changed: list[str]


def fit(command: config_lib.CommandLine, make: Callable[[], TrainJob]) -> int:
  """Runs a training task; returns the exit code.

  The run directory is checked first and written only after the job has been made and its step
  compiled, so that bad input, and a run that cannot fit into memory, leave nothing behind. Where
  several processes run it, all prepare together and process 0 alone writes, but for the
  checkpoints.
  """
  section, begin, flags = command.config.train, time.monotonic(), _flags(command)
  seen = observed.Observed(step_clock.StepClock(age=goodput.age(command.words)))
  signals.ignore_profile()  # the loop takes it; before that it would end the process
  distributed.assert_same_on_all(
    "\n".join([config_lib.to_json(command.config), str(command.workdir), str(flags)]),
    what="the command line",
  )
  reading.cores()  # here, where all processes come
  done, old_rate = distributed.run_on_all_processes(lambda: _look(command))
  if done := distributed.broadcast_from_primary(done):
    print(done)
    return 0
  prepared = distributed.run_on_all_processes(lambda: _prepare(command, make))
  shapes = job.state_shapes(
    prepared.job, prepared.tx, frozen=prepared.frozen, ema=section.ema > 0, mesh=prepared.mesh
  )
  train_step = _train_step(command.config, prepared, shapes)
  if section.compiled_step:
    distributed.run_on_all_processes(
      lambda: _use_saved_step(command.config, prepared, train_step, shapes)
    )
  distributed.run_on_all_processes(
    lambda: job.check_memory(train_step, shapes, prepared.job, section, prepared.mesh)
  )
  distributed.run_on_all_processes(lambda: _open_directory(command, prepared), first_alone=True)
  checkpointer = checkpointer_lib.Checkpointer(
    command.workdir, keep=section.keep_checkpoints, frozen=prepared.frozen
  )
  current = _initial_state(command, prepared, checkpointer, seen.clock)
  _observe(seen, command, prepared, shapes, step=int(current.step))
  try:
    writer = _open_log(command, prepared, current, old_rate)
    if seen.utilization.remark:
      writer.say(seen.utilization.remark)
    outcome = _train(command, prepared, train_step, current, writer, checkpointer, seen)
    if not outcome.stopped:
      with seen.clock.section(step_clock.SAVE):
        _export(command, prepared, outcome, seconds=time.monotonic() - begin)
  finally:
    seen.close()
  if seen.ledger:
    print(goodput.text(seen.ledger.summary()))
  return loop.EXIT_SIGNALED if outcome.stopped else 0


def _observe(
  seen: observed.Observed,
  command: config_lib.CommandLine,
  prepared: _Prepared,
  shapes: state.TrainState,
  *,
  step: int,
) -> None:
  """Opens the ledger in process 0, and counts the useful operations of a step."""
  if distributed.is_primary():
    seen.ledger = goodput.Ledger(command.workdir, seen.clock, step=step)
  loss = prepared.job.useful_loss or prepared.job.loss
  useful = dataclasses.replace(prepared, job=dataclasses.replace(prepared.job, loss=loss))
  batch = job.batch_shapes(prepared.job, prepared.mesh)
  seen.utilization = utilization.Utilization(
    lambda: _train_step(command.config, useful, shapes).trace(shapes, batch),
    list(prepared.mesh.local_devices),
    count=prepared.mesh.size,
  )


def _export(
  command: config_lib.CommandLine, prepared: _Prepared, outcome: loop.TrainResult, *, seconds: float
) -> None:
  """Writes the weights in process 0, which all gather."""
  primary = distributed.is_primary()
  final = distributed.gather(state.weights(outcome.state, frozen=prepared.frozen), keep=primary)
  if primary:
    export.export(
      command, outcome, final, unit=prepared.job.unit, files=prepared.job.files, seconds=seconds
    )


def _flags(command: config_lib.CommandLine) -> dict[str, bool]:
  return {"resume": command.resume, "overwrite": command.overwrite}


def _look(command: config_lib.CommandLine) -> tuple[str, Callable[[int], Any] | None]:
  """(what to say of a run that is done, the learning rates that a resumed run had)."""
  config, workdir, primary = command.config, command.workdir, distributed.is_primary()
  if primary:
    rundir.check(workdir, config, **_flags(command))
  if config.train.wandb:
    log.check_wandb()
  if not (primary and command.resume):
    return "", None
  config_changes.changes(workdir, config)  # what is refused is refused before anything is compiled
  return resume.done_already(workdir, config.train.steps), resume.rate_before(workdir)


def _prepare(command: config_lib.CommandLine, make: Callable[[], TrainJob]) -> _Prepared:
  """Makes the job, and compares its data with those of a resumed run."""
  config, section, primary = command.config, command.config.train, distributed.is_primary()
  mesh = mesh_lib.make(**section.mesh)
  mesh_lib.check_batch(mesh, section.batch_size, accumulate=section.accumulate)
  made = make()
  data = data_identity.record(config, made.data) if primary else []
  changed = []
  if primary and command.resume:
    accept = section.accept_changed_data
    changed = data_identity.check(command.workdir, data, accept=accept)
  tx, rate = optimizer.from_section(section)
  frozen = tuple(made.model.frozen if section.frozen is None else section.frozen)
  return _Prepared(mesh, made, tx, rate, frozen, data, changed)


def _train_step(config, prepared: _Prepared, shapes: state.TrainState) -> step.TrainStep:
  section, job_ = config.train, prepared.job
  options = step.StepOptions(
    weights=job_.weights,
    frozen=prepared.frozen,
    seed=config.seed,
    num_microbatches=section.accumulate,
    ema_decay=section.ema,
    lr_schedule=prepared.rate,
  )
  return step.TrainStep(
    job_.loss, prepared.tx, options, mesh=prepared.mesh, state=shapes, constants=job_.constants
  )


def _use_saved_step(
  config, prepared: _Prepared, train_step: step.TrainStep, shapes: state.TrainState
) -> None:
  """Loads the compiled step; where there is none for this run, compiles it and leaves it there."""
  path = pathlib.Path(config.train.compiled_step)
  batch, begin = job.batch_shapes(prepared.job, prepared.mesh), time.monotonic()
  arguments = (shapes, batch, train_step.constants)
  known = saved_step.identity(config, prepared.mesh, arguments)
  try:
    train_step.use(saved_step.load(path, known, arguments))
    said = f"loaded in {time.monotonic() - begin:.1f} s"
  except saved_step.Unusable as error:
    begin = time.monotonic()
    with uncached.compiling():
      compiled = train_step.compile(shapes, batch)
    train_step.use(compiled)
    said = f"{error}: compiled in {time.monotonic() - begin:.1f} s"
    if distributed.is_primary():
      names = sorted(jax.tree.unflatten(compiled.out_tree, [0] * compiled.out_tree.num_leaves)[1])
      said += saved_step.try_save(path, compiled, known, names)
  if distributed.is_primary():
    print(f"compiled step {path}: {said}")


def _open_directory(command: config_lib.CommandLine, prepared: _Prepared) -> None:
  """Writes the run directory in process 0; the others see that it is there."""
  if not distributed.is_primary():
    rundir.join(command.workdir, command.config)
    return
  files = {**prepared.job.files, data_identity.FILE: data_identity.text(prepared.data)}
  rundir.open_run(command.workdir, command.config, **_flags(command), files=files)
  for line in prepared.changed:
    print(line)


def _initial_state(
  command: config_lib.CommandLine,
  prepared: _Prepared,
  checkpointer: checkpointer_lib.Checkpointer,
  clock: step_clock.StepClock,
) -> state.TrainState:
  """The state of a new run, or the newest one of a resumed run."""
  current = job.initial_state(
    prepared.job,
    prepared.tx,
    frozen=prepared.frozen,
    ema=command.config.train.ema > 0,
    seed=command.config.seed,
    mesh=prepared.mesh,
  )
  restored = None
  if command.resume:
    with clock.section(step_clock.RESTORE):
      restored = checkpointer.restore(current, prepared.mesh)
  current = job.begun(prepared.job, current) if restored is None else restored
  if distributed.is_primary():
    rundir.write_parameters(command.workdir, current.params)
  return current


def _open_log(
  command: config_lib.CommandLine,
  prepared: _Prepared,
  current: state.TrainState,
  old_rate: Callable[[int], Any] | None,
) -> log.Log | log.NullLog:
  """Opens the log, and says what is trained on what."""
  section, start = command.config.train, int(current.step)
  writer = None
  if distributed.is_primary():
    writer = log.Log(
      command.workdir,
      steps=section.steps,
      start=start,
      tensorboard=section.tensorboard,
      wandb=section.wandb,
      name=command.name,
      config=command.config.to_dict(),
    )
  validated = json.loads(
    distributed.broadcast_from_primary(json.dumps(writer.validated if writer else []))
  )
  writer = writer or log.NullLog(validated)
  trainable = trees.split(current.params, prepared.frozen)[0]
  writer.say(
    f"{command.name}: {optimizer.count(current.params):,} parameters, "
    f"{optimizer.count(trainable):,} trainable; devices {rundir.hardware()['devices']}, mesh "
    f"{dict(prepared.mesh.shape)}, processes {jax.process_count()}; {prepared.job.read_options}; "
    f"step {start} of {section.steps}; {command.workdir}"
  )
  if old_rate:
    before, now = (float(np.asarray(rate(start))) for rate in (old_rate, prepared.rate))
    if not np.isclose(before, now, rtol=1e-4):
      writer.say(
        f"resume: the learning rate of step {start} was {before:.4g} and is now {now:.4g} "
        "(train.steps and train.optimizer decide the schedule)"
      )
  return writer


def _profile(
  command: config_lib.CommandLine, writer: log.Log | log.NullLog
) -> profile.Profile | None:
  """The profile that is asked for, of process 0 and its devices."""
  if not command.config.train.profile_steps:
    return None
  first, last = command.config.train.profile_steps
  folder, records = command.workdir / log.BOARD, distributed.is_primary()
  return profile.Profile(folder, first=first, last=last, say=writer.say, records=records)


def _say_anywhere(writer: log.Log | log.NullLog) -> Callable[[str], None]:
  """Prints a line in any process: only process 0 has a log, and prints to stdout."""
  if distributed.is_primary():
    return writer.say
  process = jax.process_index()
  return lambda text: print(f"process {process}: {text}", file=sys.stderr, flush=True)


def _watchdog(command: config_lib.CommandLine) -> watchdog.Watchdog:
  """What watches the steps of this process."""
  seconds, count = command.config.train.stall_seconds, jax.process_count()
  return watchdog.Watchdog(
    command.workdir,
    patience=watchdog.patience(seconds, count=count),
    process=jax.process_index(),
    count=count,
  )


def _train(
  command: config_lib.CommandLine,
  prepared: _Prepared,
  train_step: step.TrainStep,
  current: state.TrainState,
  writer: log.Log | log.NullLog,
  checkpointer: checkpointer_lib.Checkpointer,
  seen: observed.Observed,
) -> loop.TrainResult:
  """Runs the loop, and closes what it was given."""
  section, made = command.config.train, prepared.job
  profiled = _profile(command, writer)

  # A sample holds more than the loss reads: with all of it, the program would be another than the
  # one compiled above.
  def used(batch):
    return {name: batch[name] for name in made.batch}

  def evaluate(now):
    assert made.evaluate is not None
    params = state.weights(now, frozen=prepared.frozen)
    return made.evaluate(params if made.evaluate_together else job.replicated(params))

  schedule = loop.Schedule(
    section.steps, section.log_every, section.checkpoint_every, section.evaluate_every
  )
  advice = meter.advice(**dataclasses.asdict(made.read_options))
  throughput = loop.Throughput(made.examples_per_step, made.unit, advice)
  train_loop = loop.TrainLoop(
    train_step,
    schedule,
    throughput,
    writer,
    checkpointer,
    evaluate if made.evaluate else None,
    profile=profiled,
    watchdog=_watchdog(command),
    observed=seen,
    profile_now=lambda first, last: profile.Profile(
      command.workdir / log.BOARD, first=first, last=last, say=_say_anywhere(writer)
    ),
  )
  batches = made.batches(int(current.step))
  lost = False  # another process: then nothing here can be ended in order, Orbax would wait for it
  try:
    return train_loop.run(current, map(used, batches))
  except Exception as error:
    lost = distributed.lost_process(error)
    raise
  finally:
    if profiled:
      profiled.close()
    if not lost:
      batches.close()
      writer.close()
      checkpointer.close()
