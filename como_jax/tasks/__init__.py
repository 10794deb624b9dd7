"""Everything that `--config` can run, one file a task: `run(command) -> exit code`."""

import importlib
import os
import pathlib

import jax
from absl import flags

from como_jax import commands, errors, interrupt
from como_jax import config as config_lib
from como_jax.assembly import config_checks
from como_jax.parallel import devices, distributed
from como_jax.settings import paths
from como_jax.train import atomic, lock, memory, store_run

TASKS = commands.named("task")
# tasks that several processes can run together
MULTI_PROCESS_TASKS = tuple(name for name in TASKS if commands.COMMANDS[name].several)


def run(command: config_lib.CommandLine) -> int:
  """Runs the task that the config names, once its settings and folders are known to be possible.

  Raises:
    errors.UserError: for an unknown task, a name that no table has, a folder that cannot be
      written; nothing has been written.
  """
  name: str = getattr(command.config, "task", "")
  if name not in TASKS:
    raise errors.SharedUserError(
      f"config.task={name!r} is unknown: {errors.nearest(str(name), TASKS)}"
    )
  if (
    jax.distributed.is_initialized() and jax.process_count() > 1 and name not in MULTI_PROCESS_TASKS
  ):
    raise errors.SharedUserError(
      f"task {name!r} runs in one process, this is one of {jax.process_count()}: only "
      f"{', '.join(MULTI_PROCESS_TASKS)} run in several"
    )
  if command.address and jax.distributed.is_initialized() and jax.process_count() > 1:
    raise errors.SharedUserError(
      f"--workdir={command.address}: a run of {jax.process_count()} processes needs a directory on "
      "a shared file system"
    )
  if command.address and (command.config.get("shared") or command.config.get("runner")):
    key = "shared" if command.config.get("shared") else "runner"
    raise errors.UserError(
      f"--workdir={command.address}: processes of config.{key} need a directory on a shared file "
      "system"
    )
  try:
    paths.local("COMO_JAX_CACHE", os.environ.get("COMO_JAX_CACHE", ""))
    config_checks.check(command.config)
    config_checks.places(command)
  except errors.SharedUserError:
    raise
  except errors.UserError as error:  # every process of a run finds the same
    raise errors.SharedUserError(str(error)) from error
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags in its workers
  # a second run of the same program starts in seconds
  if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update(
      "jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "como_jax" / "xla")
    )
  devices.check(command.expect)
  if name in MULTI_PROCESS_TASKS:
    print(f"devices: {devices.describe()}")
  task = importlib.import_module(f"como_jax.tasks.{name}")
  interrupt.as_exception()
  advice = memory.ADVICE if "train" in command.config else memory.ADVICE_ELSE
  with (
    store_run.opened(command.address, resume=command.resume),
    lock.owning(),
    distributed.peers(),
    memory.explained(advice),
    atomic.explained(command.workdir),
  ):
    return task.run(command)
