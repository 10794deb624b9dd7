"""A layout of nothing."""

from como_jax.data import normalization

NOTHING = normalization.Normalization({})
