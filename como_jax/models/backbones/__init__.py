"""Image encoders: one file each, listed in the table of `como_jax.models`."""
