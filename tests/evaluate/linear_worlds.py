"""Latents from which a line reads the targets."""

import numpy as np


def linear_world(samples=600, latent=8, dimensions=3, seed=0):
  rng = np.random.default_rng(seed)
  z = rng.normal(size=(samples, latent))
  targets = (
    z @ rng.normal(size=(latent, dimensions)) * np.array([0.01, 1.0, 50.0])[:dimensions] + 7.0
  )
  return z, targets, np.arange(samples) // 20
