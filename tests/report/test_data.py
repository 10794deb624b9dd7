"""Parts of a report that are not there."""

import dataclasses

import pytest

from como_jax import report
from tests.report.written_pages import SECTIONS, Page, full_report


@pytest.mark.parametrize("anchor", [name for name in SECTIONS if name != "verdict"])
def test_a_missing_part_is_left_out(anchor, tmp_path, monkeypatch):
  monkeypatch.setattr(
    "como_jax.report.markup.figure", lambda *_: ""
  )  # drawing is tested with the themes
  empty = report.ReportData(title="empty")
  fields = ("time", "hardware", "versions") if anchor == "run" else (SECTIONS[anchor],)
  data = dataclasses.replace(full_report(), **{field: getattr(empty, field) for field in fields})
  ids = Page(report.write(tmp_path / "page.html", data).read_text(encoding="utf-8")).ids
  gone = {anchor, "verdict"} if anchor == "metrics" else {anchor}
  assert ids == [name for name in SECTIONS if name not in gone]


def test_empty_report(tmp_path):
  page = report.write(tmp_path, report.ReportData(title="nothing yet"))
  assert Page(page.read_text(encoding="utf-8")).ids == [] and not list(tmp_path.glob("*.png"))
