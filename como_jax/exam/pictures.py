"""The pictures of an exam set as arrays, and the pairs of them of which the exam asks latents.

Legend: V views of three pictures, P = 2V pairs, H W pixels, N patches, D width of the encoder, Z
latent width.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from como_jax.exam import exam_set

PICTURES = "pictures.mp4"
# The pairs of pictures of a view whose latents the exam uses.
PAIRS = ((0, 1), (1, 2), (1, 0), (2, 1), (0, 2), (0, 0))
# Shift of both pictures of a pair, as share of the side, to test whether z depends on the location.
SHIFT = 1 / 16
CORNERS = ((0, 0), (0, 2), (2, 0), (2, 2))

# values of the first picture, values of the second picture -> latent
Between = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Pictures(NamedTuple):
  """The pictures of a set and their tokens from a frozen encoder.

  Attributes:
    frames: uint8 [V, 3, H, W, 3], at the size of the encoder.
    whole: the same pictures, as they are stored.
    tokens: tokens of the patches, float16 [V, 3, N, D].
    table: arrays of the set (`exam.npz`).
    shifted: tokens of the shifted frames (see `shifted`), float16 [V, 2, N, D]; None: not computed.
  """

  frames: np.ndarray
  whole: np.ndarray
  tokens: np.ndarray
  table: dict[str, np.ndarray]
  shifted: np.ndarray | None = None

  @property
  def fit(self) -> np.ndarray:
    """The pairs on which probes are fitted, bool [P]."""
    return self.of_pairs("part") == exam_set.FIT

  @property
  def fit_sample(self) -> np.ndarray:
    """Indices of fewer than 8,000 of these pairs, evenly spaced, for principal components."""
    return np.flatnonzero(self.fit)[:: max(1, int(self.fit.sum()) // 4_000)]

  def of_pairs(self, name: str) -> np.ndarray:
    """A column of the views, repeated for each pair [P]."""
    return np.repeat(self.table[name], 2)

  @staticmethod
  def first(values: np.ndarray) -> np.ndarray:
    """Values of the first picture of each pair: [V, 3, ...] -> [P, ...]."""
    return values[:, :2].reshape(-1, *values.shape[2:])

  @staticmethod
  def second(values: np.ndarray) -> np.ndarray:
    """Values of the second picture of each pair: [V, 3, ...] -> [P, ...]."""
    return values[:, 1:].reshape(-1, *values.shape[2:])


def latents(
  between: Between, values: np.ndarray, shifted: np.ndarray | None = None
) -> dict[str, np.ndarray]:
  """All latents of the exam for a latent that is a function of the values of two pictures.

  Args:
    between: the function.
    values: values of each picture [V, 3, ...].
    shifted: values of the first two pictures, shifted [V, 2, ...]; None: not known.

  Returns:
    See `by_name`.
  """
  z = [between(values[:, first], values[:, second]) for first, second in PAIRS]
  return by_name(z if shifted is None else [*z, between(shifted[:, 0], shifted[:, 1])])


def by_name(z: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
  """Gives latents their names in the exam.

  Args:
    z: latents [V, Z] of each of `PAIRS` (or only of the first two), then if present those of
      pictures 0 -> 1 shifted.

  Returns:
    "z" and "z_ba" [P, Z], of the pairs and of the reversed pairs; "z_ac" [V, Z], of pictures
    0 -> 2; "z_aa" [V, Z], of picture 0 and itself; "z_shifted" [V, Z], of pictures 0 -> 1 shifted.
  """

  def pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=1).reshape(-1, first.shape[1])

  result = {"z": pairs(*z[:2])}
  if len(z) > 2:
    result |= {"z_ba": pairs(*z[2:4]), "z_ac": z[4], "z_aa": z[5]}
  return result | dict(zip(("z_shifted",), z[6:], strict=False))


def shifted(frames: np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
  """Shifts pictures 0 and 1 of each view by the same pixels: [V, 3, H, W, 3] -> [V, 2, H, W, 3].

  The shift is `SHIFT` of the side, at least one pixel, along both axes. Views are shifted toward
  the four corners in turn. Edges are repeated.

  Args:
    frames: [V, 3, H, W, 3].
    views: index of each view in the set, int [V]; None: `frames` has all views.
  """
  distance = max(1, round(SHIFT * frames.shape[2]))
  corner = (np.arange(len(frames)) if views is None else views) % len(CORNERS)
  result = np.empty_like(frames[:, :2])
  for index, (down, right) in enumerate(CORNERS):
    rows = corner == index
    padded = np.pad(
      frames[rows, :2],
      ((0, 0), (0, 0), (distance, distance), (distance, distance), (0, 0)),
      mode="edge",
    )
    result[rows] = padded[:, :, down * distance :, right * distance :][
      :, :, : frames.shape[2], : frames.shape[3]
    ]
  return result
