"""Objectives: pure functions from a model's outputs to {term: (sum, count)}, and the table a config
names them by.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from como_jax import errors
from como_jax.objectives import (
  contrastive,
  features,
  kl,
  mae,
  perceptual,
  quantization,
  reconstruction,
  terms,
)

# name -> fn(outputs, batch, *, settings...). The term called like the objective is what its weight
# multiplies.
OBJECTIVES: dict[str, Callable[..., terms.Terms]] = {
  "reconstruction": reconstruction.reconstruction,
  "contrastive": contrastive.contrastive,
  "quantization": quantization.quantization,
  "kl": kl.kl,
  "features": features.features,
  "mae": mae.mae,
  "perceptual": perceptual.perceptual,
}

# What they return beside their own term, to be logged: it has no weight.
LOGGED: dict[str, tuple[str, ...]] = {
  "reconstruction": ("copy_current",),
  "contrastive": (
    "contrastive_gated",
    "similarity_jittered_forward",
    "similarity_jittered_reversed",
    "similarity_forward_reversed",
  ),
  "quantization": ("codebook", "commitment"),
}

# Objectives with large weights of their own: name -> loader(weights_path). The rest of the settings
# go to the function.
LOADERS: dict[str, Callable[[str], dict[str, Any]]] = {"perceptual": perceptual.load}


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
  """All objectives of a run.

  Attributes:
    functions: name -> fn(outputs, batch) or, for those in `constants`, fn(outputs, batch,
      weights=...).
    weights: every term -> its weight in the loss; None: it is only logged (see
      `train.step.StepOptions`).
    constants: name -> arrays an objective needs (a pretrained network). Hand them to the compiled
      step as an argument and pass them on to `__call__`; captured by the step they would be
      compiled into the program as literals.
  """

  functions: dict[str, Callable[..., terms.Terms]]
  weights: dict[str, float | None]
  constants: dict[str, dict[str, Any]]

  def __call__(
    self,
    outputs: Mapping[str, jax.Array],
    batch: Mapping[str, jax.Array],
    constants: Mapping[str, Any] | None = None,
  ) -> terms.Terms:
    """All terms, {term: (sum, count)}, float32 scalars.

    `constants` defaults to the objective's own.
    """
    constants = self.constants if constants is None else constants
    result: terms.Terms = {}
    for name, function in self.functions.items():
      extra = {"weights": constants[name]} if name in self.constants else {}
      result.update(function(outputs, batch, **extra))
    return result


def build(config: Any) -> Objective:
  """Objectives of a config section {name: {"weight": w, settings...}}; `None` or {} for a name
  turns it off.

  Raises:
    errors.UserError: an unknown objective or setting, a missing or negative weight, a missing file.
  """
  if hasattr(config, "to_dict"):
    config = config.to_dict()
  functions, weights, constants = {}, {}, {}
  for name, settings in config.items():
    if name not in OBJECTIVES:
      raise errors.UserError(
        f"unknown objective objectives.{name}; {errors.nearest(name, OBJECTIVES)}"
      )
    if not settings:
      continue
    settings = dict(settings)
    valid = [
      key
      for key, parameter in inspect.signature(OBJECTIVES[name]).parameters.items()
      if parameter.kind is inspect.Parameter.KEYWORD_ONLY
      and not (name in LOADERS and key == "weights")
    ]
    valid += ["weight"] + (["weights_path"] if name in LOADERS else [])
    for key in settings:
      if key not in valid:
        raise errors.UserError(f"unknown key objectives.{name}.{key}; {errors.nearest(key, valid)}")
    if "weight" not in settings or settings["weight"] < 0:
      raise errors.UserError(f"objectives.{name}.weight must be given and not negative")
    weight = float(settings.pop("weight"))
    if name in LOADERS:
      constants[name] = LOADERS[name](settings.pop("weights_path", ""))
      if not constants[name]:  # no weights given: off
        del constants[name]
        continue
    functions[name] = functools.partial(OBJECTIVES[name], **settings)
    weights |= {name: weight, **dict.fromkeys(LOGGED.get(name, ()))}
  return Objective(functions, weights, constants)
