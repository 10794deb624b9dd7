"""`python -m como_jax` is `python -m como_jax.main`."""

from como_jax import interrupt

interrupt.prepare(__name__)
if __name__ == "__main__":
  from como_jax import main

  interrupt.leave(main.main())
