"""The one row of a policy's inputs: training, rollouts and serving build it here.

Legend: T history, C camera slots, H W image, S state (of the widest robot), L language tokens, E
their width.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from como_jax import errors
from como_jax.data import value_transforms

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class RowBuilder:
  """Sizes and units that all rows of a policy share.

  Attributes:
    robots: names in the order of their numbers.
    history: T, observations of one row.
    num_cameras: C, camera slots.
    image_size: H = W.
    state_size: S, what every robot's state is padded to.
    state_transforms: robot -> from its units to normalized numbers; robots without a state may be
      absent.
  """

  robots: tuple[str, ...]
  history: int
  num_cameras: int
  image_size: int
  state_size: int
  state_transforms: Mapping[str, Sequence[value_transforms.ValueTransform]]

  def pad_history(self, observations: Sequence[Item]) -> list[Item]:
    """T observations, oldest first; the oldest stands in for those before it.

    Raises:
      errors.UserError: there is none, or more than T.
    """
    if not 1 <= len(observations) <= self.history:
      raise errors.UserError(
        f"a history of {len(observations)} observations, expected 1 to {self.history}"
      )
    return [observations[0]] * (self.history - len(observations)) + list(observations)

  def non_image_inputs(
    self, robot: str, state: np.ndarray | None, language: tuple[np.ndarray, np.ndarray]
  ) -> dict[str, Any]:
    """All of a row but its images.

    Args:
      robot: "" where the data have none (video).
      state: float32 [at most S] in the robot's units, None where there is none.
      language: tokens [L, E] and mask [L] of the instruction.

    Returns:
      state [S] normalized and padded with 0, state_mask, robot (its number), language,
      language_mask.
    """
    padded = np.zeros(self.state_size, np.float32)
    if state is not None:
      padded[: len(state)] = value_transforms.apply(self.state_transforms[robot], state)
    tokens, mask = language
    return {
      "state": padded,
      "state_mask": np.bool_(state is not None),
      "robot": np.int32(self.robots.index(robot) if robot else 0),
      "language": tokens,
      "language_mask": mask,
    }

  def images(self, slots: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    """The images of a row.

    Args:
      slots: frames uint8 [T, H, W, 3] of each camera slot, None where the slot is empty; slots that
        are not given are empty.

    Returns:
      images uint8 [T, C, H, W, 3], images_mask bool [C].
    """
    size = self.image_size
    images = np.zeros((self.history, self.num_cameras, size, size, 3), np.uint8)
    mask = np.zeros(self.num_cameras, bool)
    for slot, frames in enumerate(slots):
      if frames is not None:
        images[:, slot], mask[slot] = frames, True
    return {"images": images, "images_mask": mask}
