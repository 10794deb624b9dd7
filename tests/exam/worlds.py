"""The pilot's made world: pairs of pictures whose features are known, and the latents one could
make of them.
"""

import dataclasses

import numpy as np

from como_jax.exam import kernel_ridge, motion_score, whitening


@dataclasses.dataclass
class Pairs:
  """Features of both pictures [N, F], the displacement [N, 4], its scene [N] and group [N]."""

  first: np.ndarray
  second: np.ndarray
  moved: np.ndarray
  scene: np.ndarray
  group: np.ndarray


class World:
  """Poses of 4 numbers, scenes of 16, features tanh(mix of both) of `features` numbers, a little
  noise; start and end pose are independent.
  """

  def __init__(self, seed=0, features=256, noise=0.02):
    self.random = np.random.default_rng(seed)
    self.pose = self.random.normal(size=(4, features)) / 4
    self.scene = self.random.normal(size=(16, features)) / 8
    self.noise = noise

  def look(self, pose, scene):
    clean = np.tanh(pose @ self.pose + scene @ self.scene)
    return clean + self.noise * self.random.normal(size=clean.shape)

  def pairs(self, count, scenes=20):
    looks = self.random.normal(size=(scenes, 16))
    scene = self.random.integers(scenes, size=count)
    start, end = self.random.normal(size=(2, count, 4))
    return Pairs(
      self.look(start, looks[scene]),
      self.look(end, looks[scene]),
      end - start,
      scene,
      np.arange(count) // 2,
    )


def components(values, like, count=32):
  """Principal components of values [N, F], as fitted on like [M, F]."""
  mean = like.mean(axis=0)
  directions, _ = whitening.principal(like - mean)
  return (values - mean) @ directions[:, :count]


def errors_of(fit, test, moved, test_moved, **options):
  """Errors [M, 4] of a probe from inputs to displacements."""
  groups = np.arange(len(fit)) // 2
  probe = kernel_ridge.fit(fit, moved, groups=groups, kernels=("linear",), **options)
  return motion_score.pair_errors(probe.predict(test), test_moved, (moved**2).mean(axis=0))


def latents(pairs, like):
  """Name -> z [N, 32]; "motion" is the difference along its 4 loudest directions, without the
  fainter ones, in which the bend of tanh tells the scene.
  """
  both = [np.concatenate([some.first, some.second], axis=1) for some in (pairs, like)]
  difference = components(pairs.second - pairs.first, like.second - like.first)
  return {
    "first": components(pairs.first, like.first),
    "future": components(pairs.second, like.second),
    "difference": difference,
    "motion": difference[:, :4],
    "both": components(*both),
  }
