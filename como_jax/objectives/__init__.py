"""Objectives: pure functions from a model's outputs to {term: (sum, count)}.

`OBJECTIVES` is the table of the names that a config uses.
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

# name -> fn(outputs, batch, *, settings...). The weight of an objective multiplies the term of the
# same name.
OBJECTIVES: dict[str, Callable[..., terms.Terms]] = {
  "reconstruction": reconstruction.reconstruction,
  "contrastive": contrastive.contrastive,
  "quantization": quantization.quantization,
  "kl": kl.kl,
  "features": features.features,
  "mae": mae.mae,
  "perceptual": perceptual.perceptual,
}

# Further terms that they return; these have no weight and are only logged.
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

# Objectives that read only drawn pairs: name -> fn(batch, key, *, settings...), which returns the
# batch that the model reads. Its settings are the objective's.
DRAWS: dict[str, Callable[..., Mapping[str, jax.Array]]] = {"contrastive": contrastive.draw}

# Objectives with a pretrained network: name -> loader(weights_path). The other settings go to the
# function.
LOADERS: dict[str, Callable[[str], dict[str, Any]]] = {"perceptual": perceptual.load}


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
  """All objectives of a run.

  Attributes:
    functions: name -> fn(outputs, batch) or, for those in `constants`, fn(outputs, batch,
      weights=...).
    weights: term -> weight in the loss; None: it is only logged (`train.step.StepOptions`).
    constants: name -> arrays that an objective needs (a pretrained network). Pass them to the
      compiled step as an argument, and from there to `__call__`. If the step captured them, they
      would be compiled into the program as literals.
    draws: name -> fn(batch, key), of those that read only drawn pairs (see `DRAWS`).
  """

  functions: dict[str, Callable[..., terms.Terms]]
  weights: dict[str, float | None]
  constants: dict[str, dict[str, Any]]
  draws: dict[str, Callable[..., Mapping[str, jax.Array]]] = dataclasses.field(default_factory=dict)

  def draw(self, batch: Mapping[str, jax.Array], key: jax.Array) -> Mapping[str, jax.Array]:
    """The batch that the model and the objectives read in a step, with what is drawn in it.

    Args:
      batch: the batch.
      key: of the step.
    """
    for function in self.draws.values():
      batch = function(batch, key)
    return batch

  def __call__(
    self,
    outputs: Mapping[str, jax.Array],
    batch: Mapping[str, jax.Array],
    constants: Mapping[str, Any] | None = None,
  ) -> terms.Terms:
    """Computes all terms: {term: (sum, count)}, float32 scalars.

    Args:
      outputs: outputs of the model.
      batch: the batch.
      constants: as the attribute; None: the attribute itself.
    """
    constants = self.constants if constants is None else constants
    result: terms.Terms = {}
    for name, function in self.functions.items():
      kwargs = {"weights": constants[name]} if name in self.constants else {}
      result.update(function(outputs, batch, **kwargs))
    return result

  def remarks(self) -> list[str]:
    """What these objectives leave out of the method, a line each."""
    if "perceptual" in self.functions:
      return []
    return ["perceptual loss: off (config.objectives.perceptual.weights_path is empty)"]


def model_loss(model: Any, objective: Objective) -> Callable[..., terms.Terms]:
  """The loss of a model that is trained with these objectives, for `train.step.TrainStep`.

  Args:
    model: has `forward(params, batch, *, key)`.
    objective: of the run.

  Returns:
    (params, batch, key, constants=None) -> terms; `constants` as for `Objective`.
  """

  def loss(
    params: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    key: jax.Array,
    constants: Mapping[str, Any] | None = None,
  ) -> terms.Terms:
    batch = objective.draw(batch, key)
    return objective(model.forward(params, batch, key=key), batch, constants)

  return loss


def active(config: Any) -> dict[str, dict[str, Any]]:
  """The objectives with a weight; one with weight 0 is off and costs nothing.

  Args:
    config: section `objectives` of a motion model.
  """
  return {name: dict(settings) for name, settings in config.items() if settings["weight"] != 0}


def build(config: Any) -> Objective:
  """Builds the objectives of a config section.

  Args:
    config: {name: {"weight": w, settings...}}; with None or {}, an objective is off.

  Raises:
    errors.UserError: an unknown objective or setting, a missing or negative weight, a missing file.
  """
  if hasattr(config, "to_dict"):
    config = config.to_dict()
  functions, weights, constants, draws = {}, {}, {}, {}
  for name, settings in config.items():
    if name not in OBJECTIVES:
      raise errors.UserError(
        f"unknown objective objectives.{name}; {errors.nearest(name, OBJECTIVES)}"
      )
    if not settings:
      continue
    settings = dict(settings)
    own = _settings(OBJECTIVES[name])
    of_draw = _settings(DRAWS[name]) if name in DRAWS else []
    valid = [key for key in own + of_draw if not (name in LOADERS and key == "weights")]
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
    if name in DRAWS:
      chosen = {key: settings.pop(key) for key in of_draw if key in settings}
      draws[name] = functools.partial(DRAWS[name], **chosen)
    functions[name] = functools.partial(OBJECTIVES[name], **settings)
    weights |= {name: weight, **dict.fromkeys(LOGGED.get(name, ()))}
  return Objective(functions, weights, constants, draws)


def _settings(function: Callable) -> list[str]:
  """The keys of a function's settings: its arguments that are given by name only."""
  return [
    key
    for key, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
  ]
