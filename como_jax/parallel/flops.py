"""Floating-point operations of a program, counted in its trace: matrix products and convolutions, 2
for a multiply-add.

Nothing is compiled and nothing depends on the machine. Loops count with all their turns,
recomputation (remat) counts as often as it is traced, and what no result depends on does not count,
as XLA drops it.
"""

import math
from typing import Any

from jax.extend import core


def count(closed: core.ClosedJaxpr) -> float:
  """Operations of one call, over all devices; of `jax.jit(f).trace(...).jaxpr` or
  `jax.make_jaxpr(f)(...)`.
  """
  return _walk(closed.jaxpr, (True,) * len(closed.jaxpr.outvars))[0]


def _walk(jaxpr: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """(operations, which inputs matter) of a program of whose results only the live ones matter."""
  needed = {var for var, alive in zip(jaxpr.outvars, live, strict=False) if alive and _named(var)}
  total = 0.0
  for equation in reversed(jaxpr.eqns):
    outs = tuple(var in needed for var in equation.outvars)
    if not any(outs) and not equation.effects:
      continue
    operations, used = _RULES.get(equation.primitive.name, _call)(equation, outs)
    total += operations
    needed.update(
      var for var, alive in zip(equation.invars, used, strict=False) if alive and _named(var)
    )
  return total, tuple(var in needed for var in jaxpr.invars)


def _named(var: Any) -> bool:
  return not isinstance(var, core.Literal)


def _everything(equation: Any) -> tuple[bool, ...]:
  return (True,) * len(equation.invars)


def _dot(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  (contracted, _), _ = equation.params["dimension_numbers"]
  shape = equation.invars[0].aval.shape
  return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(
    shape[axis] for axis in contracted
  ), _everything(equation)


def _convolution(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  out_features = equation.params["dimension_numbers"].rhs_spec[0]
  kernel = [side for axis, side in enumerate(equation.invars[1].aval.shape) if axis != out_features]
  return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel), _everything(equation)


def _scan(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  body, length = equation.params["jaxpr"].jaxpr, equation.params["length"]
  constants, carried = equation.params["num_consts"], equation.params["num_carry"]
  outs = live
  while True:  # a carry matters when a later turn needs it
    operations, used = _walk(body, outs)
    wider = (
      tuple(
        a or b for a, b in zip(outs[:carried], used[constants : constants + carried], strict=False)
      )
      + outs[carried:]
    )
    if wider == outs:
      return length * operations, used
    outs = wider


def _while(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """One turn: how many there will be is not known before it runs."""
  body = equation.params["body_jaxpr"].jaxpr
  return _walk(body, (True,) * len(body.outvars))[0], _everything(equation)


def _branches(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """The most expensive branch."""
  walked = [_walk(branch.jaxpr, live) for branch in equation.params["branches"]]
  used = tuple(any(flags) for flags in zip(*(flags for _, flags in walked), strict=False))
  return max(operations for operations, _ in walked), (True, *used)


def _kernel(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """A Pallas kernel: its body at every point of its grid.

  It writes into references and has no results of its own.
  """
  return math.prod(equation.params["grid_mapping"].grid) * _walk(equation.params["jaxpr"], ())[
    0
  ], _everything(equation)


def _everywhere(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """What each device does with its part (`jax.shard_map`), on all of them."""
  operations, used = _call(equation, live)
  return equation.params["mesh"].size * operations, used


def _call(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """A function inside (jit, remat, custom derivatives); anything else costs nothing."""
  for value in equation.params.values():
    inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
    if isinstance(inner, core.Jaxpr):
      if len(inner.outvars) != len(equation.outvars):
        continue
      operations, used = _walk(inner, live)
      return operations, used if len(used) == len(equation.invars) else _everything(equation)
  return 0.0, _everything(equation)


_RULES = {
  "dot_general": _dot,
  "conv_general_dilated": _convolution,
  "scan": _scan,
  "while": _while,
  "cond": _branches,
  "pallas_call": _kernel,
  "shard_map": _everywhere,
}
