"""Principal components of the tokens of an exam's pictures.

Legend: V views of three pictures, K values of a sample.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import linalg

from como_jax.exam import exam_set
from como_jax.exam.pictures import Pictures

MOVING = 8  # number of components of what moves in a picture
_MAX_VIEWS = 1_000  # maximum number of views of the fit part from which they are computed
_MIN_SINGULAR = 1e-4  # share of the largest singular value below which a direction is left out


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
  smaller = min(centered.shape)
  _, values, vectors = linalg.svds(
    centered, k=min(count, smaller - 1), v0=np.ones(smaller, centered.dtype)
  )
  assert vectors is not None  # they are computed unless svds is told not to
  chosen = vectors[np.argsort(-values)[: int((values > _MIN_SINGULAR * values.max()).sum())]].T
  return lambda new: (new - mean) @ chosen


def moving(pictures: Pictures) -> np.ndarray:
  """What moves in the pictures of the test, as components of tokens of the bundled encoder.

  The components are the principal components, not standardized, of the differences of the three
  pictures of a view from their mean, on the fit part. They are applied to the tokens of the test
  minus their mean over the pictures of the same camera and scene.

  Components of the tokens themselves would not work: nine tenths of their variance is camera and
  scene, which are equal in both pictures of a pair. A copy of the second picture would predict the
  second picture hardly better than the first.

  Returns:
    float16 [views of part TEST, 3, 8].
  """
  part, camera, scene = (pictures.table[name] for name in ("part", "camera", "scene"))
  fit = np.flatnonzero(part == exam_set.FIT)
  fit = fit[:: -(-len(fit) // _MAX_VIEWS)]
  tokens = pictures.tokens[fit].reshape(len(fit), 3, -1).astype(np.float32)
  change = tokens - tokens.mean(axis=1, keepdims=True)
  project = components(change.reshape(-1, change.shape[-1]), MOVING)
  test = np.flatnonzero(part == exam_set.TEST)
  projected = np.stack(
    [project(pictures.tokens[view].reshape(3, -1).astype(np.float32)) for view in test]
  )
  _, cell = np.unique(np.stack([camera[test], scene[test]]), axis=1, return_inverse=True)
  for index in np.unique(cell):
    projected[cell == index] -= projected[cell == index].mean(axis=(0, 1))
  return projected.astype(np.float16)
