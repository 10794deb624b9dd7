"""Latents without a motion model: cheats, which the exam must detect, and baselines.

Legend: V views of three pictures, P = 2V pairs, H W pixels, K values of a picture's tokens, Z
latent width.
"""

from collections.abc import Callable

import numpy as np

from como_jax.evaluate.exam_components import components
from como_jax.exam import pictures as pictures_lib
from como_jax.exam.pictures import Pictures

# Widths of latents of principal components, and of the wide random map.
COMPONENTS, WIDE = 32, 1024
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
# Row -> its kind (`exam.rows.as_row`).
KINDS = {
  **dict.fromkeys(CHEATS, "cheat"),
  **dict.fromkeys(BASELINES, "baseline"),
  **dict.fromkeys(LABELED, "control"),
}

Latents = dict[str, np.ndarray]  # name -> [P, Z] or [V, Z], as `pictures.by_name` returns them
# Optical flow: first and second pictures, each uint8 [P, H, W, 3] -> mean over cells [P, h, w, 2].
MovedCells = Callable[[np.ndarray, np.ndarray], np.ndarray]


def build(pictures: Pictures, moved_cells: MovedCells, *, seed: int = 0) -> dict[str, Latents]:
  """Builds the latents of all rows, `CHEATS` and `BASELINES`: {row: latents}.

  Rows that are not a function of two pictures have only "z". Those of the optical flow have "z" and
  "z_shifted".

  Args:
    pictures: the set.
    moved_cells: computes the optical flow, such as `inference.exam_pictures.moved_cells`.
    seed: seed of the random rows.
  """
  rng, views = np.random.default_rng([seed, 41]), len(pictures.frames)
  width = int(np.prod(pictures.tokens.shape[2:]))
  random_map = (rng.normal(size=(2 * width, WIDE)) / np.sqrt(2 * width)).astype(np.float32)
  others = _others(pictures, rng)
  episode = rng.normal(size=(int(pictures.table["chain"].max()) + 1, COMPONENTS))
  step = np.tile([0, 1], views)
  rows = {
    **_token_rows(pictures, random_map, others),
    **_flow_rows(pictures, moved_cells),
    "true second pose": {"z": pictures.table["state/second"]},
    "time": {"z": np.stack([step, 1 - step], axis=1).astype(np.float32)},
    "scene": {"z": _one_hot(pictures.of_pairs("scene"))},
    "camera": {"z": _one_hot(pictures.of_pairs("camera"))},
    "task": {"z": _one_hot(pictures.of_pairs("objects"))},
    "random numbers": {"z": rng.normal(size=(2 * views, COMPONENTS))},
    "episode": {"z": episode[pictures.of_pairs("chain")]},
    "supervised inverse model": {"z": pictures.table["inverse_model"]},
    "true displacement": {"z": pictures.table["target"].astype(np.float64)},
  }
  assert set(rows) == {*CHEATS, *BASELINES}
  return {name: rows[name] for name in CHEATS + BASELINES}


def _token_rows(
  pictures: Pictures, random_map: np.ndarray, others: np.ndarray
) -> dict[str, Latents]:
  """The rows that are functions of the tokens of two pictures.

  Args:
    pictures: the set.
    random_map: weights of "wide random map of both" [2 K, WIDE].
    others: for each pair, the pair whose second picture "swapped future" takes, int [P].
  """
  views = len(pictures.tokens)
  tokens = pictures.tokens.reshape(views, 3, -1).astype(np.float32)
  shifted = (
    None if pictures.shifted is None else pictures.shifted.reshape(views, 2, -1).astype(np.float32)
  )
  first, second, sample = pictures.first(tokens), pictures.second(tokens), pictures.fit_sample
  picture = components(first[sample], COMPONENTS)
  difference = components((second - first)[sample], COMPONENTS)
  mean, scale = tokens[:, 0].mean(axis=0), tokens[:, 0].std() + 1e-6

  def random_features(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    both = np.concatenate([(a - mean) / scale, (b - mean) / scale], axis=-1)
    return np.tanh(2 * both @ random_map)

  def of_all_pairs(between: pictures_lib.Between) -> Latents:
    return pictures_lib.latents(between, tokens, shifted)

  return {
    "first picture": of_all_pairs(lambda a, b: picture(a)),
    "future picture": of_all_pairs(lambda a, b: picture(b)),
    "wide random map of both": of_all_pairs(random_features),
    "swapped future": {"z": difference(second[others] - first)},
    "components of the difference": of_all_pairs(lambda a, b: difference(b - a)),
  }


def _flow_rows(pictures: Pictures, moved_cells: MovedCells) -> dict[str, Latents]:
  """The rows of the optical flow: its direction and size in each cell, and its size alone."""
  cells = {
    "z": moved_cells(pictures.first(pictures.frames), pictures.second(pictures.frames)),
    "z_shifted": moved_cells(*pictures_lib.shifted(pictures.frames).swapaxes(0, 1)),
  }

  def flow(cells: np.ndarray) -> np.ndarray:
    return cells.reshape(len(cells), -1)

  def magnitude(cells: np.ndarray) -> np.ndarray:
    return flow(np.linalg.norm(cells, axis=-1))

  rows = {}
  for name, read in (("components of the optical flow", flow), ("flow magnitude", magnitude)):
    project = components(read(cells["z"])[pictures.fit_sample], COMPONENTS)
    rows[name] = {key: project(read(values)) for key, values in cells.items()}
  return rows


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
