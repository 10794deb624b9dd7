"""The one entry point: `python -m como_jax.main --config=configs/NAME.py[:ARGUMENT] [--config.key=value ...] [--workdir DIR]`.

Exit codes: 0 done, 2 bad input (one line on stderr, nothing written), 143 stopped by SIGTERM or SIGINT after saving
(run again with --resume), 1 anything else.
"""

import os
import sys
import warnings

from como_jax import config as config_lib
from como_jax import errors


def main(argv: list[str] | None = None) -> int:
  """Parses the command line and runs the config's task; returns the exit code."""
  try:
    command = config_lib.parse(sys.argv if argv is None else argv)
    _quiet_start()
    from como_jax import tasks  # after the environment is set: this imports jax
    return tasks.run(command)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except errors.NonFinite as error:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _quiet_start() -> None:
  """Settings that must precede the import of jax."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
  warnings.formatwarning = lambda message, *unused, **more: f"warning: {message}\n"


if __name__ == "__main__":
  sys.exit(main())
