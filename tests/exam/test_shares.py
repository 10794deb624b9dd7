"""Shares of variance that were put in come out."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.exam import motion_score, shares


def effects(random, moves, cameras, scenes, width):
  """Name -> effect of mean square 1 over its levels [moves, cameras, scenes, width], the given ones
  summing to zero.
  """
  shapes = {
    "motion": (moves, 1, 1),
    "camera": (1, cameras, 1),
    "scene": (1, 1, scenes),
    "motion x camera": (moves, cameras, 1),
    "motion x scene": (moves, 1, scenes),
    "camera x scene": (1, cameras, scenes),
    "rest": (moves, cameras, scenes),
  }
  result = {}
  for name, shape in shapes.items():
    effect = random.normal(size=(*shape, width))
    if name != "rest":
      for axis in (1, 2):
        effect = effect - effect.mean(axis=axis, keepdims=True) if shape[axis] > 1 else effect
    if shape[0] == 1:
      effect = effect / np.sqrt((effect**2).mean())
    elif name != "rest":  # of all moves there could be, not of these
      effect = effect / np.sqrt(np.prod([(n - 1) / n for n in shape[1:] if n > 1]))
    result[name] = np.broadcast_to(effect, (moves, cameras, scenes, width))
  return result


def made(mix, seed=0, moves=120, cameras=3, scenes=4, width=12):
  parts = effects(np.random.default_rng(seed), moves, cameras, scenes, width)
  return sum(np.sqrt(share) * parts[name] for name, share in mix.items())


MIXES = (
  {"motion": 0.6, "camera": 0.1, "scene": 0.1, "rest": 0.2},
  {
    "motion": 0.2,
    "camera": 0.05,
    "scene": 0.3,
    "motion x camera": 0.2,
    "motion x scene": 0.05,
    "camera x scene": 0.1,
    "rest": 0.1,
  },
  {"motion": 0.05, "camera": 0.45, "scene": 0.45, "rest": 0.05},
  {"motion x camera": 0.5, "motion x scene": 0.3, "rest": 0.2},
)


@pytest.mark.parametrize("mix", MIXES, ids=range(4))
def test_shares_that_were_put_in_come_out(mix):
  """Of 20 made sets the interval of each share holds the truth in at least 16, and the mean
  estimate is the truth.
  """
  wanted = np.array([mix.get(name, 0.0) for name in shares.NAMES])
  found = [
    shares.variance_components(made(mix, seed=seed), whiten=False, resamples=300).shares.values()
    for seed in range(20)
  ]
  table = np.array([[(s.value, s.low, s.high, s.error) for s in some] for some in found])
  inside = ((table[..., 1] - 1e-9 <= wanted) & (wanted <= table[..., 2] + 1e-9)).sum(axis=0)
  assert inside.min() >= 16, dict(zip(shares.NAMES, inside.tolist(), strict=False))
  tolerance = 4 * table[..., 3].mean(axis=0) / np.sqrt(20) + 0.003  # the last: clipping at 0
  assert (np.abs(table[..., 0].mean(axis=0) - wanted) < tolerance).all()
  np.testing.assert_allclose(table[..., 0].sum(axis=1), 1)


def test_pure_noise_is_rest():
  found = shares.variance_components(made({"rest": 1.0}, width=40))
  assert found.shares["rest"].value > 0.97 and found.negative
  for name in shares.NAMES[:-1]:
    assert found.shares[name].low == 0 and found.shares[name].high < 0.03


@pytest.mark.parametrize("name", shares.NAMES)
def test_one_factor_alone(name):
  found = shares.variance_components(made({name: 1.0}), resamples=200).shares
  assert found[name].value > 0.99


def test_whitening_makes_the_scale_of_a_number_no_matter():
  z = np.concatenate([made(MIXES[0]), made({"camera": 0.9, "rest": 0.1}, seed=1)], axis=-1)
  loud = z * np.geomspace(1, 1000, 24)
  one, two = (
    shares.variance_components(values, resamples=50).shares["motion"] for values in (z, loud)
  )
  assert one.value == pytest.approx(two.value, abs=1e-6) and one.value > 0.25
  assert shares.variance_components(loud, resamples=50, whiten=False).shares["motion"].value < 0.01


def test_two_moves_of_a_chain_are_drawn_together():
  z = np.repeat(made(MIXES[0], moves=60), 2, axis=0)
  alone, chains = (
    shares.variance_components(z, groups=g, whiten=False).shares["motion"]
    for g in (None, np.arange(120) // 2)
  )
  assert chains.error == pytest.approx(alone.error * np.sqrt(2), rel=0.15)


def test_components_are_those_of_the_textbook():
  """Mean squares computed by their definition, for one draw of moves."""
  z = made(MIXES[1], moves=5, width=1)[..., 0]
  m, c, s = z.shape
  mean = {
    axes: z.mean(axis=axes, keepdims=True)
    for axes in [(0, 1, 2), (1, 2), (0, 2), (0, 1), (2,), (1,), (0,)]
  }
  mc = mean[2,] - mean[1, 2] - mean[0, 2] + mean[0, 1, 2]
  ms = mean[1,] - mean[1, 2] - mean[0, 1] + mean[0, 1, 2]
  rest = z - mean[2,] - mean[1,] - mean[0,] + mean[1, 2] + mean[0, 2] + mean[0, 1] - mean[0, 1, 2]
  r = (rest**2).sum() / ((m - 1) * (c - 1) * (s - 1))
  found = shares.variance_components(z[..., None], whiten=False, resamples=2).raw
  square_mc, square_ms = (
    s * (mc**2).sum() / ((m - 1) * (c - 1)),
    c * (ms**2).sum() / ((m - 1) * (s - 1)),
  )
  square_m = c * s * ((mean[1, 2] - mean[0, 1, 2]) ** 2).sum() / (m - 1)
  square_s = m * c * ((mean[0, 1] - mean[0, 1, 2]) ** 2).sum() / (s - 1)
  assert found["rest"] == pytest.approx(r)
  assert found["motion"] == pytest.approx((square_m - r) / (c * s))
  assert found["motion x camera"] == pytest.approx((square_mc - r) * (c - 1) / (c * s))
  assert found["motion x scene"] == pytest.approx((square_ms - r) * (s - 1) / (c * s))
  assert found["scene"] == pytest.approx((square_s - square_ms) * (s - 1) / (s * m * c))


def test_cross_decoding_tells_one_frame_from_many():
  random = np.random.default_rng(0)
  moved, camera = random.normal(size=(900, 2)), np.arange(900) % 3
  # each camera has its own axes
  turned = np.stack([moved, moved[:, ::-1], -moved])[camera, np.arange(900)]
  same = shares.cross_decoding(np.tanh(moved), moved, camera, np.arange(900) // 2)
  own = shares.cross_decoding(np.tanh(turned), moved, camera, np.arange(900) // 2)
  assert same.cameras == (0, 1, 2) and same.e.max() < 0.1
  assert np.diag(own.e).max() < 0.1 and own.other > 0.8 > own.own + 0.7
  few = shares.cross_decoding(
    moved, moved, np.where(np.arange(900) < 20, 9, camera), np.arange(900) // 2
  )
  assert np.isnan(few.e[3]).all() and np.isnan(few.e[:, 3]).all() and few.own < 0.1


def test_a_cameras_own_moves_are_new_to_its_probe():
  """60 numbers and 150 pairs to fit: moves that were fitted would look far easier than another
  camera's.
  """
  random = np.random.default_rng(0)
  z = random.normal(size=(600, 60))
  moved = z[:, :2] + 1.5 * random.normal(size=(600, 2))
  found = shares.cross_decoding(z, moved, np.arange(600) % 3, np.arange(600))
  assert abs(found.own - found.other) < 0.06 and found.own > 0.7


def test_dose_orders_errors_by_speed():
  speed = np.tile([0.0, 0.5, 1.0], 100)
  found = shares.dose(
    np.stack([0.1 + speed, 0.1 + speed / 2], axis=1), speed, motion_score.Moves(np.arange(300) // 3)
  )
  assert list(found) == [0.0, 0.5, 1.0]
  assert [s.value for s in found.values()] == pytest.approx([0.1, (0.6 + 0.35) / 2, (1 + 0.6) / 2])


def test_errors_name_what_is_wrong():
  z = made(MIXES[0])
  for call, text in (
    (
      lambda: shares.variance_components(z[:, :1]),
      r"expected \[moves, cameras, scenes, Z\], at least 2 of each, found \[120, 1",
    ),
    (
      lambda: shares.variance_components(z, groups=[1, 2]),
      r"groups: expected \[120\], one for each move, found \[2\]",
    ),
    (
      lambda: shares.dose(z[:, 0, 0], [1.0], motion_score.Moves([1])),
      "errors, speed and groups hold 120, 1 and 1 rows",
    ),
  ):
    with pytest.raises(errors.UserError, match=text):
      call()


def test_a_speed_of_one_chain_is_left_out():
  found = shares.dose(np.ones((6, 2)), [0, 0, 0, 0, 1, 1], motion_score.Moves([0, 0, 1, 1, 2, 2]))
  assert list(found) == [0.0]
