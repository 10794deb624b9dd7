"""Observations that a policy does not act on."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.observations import IMAGE, STATE, TASK
from tests.serve.counting import acting, observation, stored
from tests.serve.counting import counting as counting  # a fixture


def refused(seen, config=None, **more):
  with pytest.raises(errors.UserError) as caught:
    acting(config, **more).batch([[seen]])
  return str(caught.value)


CAMERA = IMAGE + "front"


@pytest.mark.parametrize(
  "change, message",
  [
    (
      {CAMERA: None, IMAGE + "frnt": 0},
      "the observation has no camera 'front': did you mean 'frnt'? (valid: frnt)",
    ),
    (
      {CAMERA: np.zeros((8, 8, 3))},
      "camera 'front' gives float64 [8, 8, 3], expected uint8 [H, W, 3]",
    ),
    (
      {CAMERA: np.zeros((8, 3), np.uint8)},
      "camera 'front' gives uint8 [8, 3], expected uint8 [H, W, 3]",
    ),
    (
      {CAMERA: np.zeros((3, 8, 8), np.uint8)},
      "camera 'front' gives uint8 [3, 8, 8], expected uint8 [H, W, 3]",
    ),
    (
      {CAMERA: np.zeros((0, 8, 3), np.uint8)},
      "camera 'front' gives uint8 [0, 8, 3], expected uint8 [H, W, 3]",
    ),
    (
      {STATE: None},
      "the observation has no 'observation.state' [2]; it has: observation.images.front, task",
    ),
    ({STATE: [1, 2, 3]}, "observation.state is int64 [3], expected 2 finite numbers"),
    ({STATE: [True, False]}, "observation.state is bool [2], expected 2 finite numbers"),
    ({STATE: [0.0, np.inf]}, "observation.state is float64 [2], expected 2 finite numbers"),
    ({TASK: 3}, "'task' is a int, expected a text"),
  ],
)
def test_what_an_observation_lacks_is_named(change, message):
  assert refused(observation(**change)) == message


def test_pictures_that_are_cropped_have_sides_of_at_most_1_to_16():
  crop = stored(settings={"resize": "crop"})
  for shape in ((1, 16, 3), (32, 2, 3)):
    assert acting(crop).batch([[observation(**{CAMERA: np.zeros(shape, np.uint8)})]])[
      "images"
    ].shape[-3:] == (16, 16, 3)
  for shape in ((1, 17, 3), (33, 2, 3)):
    seen = observation(**{CAMERA: np.zeros(shape, np.uint8)})
    assert (
      refused(seen, crop)
      == f"camera 'front' gives {list(shape)}: one side is more than 16 times the other"
    )
    acting().batch([[seen]])  # squashed, it costs nothing
