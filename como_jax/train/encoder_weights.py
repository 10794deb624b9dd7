"""The encoder that training starts from."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from como_jax import errors, trees
from como_jax.models.backbones import mae_vit
from como_jax.train import checkpoint, rng

BUNDLED = pathlib.Path(__file__).parent.parent / "assets" / "mae_debug"


def load(path: str, *, model: Any) -> dict[str, Any]:
  """The encoder of a weights folder or run directory, refitted to the image size.

  Args:
    path: of it; "bundled" is the shipped tiny encoder, "" a random one.
    model: that it is for.

  Returns:
    {"encoder": parameters}; {} for "".

  Raises:
    errors.UserError: there is no encoder in it, or one of another size.
  """
  if not path:
    return {}
  folder = BUNDLED if path == "bundled" else path
  params, given = checkpoint.load(folder)
  if "encoder" not in params:
    raise errors.UserError(
      f"encoder weights {str(folder)!r} hold no encoder, only: {', '.join(params)}"
    )
  epsilon = given.get(
    "layer_norm_epsilon", given.get("model", {}).get("encoder", {}).get("epsilon")
  )
  section = model.config["encoder"]
  if epsilon is not None and epsilon != section["epsilon"]:
    raise errors.UserError(
      f"encoder weights {str(folder)!r} were trained with a LayerNorm epsilon of {epsilon}, the "
      f"config has {section['epsilon']}: give --config.model.encoder.epsilon={epsilon}"
    )
  encoder = params["encoder"]
  if {"patch/kernel", "position"} <= set(trees.flatten(encoder)):
    encoder = mae_vit.refit_positions(encoder, model.config["image_size"])
  expected = jax.eval_shape(model.init, rng.key(0, "init"))["encoder"]
  return {"encoder": trees.merge(expected, encoder, what=f"encoder weights {str(folder)!r}")}


def remarks(start: Mapping[str, Any]) -> list[str]:
  """What a motion model's encoder leaves out of the method, a line each.

  Args:
    start: parts of the parameters that are given.
  """
  if "encoder" in start:
    return []
  return [
    'encoder: random and frozen, which is not CoMo; set config.encoder_weights ("bundled", or a '
    "converted or pretrained MAE)"
  ]
