"""Ranges of files, and the count of what is read."""

import pytest

from como_jax.data import stored


def test_ranges_and_their_count(tmp_path):
  (tmp_path / "f").write_bytes(bytes(range(200)) * 100)
  file = stored.StoredFile(str(tmp_path / "f"))
  assert file.size == 20_000 and file.read(5, 3) == bytes([5, 6, 7])
  with stored.counter() as outer:
    assert file.read(19_999, 50) == bytes([199])
    with stored.counter() as inner:
      assert bytes(file.view(200, 4)) == bytes([0, 1, 2, 3])
    assert (inner.requests, inner.bytes) == (1, 4)
    stored.looked_at("f", 4090, 10)
    stored.looked_at("f", 4095, 1)
    stored.looked_at("f", 0, 0)
  file.read(0, 1)
  assert (outer.requests, outer.bytes) == (2, 65)
  assert outer.pages == {("f", 0), ("f", 1)} and not inner.pages
  assert bytes(file.mapped()[200:202]) == b"\x00\x01"
  with pytest.raises(FileNotFoundError):
    stored.StoredFile(str(tmp_path / "nothing"))
