"""A written page with every part of a report."""

import pytest

from como_jax import report
from tests.report.written_pages import full_report


@pytest.fixture(scope="session")
def written(tmp_path_factory):
  page = report.write(tmp_path_factory.mktemp("report") / "run", full_report())
  return page, page.read_text(encoding="utf-8")
