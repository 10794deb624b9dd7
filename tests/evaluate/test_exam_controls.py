"""Controls of the exam."""

import chex
import numpy as np

from como_jax.evaluate import exam_controls
from tests.exam import made_set


def test_controls_are_of_the_tests_pairs():
  pictures = made_set.pictures()
  found = exam_controls.errors(pictures, steps=2)
  test, same = (int((pictures.of_pairs("part") == part).sum()) for part in (1, 2))
  kinds = [
    f"{name}_{probe}" for name in ("first", "second", "both") for probe in ("linear", "kernel")
  ] + [f"{name}_{look}" for name in ("first", "second", "both") for look in ("network", "window")]
  oracles = [f"oracle_second_{probe}" for probe in ("linear", "kernel")]
  assert {key.partition("/")[2] for key in found if key.startswith("errors/")} == {*kinds, *oracles}
  assert {key.partition("/")[2] for key in found if key.startswith("errors_robot/")} == {
    *kinds,
    *oracles,
  }
  chex.assert_shape([found[f"errors/{name}"] for name in kinds + oracles], (test, 4))
  chex.assert_shape([found[f"errors_robot/{name}"] for name in kinds], (same, 4))
  chex.assert_shape(found["inverse_model"], (2 * len(pictures.frames), 4))
  variance = np.square(pictures.table["target"][pictures.of_pairs("part") == 1]).mean(axis=0)
  # the made pose is the target itself
  assert (found["errors/oracle_second_linear"].mean(axis=0) < 1e-3 * variance).all()
  assert found["errors/both_linear"].mean() < 0.7 * found["errors/first_linear"].mean()
