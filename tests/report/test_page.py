"""The page holds what it was given, needs nothing but itself, and its plots show something."""

import pytest

from como_jax import errors, report
from tests.report.written_pages import SECTIONS, Page


def test_every_section_is_there_and_linked(written):
  page, text = written
  parsed = Page(text)
  assert page.name == "report.html" and parsed.ids == list(SECTIONS)
  assert [ref for ref in parsed.references if ref.startswith("#")] == [
    "#" + anchor for anchor in SECTIONS
  ]
  for content in (
    "A summary.",
    "split by episode",
    "one seed",
    "worse.mp4",
    "truncated",
    "model.kind",
    "my own",
    "± 0.02",
  ):
    assert content in text


def test_unwritable_folder(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(errors.UserError, match="cannot be written"):
    report.write(tmp_path / "file" / "run", report.ReportData(title="x"))
