"""Options of a source."""

import pytest

from como_jax import errors
from como_jax.data.sources.options import SourceOptions


@pytest.mark.parametrize(
  "option, valid",
  [((), True), ((1, 2), True), ((2, 2), False), ((2, 1), False), ((1,), False), ((1, 2, 3), False)],
)
def test_ranges_of_depth(option, valid):
  if valid:
    assert SourceOptions(depth_range=option).depth_range == option
  else:
    with pytest.raises(errors.UserError, match="^source option depth_range="):
      SourceOptions(depth_range=option)
