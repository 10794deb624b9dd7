"""Embeddings on disk: kept, damaged, and not written."""

import numpy as np
import pytest

from como_jax import language
from como_jax.language import cache as cache_lib
from tests.language.small import TEXTS, section
from tests.language.small import cache as cache  # a fixture
from tests.language.small import folders as folders  # a fixture


def spy(encoder):
  """Counts the texts that reach the model."""
  seen, embed = [], encoder._embed

  def counted(texts):
    seen.extend(texts)
    return embed(texts)

  encoder._embed = counted
  return seen


@pytest.mark.parametrize("fields", [{}, dict(pooled=False, num_tokens=8)])
def test_cache(folders, cache, fields):
  encoder = language.build(section(folders, "minilm", **fields))
  seen = spy(encoder)
  first, mask = encoder(TEXTS)
  assert seen == [text for text in TEXTS if text.strip()]
  encoder(TEXTS)
  assert len(seen) == 3, "remembered"
  again = language.build(section(folders, "minilm", **fields))
  seen = spy(again)
  found = again([*TEXTS, TEXTS[0]])
  assert not seen, "kept on disk"
  np.testing.assert_array_equal(found[0][:5], first)
  np.testing.assert_array_equal(found[1][:5], mask)
  assert [path.name for path in cache.iterdir()] == [encoder.fingerprint]
  assert len(list(cache.glob("*/*"))) == 3


@pytest.mark.parametrize(
  "damage", ["empty", "cut", "flipped", "junk", "another text", "another shape", "pickle"]
)
def test_damaged_entries_are_made_again(cache, damage):
  def made():
    return language.Encoder(
      lambda texts: [np.full((1, 16), len(text), np.float32) for text in texts],
      width=16,
      num_tokens=1,
      fingerprint="fake",
      cache=cache_lib.cache_folder("fake"),
    )

  expected, _ = made()(TEXTS)
  path = cache_lib.entry_path(cache / "fake", TEXTS[0])
  content = path.read_bytes()
  if damage == "another text":
    path.write_bytes(cache_lib.entry_path(cache / "fake", TEXTS[2]).read_bytes())
  elif damage == "another shape":
    cache_lib.write(cache / "fake", TEXTS[0], np.ones((2, 16), np.float32))
  elif damage == "pickle":
    with open(path, "wb") as file:
      np.savez(file, text=np.array([object()]), tokens=np.array([{}]))
  else:
    middle = content.index(b"NUMPY", content.index(b"tokens.npy")) + 140
    path.write_bytes(
      {
        "empty": b"",
        "cut": content[:-30],
        "junk": b"junk" * 20,
        "flipped": content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :],
      }[damage]
    )
  again = made()
  seen = spy(again)
  np.testing.assert_array_equal(again(TEXTS)[0], expected)
  assert seen == TEXTS[:1]
  assert path.read_bytes() == content and not list(cache.glob("*/*.new"))


def test_without_a_cache_nothing_is_written(folders, cache):
  encoder = language.build(section(folders, "minilm"), cache=False)
  seen = spy(encoder)
  encoder(TEXTS)
  encoder(TEXTS)
  assert len(seen) == 3 and not cache.exists()


def test_a_cache_that_cannot_be_written(folders, tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "file"))
  assert language.build(section(folders, "minilm"))(TEXTS)[1].sum() == 3
