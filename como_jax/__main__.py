"""`python -m como_jax` is the command `como-jax`: a task, or the flags of `como_jax.main`."""

import sys

from como_jax import interrupt

interrupt.prepare(__name__)
if __name__ == "__main__":
  from como_jax import cli

  interrupt.exit_with(cli.main(sys.argv))
