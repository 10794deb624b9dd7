"""Relations hold for latents of known displacements, and not for appearance and noise."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.exam import relations


def test_displacements_add_up_and_turn_around():
  random = np.random.default_rng(0)
  a, b, c = random.normal(size=(3, 500, 4))
  mix = random.normal(size=(4, 6))

  def z(one, other):
    return (other - one) @ mix + 7

  assert relations.additivity(z(a, b), z(b, c), z(a, c)).error.value < 0.02
  assert relations.additivity(z(a, b), z(b, c), z(a, c), zero=np.full(6, 7.0)).error.value < 1e-12
  assert relations.reversal(z(a, b), z(b, a)).cosine.value > 0.99
  assert relations.static(z(a, a), z(a, b)) < 0.01


def test_what_moves_elsewhere_in_the_picture_is_told_by_how_far_z_goes():
  z, other = np.random.default_rng(0).normal(size=(2, 1500, 4)) + 3
  tens = np.arange(1500) // 10
  same = relations.shifted(z, z, groups=tens)
  assert (same.error.value, same.error.high, same.cosine.value) == pytest.approx((0, 0, 1))
  mean = relations.shifted(z, np.broadcast_to(z.mean(axis=0), z.shape), groups=tens)
  assert mean.error.value == pytest.approx(1)
  unrelated = relations.shifted(z, other, groups=tens)
  assert unrelated.error.low < 2 < unrelated.error.high and unrelated.error.low > 1.8
  # relative to z, not to what it became
  twice = relations.shifted(z, 2 * z - z.mean(axis=0), groups=tens)
  assert twice.error.value == pytest.approx(1) and twice.cosine.value == pytest.approx(1)


def test_appearance_and_noise_do_not():
  look, *noise = np.random.default_rng(0).normal(size=(4, 1500, 4))
  tens = np.arange(1500) // 10
  found = relations.additivity(look, look, look, groups=tens)
  assert found.error.value == pytest.approx(1) and found.cosine.value == pytest.approx(1)
  assert relations.additivity(*noise, groups=tens).error.value == pytest.approx(3, rel=0.08)
  assert relations.reversal(look, look, groups=tens).error.value == pytest.approx(4)
  noise_reversed = relations.reversal(*noise[:2], groups=tens)
  assert (
    noise_reversed.error.value == pytest.approx(2, rel=0.08)
    and abs(noise_reversed.cosine.value) < 0.05
  )
  assert noise_reversed.error.low < 2 < noise_reversed.error.high
  assert relations.static(look, look) == pytest.approx(1)


def test_errors_name_what_is_wrong():
  z = np.ones((120, 12))
  for call, text in (
    (lambda: relations.additivity(z, z, z[:3]), r"z_ac: expected \[120, 12\], as z_ab, found"),
    (lambda: relations.static(z[:, :3], z), r"z_aa: expected \[V, 12\], found \[120, 3\]"),
  ):
    with pytest.raises(errors.UserError, match=text):
      call()
