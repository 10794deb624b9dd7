"""The page needs nothing but itself."""

import re

from tests.report.written_pages import Page


def test_nothing_outside_the_page_is_needed(written):
  _, text = written
  parsed = Page(text)
  assert all(ref.startswith(("#", "data:image/png;base64,")) for ref in parsed.references)
  assert not re.search(r"https?://|url\(|@import", text) and not {"script", "link", "iframe"} & set(
    parsed.tags
  )
