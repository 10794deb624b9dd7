"""Linear layers that belong to one robot, or to latent motion.

Legend: B batch, N tokens of an example, A action dims (of the widest robot), S state dims (of the
widest robot).

A robot's parameters lie under heads/<robot>, one linear layer each: "encode" (noisy actions to
tokens), "decode" (tokens to actions) and "state" (state to a token). Latent motion has "encode" and
"decode" under heads/latent. A batch mixes robots: every robot's layer runs on the whole batch, on
its own first dims only, and each example keeps the result of its robot. The layers are so small
that this costs less than sorting. A new robot adds layers and changes no shape.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import config_utils, modules, transformer
from como_jax.models.modules import Params

LATENT = "latent"


@dataclasses.dataclass(frozen=True)
class EmbodimentProjections:
  """The layers' shapes and functions; parameters are arguments.

  Attributes:
    shapes: {robot or "latent": {layer: (input size, output size)}}; robots in the order of
      `batch["robot"]`.
    zero: names whose "decode" is initialized with zeros, so that training starts at the mean of
      normalized targets.
    dtype: of matrix products, except that "decode" is always float32.
  """

  shapes: dict[str, dict[str, tuple[int, int]]]
  zero: tuple[str, ...] = ()
  dtype: Any = jnp.float32

  @property
  def robots(self) -> tuple[str, ...]:
    """Names of the robots, in the order of `batch["robot"]`."""
    return tuple(name for name in self.shapes if name != LATENT)

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters {robot or "latent": {layer: {"kernel", "bias"}}}, drawn with `key`.

    A robot's values depend on its name, not on the other robots.
    """
    params: dict[str, Any] = {}
    for name, layers in self.shapes.items():
      params[name] = {}
      robot_key = jax.random.fold_in(key, sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**31)
      for index, (layer, (inputs, outputs)) in enumerate(sorted(layers.items())):
        zero = layer == "decode" and name in self.zero
        init = nn.initializers.zeros if zero else transformer.INITIALIZERS["mae"]
        params[name][layer] = {
          "kernel": init(jax.random.fold_in(robot_key, index), (inputs, outputs)),
          "bias": jnp.zeros((outputs,)),
        }
    return params

  def apply(self, params: Params, layer: str, x: jax.Array, robot: jax.Array | str) -> jax.Array:
    """Applies a layer of each example's robot.

    Args:
      params: as from `init`.
      layer: "encode", "decode" or "state".
      x: [B, ..., input size of the widest robot].
      robot: int32 [B], or one name (a robot or "latent") for all examples.

    Returns:
      [B, ..., output size]: that of the named robot, or that of the widest robot with zeros beyond
      an example's own.
    """
    if isinstance(robot, str):
      return self._linear(params, robot, layer, x)
    chosen = [name for name in self.robots if layer in self.shapes[name]]
    widest = max(self.shapes[name][layer][1] for name in chosen)
    total = jnp.zeros((*x.shape[:-1], widest), jnp.float32 if layer == "decode" else self.dtype)
    for name in chosen:
      y = self._linear(params, name, layer, x)
      y = jnp.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, widest - y.shape[-1])])
      is_robot = (robot == self.robots.index(name)).reshape((-1,) + (1,) * (y.ndim - 1))
      total = jnp.where(is_robot, y, total)
    return total

  def _linear(self, params: Params, name: str, layer: str, x: jax.Array) -> jax.Array:
    inputs, outputs = self.shapes[name][layer]
    dense = nn.Dense(outputs, dtype=jnp.float32 if layer == "decode" else self.dtype)
    return modules.apply(dense, params[name][layer], x[..., :inputs])


def check(robots: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
  """A copy of the robots {name: {"action": dims, "state": dims}} of a config, after a check.

  Args:
    robots: the section model.robots.

  Raises:
    errors.UserError: no robot, an invalid name, an unknown key, no action dims.
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
