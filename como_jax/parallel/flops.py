"""Floating-point operations of a program, counted in its trace.

Matrix products and convolutions count; a multiply-add is 2 operations. Nothing is compiled, and the
result does not depend on the machine. Loops count with all iterations, and recomputation (remat)
counts as often as it is traced. Operations that no result depends on do not count, because XLA
removes them. cuDNN's fused attention counts as the products that XLA's attention would do, so a
trace for a GPU counts what one for a CPU does, but for the tokens that cuDNN is padded with.
"""

import math
from typing import Any

from jax.extend import core


def count(closed: core.ClosedJaxpr) -> float:
  """Counts the operations of one call, over all devices.

  Args:
    closed: `jax.jit(f).trace(...).jaxpr` or `jax.make_jaxpr(f)(...)`.
  """
  return _walk(closed.jaxpr, (True,) * len(closed.jaxpr.outvars))[0]


def _walk(jaxpr: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """Counts the operations that the live results depend on.

  Args:
    jaxpr: the program.
    live: for each result, whether it is used.

  Returns:
    (operations, for each input whether a live result depends on it).
  """
  needed = {
    var for var, alive in zip(jaxpr.outvars, live, strict=False) if alive and _is_variable(var)
  }
  total = 0.0
  for equation in reversed(jaxpr.eqns):
    outs = tuple(var in needed for var in equation.outvars)
    if not any(outs) and not equation.effects:
      continue
    operations, used = _RULES.get(equation.primitive.name, _call)(equation, outs)
    total += operations
    needed.update(
      var for var, alive in zip(equation.invars, used, strict=False) if alive and _is_variable(var)
    )
  return total, tuple(var in needed for var in jaxpr.invars)


def _is_variable(var: Any) -> bool:
  return not isinstance(var, core.Literal)


def _all_inputs(equation: Any) -> tuple[bool, ...]:
  return (True,) * len(equation.invars)


def _dot(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  (contracted, _), _ = equation.params["dimension_numbers"]
  shape = equation.invars[0].aval.shape
  return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(
    shape[axis] for axis in contracted
  ), _all_inputs(equation)


def _convolution(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  out_features = equation.params["dimension_numbers"].rhs_spec[0]
  kernel = [side for axis, side in enumerate(equation.invars[1].aval.shape) if axis != out_features]
  return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel), _all_inputs(equation)


def _scan(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  body, length = equation.params["jaxpr"].jaxpr, equation.params["length"]
  # Not all versions of jax have these numbers as parameters. What is scanned over or stacked has
  # one more axis outside the body.
  scanned, stacked = (
    sum(_rank(outer) > _rank(inner) for outer, inner in zip(*pairs, strict=True))
    for pairs in ((equation.invars, body.invars), (equation.outvars, body.outvars))
  )
  carried = len(body.outvars) - stacked
  constants = len(body.invars) - carried - scanned
  outs = live
  while True:  # a carry is live when a later iteration needs it
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


def _rank(var: Any) -> int:
  return len(var.aval.shape)


def _while(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """Counts one iteration, because the trace does not contain the number of iterations."""
  body = equation.params["body_jaxpr"].jaxpr
  return _walk(body, (True,) * len(body.outvars))[0], _all_inputs(equation)


def _branches(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """Counts the most expensive branch."""
  branches = [_walk(branch.jaxpr, live) for branch in equation.params["branches"]]
  used = tuple(any(flags) for flags in zip(*(flags for _, flags in branches), strict=False))
  return max(operations for operations, _ in branches), (True, *used)


def _kernel(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """Counts the body of a Pallas kernel once per point of its grid.

  The body writes into references and has no results.
  """
  return math.prod(equation.params["grid_mapping"].grid) * _walk(equation.params["jaxpr"], ())[
    0
  ], _all_inputs(equation)


def _fused_attention(products: int) -> Any:
  """The rule of cuDNN's attention: so many products of queries, or scores, with keys or values.

  Two forward, four backward: the scores that the kernel computes again are not counted, as XLA
  keeps them.
  """

  def rule(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
    query, key = (var.aval.shape for var in equation.invars[:2])
    tokens = 2 if equation.params["layout"] else 1  # [B, H, N, d], or [B, N, H, d]
    return 2.0 * products * math.prod(query) * key[tokens], _all_inputs(equation)

  return rule


def _shard_map(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """Counts the program of one device (`jax.shard_map`), times the number of devices."""
  operations, used = _call(equation, live)
  return equation.params["mesh"].size * operations, used


def _call(equation: Any, live: tuple[bool, ...]) -> tuple[float, tuple[bool, ...]]:
  """Counts the inner function of jit, remat and custom derivatives; other equations count 0."""
  for value in equation.params.values():
    inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
    if isinstance(inner, core.Jaxpr):
      if len(inner.outvars) != len(equation.outvars):
        continue
      operations, used = _walk(inner, live)
      return operations, used if len(used) == len(equation.invars) else _all_inputs(equation)
  return 0.0, _all_inputs(equation)


_RULES = {
  "dot_general": _dot,
  "conv_general_dilated": _convolution,
  "scan": _scan,
  "while": _while,
  "cond": _branches,
  "pallas_call": _kernel,
  "shard_map": _shard_map,
  "dot_product_attention_fwd_wrapper": _fused_attention(2),
  "dot_product_attention_bwd_wrapper": _fused_attention(4),
}
