"""The table of chips."""

from como_jax.parallel import chips


def test_ici_is_one_direction_over_all_links():
  """Links and GB/s of one: four in a plane, six in a torus of three dimensions; tpu7x halves a
  chip's.
  """
  links = {"v4": (6, 50), "v5e": (4, 50), "v5p": (6, 100), "v6e": (4, 100), "tpu7x": (6, 100)}
  for kind, (count, rate) in links.items():
    assert chips.CHIPS[kind].ici_rate == count * rate / chips.CHIPS[kind].per_chip, kind
