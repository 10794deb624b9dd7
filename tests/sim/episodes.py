"""Episodes of the toy simulator."""

from como_jax.sim import vector


def job(number=0, **changes):
  return vector.Job(**{"number": number, "task": "line", "seed": 10 * number, **changes})
