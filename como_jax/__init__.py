"""como_jax: continuous latent motion from videos without actions, in JAX."""

__version__ = "0.1.0"
