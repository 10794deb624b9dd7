"""`python -m como_jax` is `python -m como_jax.main`."""

import sys

from como_jax import main

if __name__ == "__main__":
  sys.exit(main.main())
