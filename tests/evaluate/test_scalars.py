"""Numbers of a result for logs."""

import dataclasses

import numpy as np

from como_jax import evaluate
from como_jax.evaluate import linear_probe
from tests.evaluate.linear_worlds import linear_world


def test_scalars_are_plain_floats():
  z, targets, episodes = linear_world()
  values = evaluate.scalars(linear_probe.probe(z, targets, episodes=episodes), "lp/")
  assert {"lp/mse", "lp/mse_raw", "lp/r2"} | {"lp/standard_error"} <= set(values)
  assert all(type(value) is float for value in values.values())


def test_scalars_leave_out_what_is_no_number():
  @dataclasses.dataclass
  class Result:
    a: int = 3
    b: float = 0.5
    c: bool = True
    d: object = dataclasses.field(default_factory=lambda: np.float32(2))
    e: str = "x"
    f: object = None
    g: object = dataclasses.field(default_factory=lambda: np.zeros(2))

  assert evaluate.scalars(Result()) == {"a": 3.0, "b": 0.5, "d": 2.0} and evaluate.scalars(
    Result(), "p/"
  ) == {"p/a": 3.0, "p/b": 0.5, "p/d": 2.0}
