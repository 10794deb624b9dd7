"""Latents without a motion model: cheats, which the exam must detect, and baselines.

Legend: V views of three pictures, P = 2V pairs, N patches, D width of the encoder, Z latent width.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from scipy.sparse import linalg

from como_jax.models.motion import flow
from como_jax.tasks import exam_pictures
from como_jax.tasks.exam_pictures import Pictures, batched

# Widths of latents of principal components, and of the wide random map.
COMPONENTS, WIDE = 32, 1024
_FAINTEST = 1e-4  # share of the largest singular value below which a direction is left out
CHEATS = (
  "first picture",
  "future picture",
  "true second pose",
  "wide random map of both",
  "time",
  "scene",
  "camera",
  "task",
  "flow magnitude",
  "random numbers",
  "episode",
  "swapped future",
)
BASELINES = (
  "components of the difference",
  "components of the optical flow",
  "supervised inverse model",
  "true displacement",
)
# Baselines that use labels.
LABELED = ("supervised inverse model", "true displacement")

# The pairs of pictures of a view whose latents the exam uses.
PAIRS = ((0, 1), (1, 2), (1, 0), (2, 1), (0, 2), (0, 0))

# values of the first picture, values of the second picture -> latent
Between = Callable[[np.ndarray, np.ndarray], np.ndarray]


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

  def pairs(first, second):
    return np.stack([first, second], axis=1).reshape(-1, first.shape[1])

  result = {"z": pairs(*z[:2])}
  if len(z) > 2:
    result |= {"z_ba": pairs(*z[2:4]), "z_ac": z[4], "z_aa": z[5]}
  return result | dict(zip(("z_shifted",), z[6:], strict=False))


def components(fit: np.ndarray, count: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns the projection on the principal components of fit.

  Directions that hold only rounding errors are left out.

  Args:
    fit: [n, K].
    count: maximum number of components.

  Returns:
    A function [m, K] -> [m, at most count].
  """
  mean = fit.mean(axis=0)
  centered = fit - mean
  _, values, vectors = linalg.svds(
    centered, k=min(count, min(centered.shape) - 1), v0=np.ones(min(centered.shape), centered.dtype)
  )
  chosen = vectors[np.argsort(-values)[: int((values > _FAINTEST * values.max()).sum())]].T
  return lambda new: (new - mean) @ chosen


def build(pictures: Pictures, *, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
  """Builds the latents of all rows, `CHEATS` and `BASELINES`: {row: latents}.

  Rows that are not a function of two pictures have only "z". Those of the optical flow have "z" and
  "z_shifted".
  """
  rng = np.random.default_rng([seed, 41])
  fit, views = pictures.fit, len(pictures.frames)
  tokens = pictures.tokens.reshape(views, 3, -1).astype(np.float32)
  shifted = (
    None if pictures.shifted is None else pictures.shifted.reshape(views, 2, -1).astype(np.float32)
  )
  first, second = pictures.first(tokens), pictures.second(tokens)
  chosen = np.flatnonzero(fit)[:: max(1, int(fit.sum()) // 4_000)]
  picture_components = components(first[chosen], COMPONENTS)
  difference = components((second - first)[chosen], COMPONENTS)
  random_map = (
    rng.normal(size=(2 * tokens.shape[-1], WIDE)) / np.sqrt(2 * tokens.shape[-1])
  ).astype(np.float32)
  mean, scale = tokens[:, 0].mean(axis=0), tokens[:, 0].std() + 1e-6

  def random_features(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.tanh(
      2 * np.concatenate([(a - mean) / scale, (b - mean) / scale], axis=-1) @ random_map
    )

  cells = moved_cells(pictures.first(pictures.frames), pictures.second(pictures.frames))
  shifted_cells = moved_cells(*exam_pictures.shifted(pictures.frames).swapaxes(0, 1))

  def direction(cells):
    return cells.reshape(len(cells), -1)

  def size(cells):
    return direction(np.linalg.norm(cells, axis=-1))

  flow_components, size_components = (
    components(read(cells)[chosen], COMPONENTS) for read in (direction, size)
  )
  swapped = second[_others(pictures, rng)]
  episode = rng.normal(size=(int(pictures.table["chain"].max()) + 1, COMPONENTS))
  step = np.tile([0, 1], views)
  rows = {
    "first picture": latents(lambda a, b: picture_components(a), tokens, shifted),
    "future picture": latents(lambda a, b: picture_components(b), tokens, shifted),
    "true second pose": {"z": pictures.table["state/second"]},
    "wide random map of both": latents(random_features, tokens, shifted),
    "time": {"z": np.stack([step, 1 - step], axis=1).astype(np.float32)},
    "scene": {"z": _one_hot(pictures.of_pairs("scene"))},
    "camera": {"z": _one_hot(pictures.of_pairs("camera"))},
    "task": {"z": _one_hot(pictures.of_pairs("objects"))},
    "flow magnitude": {
      "z": size_components(size(cells)),
      "z_shifted": size_components(size(shifted_cells)),
    },
    "random numbers": {"z": rng.normal(size=(2 * views, COMPONENTS))},
    "episode": {"z": episode[pictures.of_pairs("chain")]},
    "swapped future": {"z": difference(swapped - first)},
    "components of the difference": latents(lambda a, b: difference(b - a), tokens, shifted),
    "components of the optical flow": {
      "z": flow_components(direction(cells)),
      "z_shifted": flow_components(direction(shifted_cells)),
    },
    "supervised inverse model": {"z": pictures.table["inverse_model"]},
    "true displacement": {"z": pictures.table["target"].astype(np.float64)},
  }
  assert tuple(rows) == CHEATS + BASELINES
  return rows


def moved_cells(
  first: np.ndarray, second: np.ndarray, *, size: int = 4, batch_size: int = 256
) -> np.ndarray:
  """Optical flow between pictures, averaged over square cells.

  Args:
    first: uint8 [P, H, W, 3].
    second: uint8 [P, H, W, 3].
    size: side of a cell in pixels.
    batch_size: pairs of a batch.

  Returns:
    [P, H / size, W / size, 2].
  """
  side = first.shape[1] // size
  cells_of = batched(
    jax.jit(lambda first, second: flow.cells(flow.flow(first / 255, second / 255), side)),
    batch_size,
  )
  return cells_of(first, second).reshape(-1, side, side, 2)


def _one_hot(labels: np.ndarray) -> np.ndarray:
  names, index = np.unique(labels, return_inverse=True)
  return np.eye(len(names), dtype=np.float32)[index]


def _others(pictures: Pictures, rng: np.random.Generator) -> np.ndarray:
  """For each pair, a pair of another chain: int [P].

  It is of the same camera and scene if possible.
  """
  camera, scene, chain = (pictures.of_pairs(name) for name in ("camera", "scene", "chain"))
  order = np.lexsort((rng.permutation(len(chain)), chain, scene, camera))
  partner = np.empty(len(chain), int)
  for position, row in enumerate(order):
    after = np.roll(order, -position - 1)
    partner[row] = after[np.argmax(chain[after] != chain[row])]
  same_view = (camera[partner] == camera) & (scene[partner] == scene)
  # For the last pair of a camera and scene, take their first pair of another chain, if any.
  for row in np.flatnonzero(~same_view):
    candidates = np.flatnonzero(
      (camera == camera[row]) & (scene == scene[row]) & (chain != chain[row])
    )
    partner[row] = candidates[0] if len(candidates) else partner[row]
  return partner
