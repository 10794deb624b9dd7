"""The tables of numbers."""

from como_jax import report
from tests.report.written_pages import METRICS


def test_what_is_read_from_the_robots_own_numbers_is_not_the_best(tmp_path):
  rows = METRICS | {
    "true-state": {"lp_mse": 0.1},
    "true-state-change": {"lp_mse": 0.2},
    "both-pictures": {"lp_mse": 0.05},
  }
  text = report.write(tmp_path, report.ReportData(title="x", metrics=rows)).read_text(
    encoding="utf-8"
  )
  assert '<td class="best">0.400' in text and "<td>0.100" in text and "<td>0.200" in text
