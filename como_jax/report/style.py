"""The CSS of the page: no scripts, no external fonts, light and dark, one column when narrow."""

import pathlib

CSS = (pathlib.Path(__file__).parent / "style.css").read_text()
