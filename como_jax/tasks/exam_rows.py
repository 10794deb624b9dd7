"""Latents that no motion model made: cheats, which an instrument must see through, and honest
baselines.

Legend: V views of three pictures, P = 2V pairs, N patches, D width of the encoder, Z numbers of a
latent.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from scipy.sparse import linalg

from como_jax.models.motion import flow
from como_jax.tasks import exam_pictures
from como_jax.tasks.exam_pictures import Pictures, batched

# numbers of a row made of principal components, and of the wide random map
COMPONENTS, WIDE = 32, 1024
_FAINTEST = 1e-4  # of the largest singular value
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
# those of the baselines that are made with the answer
LABELED = ("supervised inverse model", "true displacement")

# of a view's pictures: whose latents the exam reads
PAIRS = ((0, 1), (1, 2), (1, 0), (2, 1), (0, 2), (0, 0))

# numbers of the first and of the second picture -> latent
Between = Callable[[np.ndarray, np.ndarray], np.ndarray]


def latents(
  between: Between, values: np.ndarray, shifted: np.ndarray | None = None
) -> dict[str, np.ndarray]:
  """What the exam reads of a latent that is a function of two pictures' numbers [V, 3, ...], and of
  those of
  the first two shifted [V, 2, ...], where they are known: see `by_name`.
  """
  z = [between(values[:, first], values[:, second]) for first, second in PAIRS]
  return by_name(z if shifted is None else [*z, between(shifted[:, 0], shifted[:, 1])])


def by_name(z: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
  """Latents [V, Z] of each of `PAIRS`, or of the first two of them alone, as the exam reads them:
  "z" and "z_ba" [P, Z] of the pairs there and back, "z_ac" [V, Z] of pictures 0 -> 2, "z_aa" [V, Z]
  of picture 0 and itself; one more is "z_shifted" [V, Z], of pictures 0 -> 1 shifted.
  """

  def pairs(one, other):
    return np.stack([one, other], axis=1).reshape(-1, one.shape[1])

  found = {"z": pairs(*z[:2])}
  if len(z) > 2:
    found |= {"z_ba": pairs(*z[2:4]), "z_ac": z[4], "z_aa": z[5]}
  return found | dict(zip(("z_shifted",), z[6:], strict=False))


def components(fit: np.ndarray, count: int) -> Callable[[np.ndarray], np.ndarray]:
  """Projection [n, K] -> [n, at most count] onto the principal components of fit [n, K]; directions
  of rounding alone are left out.
  """
  mean = fit.mean(axis=0)
  centered = fit - mean
  _, values, vectors = linalg.svds(
    centered, k=min(count, min(centered.shape) - 1), v0=np.ones(min(centered.shape), centered.dtype)
  )
  chosen = vectors[np.argsort(-values)[: int((values > _FAINTEST * values.max()).sum())]].T
  return lambda new: (new - mean) @ chosen


def build(pictures: Pictures, *, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
  """{row: latents}, all of `CHEATS` and `BASELINES`.

  Rows that are no function of two pictures have "z" alone, those of the flow "z" and "z_shifted".
  """
  rng = np.random.default_rng([seed, 41])
  fit, views = pictures.fit, len(pictures.frames)
  tokens = pictures.tokens.reshape(views, 3, -1).astype(np.float32)
  shifted = (
    None if pictures.shifted is None else pictures.shifted.reshape(views, 2, -1).astype(np.float32)
  )
  first, second = pictures.first(tokens), pictures.second(tokens)
  chosen = np.flatnonzero(fit)[:: max(1, int(fit.sum()) // 4_000)]
  one = components(first[chosen], COMPONENTS)
  difference = components((second - first)[chosen], COMPONENTS)
  wide = (rng.normal(size=(2 * tokens.shape[-1], WIDE)) / np.sqrt(2 * tokens.shape[-1])).astype(
    np.float32
  )
  mean, scale = tokens[:, 0].mean(axis=0), tokens[:, 0].std() + 1e-6

  def both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.tanh(2 * np.concatenate([(a - mean) / scale, (b - mean) / scale], axis=-1) @ wide)

  cells = moved_cells(pictures.first(pictures.frames), pictures.second(pictures.frames))
  elsewhere = moved_cells(*exam_pictures.shifted(pictures.frames).swapaxes(0, 1))

  def direction(cells):
    return cells.reshape(len(cells), -1)

  def size(cells):
    return direction(np.linalg.norm(cells, axis=-1))

  along, magnitude = (components(read(cells)[chosen], COMPONENTS) for read in (direction, size))
  swapped = second[_others(pictures, rng)]
  episode = rng.normal(size=(int(pictures.table["chain"].max()) + 1, COMPONENTS))
  step = np.tile([0, 1], views)
  rows = {
    "first picture": latents(lambda a, b: one(a), tokens, shifted),
    "future picture": latents(lambda a, b: one(b), tokens, shifted),
    "true second pose": {"z": pictures.table["state/second"]},
    "wide random map of both": latents(both, tokens, shifted),
    "time": {"z": np.stack([step, 1 - step], axis=1).astype(np.float32)},
    "scene": {"z": _one_hot(pictures.of_pairs("scene"))},
    "camera": {"z": _one_hot(pictures.of_pairs("camera"))},
    "task": {"z": _one_hot(pictures.of_pairs("objects"))},
    "flow magnitude": {"z": magnitude(size(cells)), "z_shifted": magnitude(size(elsewhere))},
    "random numbers": {"z": rng.normal(size=(2 * views, COMPONENTS))},
    "episode": {"z": episode[pictures.of_pairs("chain")]},
    "swapped future": {"z": difference(swapped - first)},
    "components of the difference": latents(lambda a, b: difference(b - a), tokens, shifted),
    "components of the optical flow": {
      "z": along(direction(cells)),
      "z_shifted": along(direction(elsewhere)),
    },
    "supervised inverse model": {"z": pictures.table["inverse_model"]},
    "true displacement": {"z": pictures.table["target"].astype(np.float64)},
  }
  assert tuple(rows) == CHEATS + BASELINES
  return rows


def moved_cells(
  first: np.ndarray, second: np.ndarray, *, size: int = 4, batch_size: int = 256
) -> np.ndarray:
  """Optical flow between uint8 [P, H, W, 3] averaged over cells of `size` pixels: [P, H / size, W /
  size, 2].
  """
  side = first.shape[1] // size
  find = batched(
    jax.jit(lambda first, second: flow.cells(flow.flow(first / 255, second / 255), side)),
    batch_size,
  )
  return find(first, second).reshape(-1, side, side, 2)


def _one_hot(labels: np.ndarray) -> np.ndarray:
  names, index = np.unique(labels, return_inverse=True)
  return np.eye(len(names), dtype=np.float32)[index]


def _others(pictures: Pictures, rng: np.random.Generator) -> np.ndarray:
  """For each pair one of another chain, in the same camera and scene where there is one, int
  [P].
  """
  camera, scene, chain = (pictures.of_pairs(name) for name in ("camera", "scene", "chain"))
  order = np.lexsort((rng.permutation(len(chain)), chain, scene, camera))
  other = np.empty(len(chain), int)
  for place, row in enumerate(order):
    after = np.roll(order, -place - 1)
    other[row] = after[np.argmax(chain[after] != chain[row])]
  near = (camera[other] == camera) & (scene[other] == scene)
  # the last of its camera and scene: the first of them, if that is of another chain
  for row in np.flatnonzero(~near):
    alike = np.flatnonzero((camera == camera[row]) & (scene == scene[row]) & (chain != chain[row]))
    other[row] = alike[0] if len(alike) else other[row]
  return other
