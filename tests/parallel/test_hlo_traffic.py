"""Memory traffic of a small program written by hand."""

from como_jax.parallel import hlo, hlo_traffic
from tests.parallel import hlo_texts


def test_traffic_counts_slices_of_a_stack_as_slices():
  # In the loop, five times: a row of 64 bytes read and written, the index read; the gather's 64 and
  # 256. Outside: 3 x 2048 x 2 and the scatter.
  row, gather = 64 + 64 + 4, 64 + 256
  assert (
    hlo_traffic.traffic(hlo.parse(hlo_texts.TEXT))
    == 5 * (row + gather) + 5 * (4 + 4 + 1) + 2 * 2048 + 2 * 2048 + 2048 + 256
  )
