"""A result as one row of numbers."""

from como_jax.exam import table


def test_a_row_is_plain_numbers(results):
  for kind, result in results.items():
    row = result.row()
    assert all(type(value) is float for value in row.values()), kind
    assert (
      row["s"] == result.score.s.value
      and row["excess/scene_low"] == result.identities["scene"].excess.low
    )
    assert (
      row["share/motion"] == result.shares.shares["motion"].value and row["width"] == result.width
    )
    assert row["error/depth"] == result.score.by_dimension[2] and row["flagged"] == float(
      kind != "motion"
    )
    assert row["shifted_low"] == result.shifted.error.low and "both pictures shifted" in table.text(
      result
    )
  assert set(results["motion"].row()) == set(results["both"].row())
