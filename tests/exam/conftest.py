"""A made set, and the results of three latents on it."""

import pytest

from como_jax.exam import exam_set, run
from tests.exam import made_set


@pytest.fixture(scope="session")
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("set")
  arrays, pictures = made_set.build()
  return made_set.write(folder, arrays), pictures, folder


@pytest.fixture(scope="session")
def results(made):
  exam, pictures, _ = made
  kinds = ("motion", "first", "both")
  return {
    kind: run.evaluate(
      exam, exam_set.latents(made_set.latents(pictures, kind), exam), resamples=300
    )
    for kind in kinds
  }
