"""The one entry point: `python -m como_jax --config=NAME[:VARIANT] ...`; --help says more.

Exit codes: 0 done, 2 bad input (one line on stderr, nothing written), 130 stopped by Ctrl-C before
there was anything to save (the line says how to go on), 143 stopped by SIGTERM or SIGINT after
saving (run again with --resume), 75 the other processes did not come or were lost (the same
command, or --resume, may work later; 134 where the runtime aborts first), 1 anything else. Several
processes: see parallel/startup.py and launch/local_processes.py.
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

PROGRAM = ("python", "-m", "como_jax")  # of the line that says how to go on
_BEGIN = time.time()
_PLACES = (
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
    task: that the config has to be for; "" = any.
    program: how the program was called, for the line that says how to go on.
  """
  words, command = sys.argv if argv is None else argv, None
  if isinstance(sys.stdout, io.TextIOWrapper):  # not what a notebook or a test puts there
    # what is said is seen at once, in a file or a pipe too
    sys.stdout.reconfigure(line_buffering=True)
  try:
    from como_jax import config as config_lib

    try:
      command = config_lib.parse(words)
    except config_lib.Help as text:
      print(text)
      return 0
    if task and command.config.task != task:
      raise errors.UserError(
        f"config {command.name!r} is for the task {command.config.task!r}, not {task!r}: "
        f"{' '.join(program)} {command.config.task} --config=... runs it"
      )
    interrupt.say(how_to_go_on(command, program))
    _quiet_start()
    from como_jax import tasks  # after the environment is set: this imports jax
    from como_jax.parallel import startup

    if startup.initialize(detect=command.distributed):
      return _one_of_several(command, program)
    return tasks.run(command)
  except (errors.UserError, errors.Transient, errors.Failed) as error:
    print(_one_line(error), file=sys.stderr)
    return error.code
  except KeyboardInterrupt:
    interrupt.done()
    print("\n" + how_to_go_on(command, program), file=sys.stderr)
    return interrupt.CODE
  except OSError as error:
    if not _is_place(error, command):
      raise
    print(f"error: {_place(error)}", file=sys.stderr)
    return errors.UserError.code


def _one_of_several(command, program: Sequence[str]) -> int:
  """The task in one process of a run of several.

  Only process 0 prints, and a process that fails alone leaves at once.
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
    except (errors.Shared, errors.NonFinite):  # the same in every process
      raise
    except (errors.UserError, errors.Transient, errors.Failed) as error:
      print(_one_line(error), file=sys.stderr)
      distributed.exit_immediately(error.code)
    except KeyboardInterrupt:
      if distributed.is_primary():
        print("\n" + how_to_go_on(command, program), file=sys.stderr)
      distributed.exit_immediately(interrupt.CODE)
    except Exception as error:
      # the others wait for this process in a collective: an orderly exit would wait for them
      if isinstance(error, OSError) and _is_place(error, command):
        print(f"error: {_place(error)}", file=sys.stderr)
        distributed.exit_immediately(errors.UserError.code)
      traceback.print_exc()
      distributed.exit_immediately(1)


def how_to_go_on(command, program: Sequence[str]) -> str:
  """The line after Ctrl-C.

  Args:
    command: `config.CommandLine`, or None where it came before the command line was read.
    program: how it was called.
  """
  if command is None or command.config.task == "serve":
    return "stopped by Ctrl-C"
  words, flag, run = (
    list(command.words),
    commands.COMMANDS.get(command.config.task, commands.Command()).again,
    command.workdir / "config.json",
  )
  # this process has written it: there is something to go on with
  if flag and run.is_file() and run.stat().st_mtime >= _BEGIN:
    words = [
      word for word in words if word.lstrip("-").partition("=")[0] not in ("resume", "overwrite")
    ] + [flag]
  return (
    f"stopped by Ctrl-C: {'go on' if '--resume' in words else 'run it again'} with "
    + shlex.join([*program, *words])
  )


def _one_line(error: Exception) -> str:
  return "error: " + " ".join(str(error).split())  # whatever was typed


def _is_place(error: OSError, command) -> bool:
  """Whether a file or folder cannot be used where it is.

  The system says so, or a folder of the run, or above it, cannot be made (in /proc: "no such
  file"). Any other file that is missing is a fault of ours.
  """
  if error.errno != errno.ENOENT or command is None:
    return bool(error.errno in _PLACES and error.filename)
  made = [
    str(command.workdir),
    *(str(command.config.get(key) or "") for key in ("output", "lerobot")),
  ]
  missing = os.path.abspath(os.fsdecode(error.filename)) if error.filename else ""
  return any(
    os.path.commonpath([missing, os.path.abspath(path)]) == missing
    for path in made
    if missing and path
  )


def _place(error: OSError) -> str:
  """The line for a file or folder that cannot be used."""
  return (
    f"{error.filename}: {os.strerror(error.errno or 0)}: choose another place (--workdir, or the "
    "key that names it)"
  )


def keep_memory() -> None:
  """Lets glibc keep what it frees, on hosts without an accelerator.

  XLA's CPU backend gives its buffers back after every step, and fresh pages cost the small motion
  model a quarter of its time. To be called before numpy and jax start threads: a thread with an
  arena of its own maps large buffers afresh. MALLOC_* variables that are set have the last word;
  other C libraries are left alone.
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
  interrupt.leave(main())
