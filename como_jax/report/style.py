"""The page's CSS: no scripts, no outside fonts, light and dark, one column on narrow screens."""

import pathlib

CSS = (pathlib.Path(__file__).parent / "style.css").read_text()
