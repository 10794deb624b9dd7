"""Packages and files of an installation; everything else about it is in pyproject.toml.

The configs come along as a part of the package, so that `--config=motion` finds them from any
directory.
"""

import setuptools

setuptools.setup(
  packages=[*setuptools.find_packages(include=["como_jax", "como_jax.*"]), "como_jax.configs"],
  package_dir={"como_jax.configs": "configs"},
  package_data={"como_jax": ["assets/**/*", "report/*.css"]},
)
