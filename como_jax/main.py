"""The one entry point: `python -m como_jax.main --config=configs/NAME.py[:ARGUMENT] [--config.key=value ...] [--workdir DIR]`.

Exit codes: 0 done, 2 bad input (one line on stderr, nothing written), 143 stopped by SIGTERM or SIGINT after saving
(run again with --resume), 1 anything else. Several processes: see parallel/distributed.py and launch/local_processes.py.
"""

import contextlib
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
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except errors.NonFinite as error:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _one_of_several(command: config_lib.CommandLine) -> int:
  """The task in one process of a run of several: only process 0 prints, and one that fails alone leaves at once."""
  from como_jax import tasks
  from como_jax.parallel import distributed
  with contextlib.ExitStack() as stack:
    if not distributed.is_first():
      stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
    try:
      return tasks.run(command)
    except (errors.Shared, errors.NonFinite):  # the same in every process
      raise
    except errors.UserError as error:
      print(f"error: {error}", file=sys.stderr)
      distributed.leave(2)
    except Exception:  # the others wait for this process in a collective: an orderly exit would wait for them
      traceback.print_exc()
      distributed.leave(1)


def _quiet_start() -> None:
  """Settings that must precede the import of jax."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
  warnings.formatwarning = lambda message, *unused, **more: f"warning: {message}\n"


if __name__ == "__main__":
  sys.exit(main())
