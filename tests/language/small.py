"""Small text encoders, and a cache of their own."""

import pytest

from como_jax.convert import text as convert
from tests.models.text import tiny

TEXTS = [
  "open the door",
  "",
  "close the door",
  "push the block to the goal and open the window and lift it",
  "  ",
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache" / "language"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """A converted folder of each kind."""
  root = tmp_path_factory.mktemp("weights")
  for kind in tiny.CONFIGS:
    more = {"projection": 6} if kind == "clip" else {}
    convert.convert(str(tiny.write(root / "source" / kind, kind, **more)), str(root / kind))
  return root


def section(folders, kind, **fields):
  return {"kind": kind, "weights": str(folders / {"minilm": "bert"}.get(kind, kind)), **fields}
