"""The one entry point: `python -m como_jax --config=NAME[:VARIANT] ...`; --help says more.

Exit codes:
  0    done
  1    a full disk, too little memory (one line), or a fault of the program (traceback)
  2    bad input: one line on stderr, nothing written
  3    a loss that is not finite: a restart would end in the same way
  75   temporary (processes that did not connect or were lost, a network that did not answer, a step
       that did not end): the command, or --resume, may work later
  130  Ctrl-C before there was anything to save: one line says which command to run again
  134  the cause of 75, where JAX aborts the process itself
  141  the output has no reader any more, as after `| head`: nothing is said
  143  SIGTERM or Ctrl-C during training: saved, run again with --resume

Several processes: see parallel/startup.py and launch/local_processes.py.
"""

import contextlib
import errno
import io
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Sequence

from como_jax import commands, errors, interrupt

PROGRAM = ("python", "-m", "como_jax")  # in the command that a message says to run
_BEGIN = time.time()
# of a path that cannot be used
_PATH_ERRNOS = (
  errno.EACCES,
  errno.EPERM,
  errno.EROFS,
  errno.ENOTDIR,
  errno.EISDIR,
  errno.ENAMETOOLONG,
  errno.ELOOP,
)

interrupt.prepare(__name__)


def main(argv: list[str] | None = None, *, task: str = "", program: Sequence[str] = PROGRAM) -> int:
  """Parses the command line and runs the config's task; returns the exit code.

  Args:
    argv: the program's name and its flags; None = this process's.
    task: that the config must be for; "" = any.
    program: how the program was called, for messages that say what to run.
  """
  words = sys.argv if argv is None else argv
  command = None
  try:
    if isinstance(sys.stdout, io.TextIOWrapper):  # not what a notebook or a test puts there
      # flush every line, in a file or a pipe too
      sys.stdout.reconfigure(line_buffering=True)
    from como_jax import config as config_lib

    try:
      command = config_lib.parse(words)
    except config_lib.Help as help_text:
      print(help_text)
      return 0
    if task and command.config.task != task:
      raise errors.UserError(
        f"config {command.name!r} is for the task {command.config.task!r}, not {task!r}: "
        f"{' '.join(program)} {command.config.task} --config=... runs it"
      )
    interrupt.set_message(resume_hint(command, program))
    _quiet_start()
    from como_jax import tasks  # after the environment is set: this imports jax
    from como_jax.parallel import startup

    if startup.initialize(detect=command.distributed):
      return _one_of_several(command, program)
    return tasks.run(command)
  except (errors.UserError, errors.TransientError, errors.RunError) as error:
    print(_one_line(error), file=sys.stderr)
    return error.code
  except KeyboardInterrupt:
    interrupt.restore()
    print("\n" + resume_hint(command, program), file=sys.stderr)
    return interrupt.CODE
  except OSError as error:
    if interrupt.is_unread(error):
      return interrupt.PIPE_CODE
    if not _is_unusable_path(error, command):
      raise
    print(f"error: {_unusable_path_message(error)}", file=sys.stderr)
    return errors.UserError.code


def _one_of_several(command, program: Sequence[str]) -> int:
  """The task in one process of a run of several.

  Only process 0 prints. Some failures are the same in every process (`errors.SharedUserError`,
  `errors.NonFiniteError`): all end in order. After any other one this process exits at once,
  because the others would wait for it.
  """
  from como_jax import tasks
  from como_jax.parallel import distributed

  with contextlib.ExitStack() as stack:
    if not distributed.is_primary():
      stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
    try:
      code = tasks.run(command)
      distributed.wait_for_all()
      return code
    except (
      errors.SharedUserError,
      errors.NonFiniteError,
    ):  # every process raises it, and `main` prints it
      raise
    except (errors.UserError, errors.TransientError, errors.RunError) as error:
      print(_one_line(error), file=sys.stderr)
      distributed.exit_immediately(error.code)
    except KeyboardInterrupt:
      if distributed.is_primary():
        print("\n" + resume_hint(command, program), file=sys.stderr)
      distributed.exit_immediately(interrupt.CODE)
    except Exception as error:
      # the others wait for this process in a collective: an orderly exit would wait for them
      if interrupt.is_unread(error):
        distributed.exit_immediately(interrupt.PIPE_CODE)
      if isinstance(error, OSError) and _is_unusable_path(error, command):
        print(f"error: {_unusable_path_message(error)}", file=sys.stderr)
        distributed.exit_immediately(errors.UserError.code)
      traceback.print_exc()
      distributed.exit_immediately(1)


def resume_hint(command, program: Sequence[str]) -> str:
  """The line after Ctrl-C: that it stopped, and which command resumes.

  Args:
    command: `config.CommandLine`, or None where it came before the command line was read.
    program: how it was called.
  """
  if command is None or command.config.task == "serve":
    return "stopped by Ctrl-C"
  words = list(command.words)
  # of a task that goes on in its workdir, or begins anew there
  resume_flag = commands.COMMANDS.get(command.config.task, commands.Command()).again
  config_file = command.workdir / "config.json"
  # where this process has written it, there is a run to resume
  if resume_flag and config_file.is_file() and config_file.stat().st_mtime >= _BEGIN:
    words = [
      word for word in words if word.lstrip("-").partition("=")[0] not in ("resume", "overwrite")
    ] + [resume_flag]
  return (
    f"stopped by Ctrl-C: {'go on' if '--resume' in words else 'run it again'} with "
    + shlex.join([*program, *words])
  )


def _one_line(error: Exception) -> str:
  # a message may quote line breaks that a user typed
  return "error: " + " ".join(str(error).split())


def _is_unusable_path(error: OSError, command) -> bool:
  """Whether an error is about a path that the user gave and that cannot be used.

  True for the numbers of `_PATH_ERRNOS`, and for a path that is "not there" although the run makes
  it: the workdir, an output, or a folder above one of them (in /proc, for example). Any other
  missing file is a fault of the program.
  """
  if error.errno != errno.ENOENT or command is None:
    return bool(error.errno in _PATH_ERRNOS and error.filename)
  made_by_run = [
    str(command.workdir),
    *(str(command.config.get(key) or "") for key in ("output", "lerobot")),
  ]
  missing = os.path.abspath(os.fsdecode(error.filename)) if error.filename else ""
  return any(
    os.path.commonpath([missing, os.path.abspath(path)]) == missing
    for path in made_by_run
    if missing and path
  )


def _unusable_path_message(error: OSError) -> str:
  """The line for a file or folder that cannot be used."""
  return (
    f"{error.filename}: {os.strerror(error.errno or 0)}: choose another place (--workdir, or the "
    "key that names it)"
  )


def keep_memory() -> None:
  """Lets glibc keep what it frees, on hosts without an accelerator.

  XLA's CPU backend gives its buffers back after every step, and fresh pages cost the small motion
  model a quarter of its time. Call it before numpy and jax start threads: each thread would get an
  arena of its own, which gives large buffers back. Variables MALLOC_* of the user come first; other
  C libraries are left alone.
  """
  import ctypes

  accelerator = any(
    os.path.exists(device)
    for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio/0")
  )
  if (
    accelerator or sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ)
  ):
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return
  # ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD, TOP_PAD
  for parameter, value in ((-8, 1), (-4, 0), (-1, -1), (-2, 2**28)):
    mallopt(parameter, value)


def _quiet_start() -> None:
  """Settings that must precede the import of jax."""
  keep_memory()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
  warnings.formatwarning = lambda message, *unused, **more: f"warning: {message}\n"


if __name__ == "__main__":
  interrupt.exit_with(main())
