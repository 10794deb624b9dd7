"""Checks of the observations that a policy acts on.

Legend: H W image, S state dims.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax import errors, observations
from como_jax.data import video
from como_jax.observations import IMAGE, STATE, TASK, Observation
from como_jax.serve import client_schemas

MAX_ASPECT = 16  # maximum ratio of the sides of an image that is cropped


def image(observation: Observation, camera: str, geometry: video.Geometry) -> np.ndarray:
  """The image of a camera, scaled and cropped for the model.

  Args:
    observation: the observation.
    camera: its name.
    geometry: of the model's images.

  Raises:
    errors.UserError: no such camera, or an image of another type or shape.
  """
  if IMAGE + camera not in observation:
    raise errors.UserError(
      f"the observation has no camera {camera!r}: "
      f"{errors.nearest(camera, observations.cameras(observation))}"
    )
  pixels = np.asarray(observation[IMAGE + camera])
  if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3 or not pixels.size:
    raise errors.UserError(
      f"camera {camera!r} gives {pixels.dtype} {list(pixels.shape)}, expected uint8 [H, W, 3]"
    )
  height, width, _ = pixels.shape
  # it is scaled before it is cropped
  if geometry.mode == "crop" and max(height, width) > MAX_ASPECT * min(height, width):
    raise errors.UserError(
      f"camera {camera!r} gives {list(pixels.shape)}: one side is more than {MAX_ASPECT} "
      "times the other"
    )
  return geometry.apply(pixels)


def state(observation: Observation, size: int) -> np.ndarray:
  """The state, float32 [S].

  Args:
    observation: the observation.
    size: S.

  Raises:
    errors.UserError: no state, another size, or values that are not finite.
  """
  if STATE not in observation:
    raise errors.UserError(
      f"the observation has no {STATE!r} [{size}]; it has: {', '.join(map(str, observation))}"
    )
  values = np.asarray(observation[STATE])
  if values.shape != (size,) or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
    raise errors.UserError(
      f"{STATE} is {values.dtype} {list(values.shape)}, expected {size} finite numbers"
    )
  return values.astype(np.float32)


def text(observation: Observation, instructions: Mapping[str, Any]) -> str:
  """The instruction; "" if there is none and none is needed.

  Args:
    observation: the observation.
    instructions: of the training data, see `client_schemas.wants_instruction`.

  Raises:
    errors.UserError: it is not a text, or it is needed and missing.
  """
  instruction = observation.get(TASK, "")
  if not isinstance(instruction, str):
    raise errors.UserError(f"{TASK!r} is a {type(instruction).__name__}, expected a text")
  if not instruction.strip() and (reason := client_schemas.wants_instruction(instructions)):
    raise errors.UserError(f"the observation has no {TASK!r}: {reason}")
  return instruction
