"""The order of pairs, and what their halves are."""

import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models import pixels
from como_jax.models.motion import linear_path, pairs

FRAMES = jnp.arange(12.0).reshape((2, 3, 2))  # two clips of three frames
JITTERED = 100 + jnp.arange(8.0).reshape((2, 2, 2))


def test_pairs_of_frames_are_forward_reversed_and_jittered():
  first, second = pairs.pairs_of_frames(FRAMES, None)
  np.testing.assert_array_equal(first, FRAMES[:, :2])
  np.testing.assert_array_equal(second, FRAMES[:, 1:])
  first, second = pairs.pairs_of_frames(FRAMES, JITTERED)
  a, b, c = FRAMES[0]
  np.testing.assert_array_equal(first[0], [a, b, b, c, a, b])
  np.testing.assert_array_equal(second[0], [b, c, a, b, *JITTERED[0]])


def test_pairs_of_differences_keep_the_differences():
  differences = jnp.ones((2, 6, 2))
  first, second = pairs.pairs_of_differences(FRAMES, differences[:, :2], contrastive=False)
  np.testing.assert_array_equal(first, FRAMES[:, :2])
  assert second.shape == (2, 2, 2)
  first, second = pairs.pairs_of_differences(FRAMES, differences, contrastive=True)
  a, b, c = FRAMES[0]
  np.testing.assert_array_equal(first[0], [a, b, b, c, a, b])
  np.testing.assert_array_equal(second, differences)


def images(count, value):
  rng = np.random.default_rng(value)
  return jnp.asarray(rng.integers(0, 256, (1, count, 4, 4, 3), np.uint8))


def mean(frames):
  """A token that tells which image it is of."""
  return frames.mean(axis=(2, 3, 4))[..., None, None]


@pytest.mark.parametrize("pixel_difference", [False, True])
def test_one_call_encodes_every_image_once(pixel_difference):
  batch = {"frames": images(3, 1), "jittered": images(2, 2)}
  frames, jittered = (pixels.normalize(batch[name]) for name in ("frames", "jittered"))
  asked = []

  def encode(frames):
    asked.append(frames.shape[1])
    return mean(frames)

  tokens, (first, second) = pairs.encode_pairs(
    batch, frames, encode, pixel_difference=pixel_difference
  )
  assert asked == [3 + 3 * 2 if pixel_difference else 3 + 2]
  np.testing.assert_allclose(tokens, mean(frames), rtol=1e-6)
  expected = jnp.concatenate([frames[:, 1:], frames[:, :2], jittered], axis=1)
  before = jnp.concatenate([frames[:, :2], frames[:, 1:], frames[:, :2]], axis=1)
  np.testing.assert_allclose(first, mean(before), rtol=1e-6)
  if pixel_difference:
    expected = expected - before
  np.testing.assert_allclose(second, mean(expected), rtol=1e-4, atol=1e-6)


def test_groups_undo_flat():
  x = jnp.arange(24).reshape((2, 3, 4))
  assert pairs.flatten_pairs(x).shape == (6, 4)
  np.testing.assert_array_equal(pairs.unflatten_pairs(pairs.flatten_pairs(x), batch_size=2), x)


def test_flow_needs_images():
  path = linear_path.LinearPath(1, None, 4, source="flow")
  with pytest.raises(ValueError, match="^the flow between frames needs their images$"):
    path.differences((FRAMES, FRAMES), None)


def test_drawn_pairs_are_of_their_run():
  both = jnp.arange(24.0).reshape((4, 3, 2))  # four clips of three frames in two runs
  drawn = jnp.array(
    [[3, 0], [1, 2]]
  )  # pairs 0 and 1 of the first clip of a run, 2 and 3 of the next
  before, after = both[:, :-1], both[:, 1:]
  chosen = pairs.choose(before, drawn)
  np.testing.assert_array_equal(
    chosen, [[before[1, 1], before[0, 0]], [before[2, 1], before[3, 0]]]
  )
  assert pairs.choose(before, None) is before
  first, second = pairs.pairs_of_frames(both, 100 + chosen, drawn)
  assert first.shape == second.shape == (2, 4 + 2 * 2, 2)
  np.testing.assert_array_equal(first[1, :4], before[2:].reshape((4, 2)))
  np.testing.assert_array_equal(second[1, :4], after[2:].reshape((4, 2)))
  np.testing.assert_array_equal(first[1, 4:6], [after[2, 1], after[3, 0]])
  np.testing.assert_array_equal(second[1, 4:6], chosen[1])
  np.testing.assert_array_equal(first[:, 6:], chosen)
  np.testing.assert_array_equal(second[:, 6:], 100 + chosen)
