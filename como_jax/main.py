"""The one entry point: `python -m como_jax.main --config=configs/NAME.py[:ARGUMENT] [--config.key=value ...] [--workdir DIR]`.

Exit codes: 0 done, 2 bad input (one line on stderr, nothing written), 143 stopped by SIGTERM or SIGINT after saving
(run again with --resume), 75 the other processes did not come (the same command, or --resume, may work later), 1 anything else.
Several processes: see parallel/distributed.py and launch/local_processes.py.
"""

import contextlib
import ctypes
import os
import sys
import traceback
import warnings

from como_jax import config as config_lib
from como_jax import errors


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and runs the config's task; returns the exit code."""
  try:
    command = config_lib.parse(sys.argv if argv is None else argv)
    _quiet_start()
    from como_jax import tasks  # after the environment is set: this imports jax
    from como_jax.parallel import distributed
    if distributed.initialise(detect=command.distributed):
      return _one_of_several(command)
    return tasks.run(command)
  except (errors.UserError, errors.Transient, errors.NonFinite) as error:
    print(f"error: {error}", file=sys.stderr)
    return error.code


def _one_of_several(command: config_lib.CommandLine) -> int:
  """The task in one process of a run of several: only process 0 prints, and one that fails alone leaves at once."""
  from como_jax import tasks
  from como_jax.parallel import distributed
  with contextlib.ExitStack() as stack:
    if not distributed.is_first():
      stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
    try:
      code = tasks.run(command)
      distributed.wait_for_all()
      return code
    except (errors.Shared, errors.NonFinite):  # the same in every process
      raise
    except (errors.UserError, errors.Transient) as error:
      print(f"error: {error}", file=sys.stderr)
      distributed.leave(error.code)
    except Exception:  # the others wait for this process in a collective: an orderly exit would wait for them
      traceback.print_exc()
      distributed.leave(1)


def keep_memory() -> None:
  """Lets glibc keep what it frees, on hosts without an accelerator: XLA's CPU backend gives its buffers back after every step, and fresh
  pages cost the small motion model a quarter of its time. To be called before numpy and jax start threads: a thread with an arena of its own
  maps large buffers afresh. MALLOC_* variables that are set have the last word; other C libraries are left alone."""
  accelerator = any(os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/accel0", "/dev/vfio/0"))
  if accelerator or sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  for parameter, value in ((-8, 1), (-4, 0), (-1, -1), (-2, 2**28)) if mallopt else ():  # ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD, TOP_PAD
    mallopt(parameter, value)


def _quiet_start() -> None:
  """Settings that must precede the import of jax."""
  keep_memory()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
  warnings.formatwarning = lambda message, *unused, **more: f"warning: {message}\n"


if __name__ == "__main__":
  sys.exit(main())
