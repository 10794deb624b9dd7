"""Text in HTML."""


def test_text_is_escaped(written):
  _, text = written
  assert "<script" not in text and "&lt;script&gt;" in text and "<drawer>" not in text
  assert "<title>Run &lt;one&gt; &amp; only</title>" in text and "a &amp; b" in text
