"""Calls of Linen modules whose parameters are an argument."""

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

import flax.linen as nn

Params = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


def apply(function: Callable[P, T], params: Params, /, *args: P.args, **kwargs: P.kwargs) -> T:
  """What a module or one of its methods returns with the parameters `params`, with its type.

  `nn.Module.apply` can also return changed variables. No module here has any, so the types can say
  more than Flax's own.

  Args:
    function: a module (its `__call__` is run) or a method of one; not bound to variables.
    params: the module's parameters, as from `module.init(...)["params"]`.
    *args: of the function.
    **kwargs: of the function.

  Raises:
    TypeError: the function belongs to no module.
  """
  module = getattr(function, "__self__", function)
  if not isinstance(module, nn.Module):
    raise TypeError(f"expected a Linen module or a method of one, got {function!r}")
  method = None if module is function else function
  return cast(T, module.apply({"params": params}, *args, method=method, **kwargs))
