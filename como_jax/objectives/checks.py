"""Checks of the losses of a config against the objectives that exist and against its model."""

from collections.abc import Mapping
from typing import Any

from como_jax import errors, objectives
from como_jax.objectives import quantization

# Losses that only some motion models have: term -> (section, key, values with which the model has
# it).
TERMS = {
  "quantization": ("bottleneck", "kind", ("vq", "pre_vq")),
  "kl": ("bottleneck", "kind", ("kl",)),
  "features": ("fdm", "features", ("direct", "residual")),
}


def check(sections: Mapping[str, Any], model: Mapping[str, Any]) -> None:
  """Checks the losses of a motion model or an MAE.

  Args:
    sections: the section "objectives" of the config: name -> section with a weight.
    model: the section "model", with "kind".

  Raises:
    errors.UserError: an unknown loss or setting, a loss without a weight, one that the model does
      not have, or one that the model has and the config does not.
  """
  for name, section in sections.items():
    if name not in objectives.OBJECTIVES:
      raise errors.UserError(
        f"config.objectives has no {name!r}: {errors.nearest(name, objectives.OBJECTIVES)}"
      )
    _weighted(f"config.objectives.{name}", section)
  weights = {name: section["weight"] for name, section in sections.items()}
  for name, weight in weights.items():
    reason = _why_not(name, model)
    if weight and reason:
      raise errors.UserError(f"config.objectives.{name}.weight={weight:g}: {reason}")
  if model["kind"] == "motion":
    _trained_parts(weights, model)
  if "quantization" in sections:
    weighting = sections["quantization"].get("weighting", "legacy")
    valid = list(quantization.WEIGHTINGS)  # a list, since a value may have no hash
    if weighting not in valid:
      raise errors.UserError(
        f"config.objectives.quantization.weighting={weighting!r} is unknown: "
        f"{errors.nearest(str(weighting), valid)}"
      )
  # This finds unknown settings; the files of "weights_path" are read later.
  objectives.build(
    {
      name: {key: value for key, value in section.items() if key != "weights_path"}
      for name, section in sections.items()
    }
  )


def _weighted(name: str, section: Any) -> None:
  """Checks that the section of a loss has a weight.

  Args:
    name: of the section, for the message.
    section: the section.

  Raises:
    errors.UserError: it is no section, or its weight is no number.
  """
  if not hasattr(section, "keys"):
    raise errors.UserError(
      f"{name}={section!r}, expected a section with a weight: {{'weight': 1.0}}"
    )
  if type(section.get("weight")) not in (int, float):
    raise errors.UserError(
      f"{name}.weight is {section.get('weight')!r}, expected a number of at least 0"
    )


def _why_not(name: str, model: Mapping[str, Any]) -> str:
  """Why a model does not have a loss; "" if it has it."""
  kind = model["kind"]
  available = [other for other in objectives.OBJECTIVES if (other == "mae") == (kind == "mae")]
  if name not in available:
    return f"a model of kind {kind!r} has no such loss (its own: {', '.join(available)})"
  if name in TERMS:
    part, key, valid = TERMS[name]
    if model[part][key] not in valid:
      return f"it needs --config.model.{part}.{key}={' or '.join(valid)}"
  return ""


def _trained_parts(weights: Mapping[str, float], model: Mapping[str, Any]) -> None:
  """Refuses a motion model with a part that no loss would train."""
  for name, (part, key, valid) in TERMS.items():
    # a KL bottleneck also learns with the weight 0
    has_loss = weights.get(name) or (name == "kl" and name in weights)
    if model[part][key] in valid and not has_loss:
      raise errors.UserError(
        f"config.model.{part}.{key}={model[part][key]} has a loss without a weight, so "
        f"that part would never be trained: add --config.objectives=\"{{'{name}': {{'weight': "
        f'1.0}}}}"'
      )
