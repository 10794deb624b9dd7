"""Light heads: what belongs to one robot, or to latent motion, and to nothing else.

Legend: B batch, N tokens of an example, A action dims (of the widest robot), S state dims (of the
widest robot).

A robot's head is everything under heads/<robot>, each part one linear layer: "encode" (noisy
actions to tokens), "decode" (tokens to actions) and "state" (state to a token). Latent motion has
"encode" and "decode" under heads/latent. A batch mixes robots: every robot's layer runs on the
whole batch, on its own first dims only, and each example keeps the result of its robot; the layers
are so small that this costs less than sorting. Another robot adds a head and changes no shape.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import config_utils, transformer

Params = Mapping[str, Any]
LATENT = "latent"


@dataclasses.dataclass(frozen=True)
class Heads:
  """The heads' shapes and functions; parameters are arguments.

  Attributes:
    shapes: {robot or "latent": {layer: (numbers in, numbers out)}}; robots in the order of
      `batch["robot"]`.
    zero: initializes "decode" with zeros, so that training starts at the mean of normalized
      targets.
    dtype: of matrix products, except that "decode" is always float32.
  """

  shapes: dict[str, dict[str, tuple[int, int]]]
  zero: tuple[str, ...] = ()
  dtype: Any = jnp.float32

  @property
  def robots(self) -> tuple[str, ...]:
    return tuple(name for name in self.shapes if name != LATENT)

  def init(self, key: jax.Array) -> dict[str, Any]:
    """{robot or "latent": {layer: {"kernel", "bias"}}}; a head's numbers depend on its name, not on
    the other heads.
    """
    params: dict[str, Any] = {}
    for name, layers in self.shapes.items():
      params[name] = {}
      head_key = jax.random.fold_in(key, sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**31)
      for number, (layer, (inputs, outputs)) in enumerate(sorted(layers.items())):
        zero = layer == "decode" and name in self.zero
        init = nn.initializers.zeros if zero else transformer.INITIALISERS["mae"]
        params[name][layer] = {
          "kernel": init(jax.random.fold_in(head_key, number), (inputs, outputs)),
          "bias": jnp.zeros((outputs,)),
        }
    return params

  def apply(self, params: Params, layer: str, x: jax.Array, robot: jax.Array | str) -> jax.Array:
    """A layer of the robots' heads.

    Args:
      params: as from `init`.
      layer: "encode", "decode" or "state".
      x: [B, ..., numbers in, of the widest robot].
      robot: int32 [B], or the name of the one robot or "latent" for all examples.

    Returns:
      [B, ..., numbers out]: zeros beyond a robot's own when robots are mixed; exactly the head's
        own for a name.
    """
    if isinstance(robot, str):
      return self._linear(params, robot, layer, x)
    chosen = [name for name in self.robots if layer in self.shapes[name]]
    widest = max(self.shapes[name][layer][1] for name in chosen)
    total = jnp.zeros((*x.shape[:-1], widest), jnp.float32 if layer == "decode" else self.dtype)
    for name in chosen:
      y = self._linear(params, name, layer, x)
      y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, widest - y.shape[-1])])
      mine = (robot == self.robots.index(name)).reshape((-1,) + (1,) * (y.ndim - 1))
      total = jnp.where(mine, y, total)
    return total

  def _linear(self, params: Params, name: str, layer: str, x: jax.Array) -> jax.Array:
    inputs, outputs = self.shapes[name][layer]
    dense = nn.Dense(outputs, dtype=jnp.float32 if layer == "decode" else self.dtype)
    return dense.apply({"params": params[name][layer]}, x[..., :inputs])


def check(robots: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
  """The robots of a config {name: {"action": dims, "state": dims}}, once they are known to be
  valid.

  Raises:
    errors.UserError: no robot, a name that cannot be one, a key that is not known, no action dims.
  """
  if not robots:
    raise errors.UserError(
      "model.robots is empty: a policy needs at least one robot {name: {'action': dims, "
      "'state': dims}}"
    )
  for name, sizes in robots.items():
    where = f"model.robots.{name}"
    if name == LATENT or not name or "/" in name:
      raise errors.UserError(
        f"{where}: a robot's name cannot be empty, contain '/' or be {LATENT!r}"
      )
    config_utils.check(sizes, where, required=("action", "state"))
    if sizes["action"] < 1 or sizes["state"] < 0:
      raise errors.UserError(
        f"{where}: action {sizes['action']} must be at least 1 and state {sizes['state']} at "
        "least 0"
      )
  return {name: dict(sizes) for name, sizes in robots.items()}
