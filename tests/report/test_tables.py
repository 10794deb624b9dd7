"""The tables of numbers."""

from como_jax import report
from como_jax.report import tables
from como_jax.train import goodput
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


def test_the_time_of_a_run_and_its_attempts(written):
  _, text = written
  for part in (
    "Goodput 61.5 %",
    "the 100.0 s from the first start",
    "7 steps were done again",
    "<td>61.5</td><td>61.5 %</td>",
    "<td>0.5</td><td>0.5 %</td>",
    "<td>2026-11-02 03:04:05</td><td>0</td><td>12,345</td><td>50.0</td>",
  ):
    assert part in text


def test_every_category_of_the_ledger_is_explained():
  assert list(tables.GOODPUT) == [*goodput.CATEGORIES, "unaccounted"]
