"""Pictures in the cells of a table."""

import pytest

from como_jax.data.sources import lerobot_images


def test_images_of_cells(tmp_path):
  (tmp_path / "a..b.png").write_bytes(b"own")

  def read(cell):
    return lerobot_images.read(str(tmp_path), cell)

  assert read({"bytes": b"x", "path": "none"}) == read(b"x") == b"x"
  assert (
    read({"bytes": None, "path": "a..b.png"})
    == read("a..b.png")
    == read({"bytes": "a..b.png"})
    == b"own"
  )
  for cell, message in (
    ({"path": None}, "^the cell is empty$"),
    ("/etc/hostname", "leads out of the data set$"),
    ("no.png", "^no.png is missing$"),
  ):
    with pytest.raises(ValueError, match=message):
      read(cell)
  with pytest.raises(TypeError, match="^a bytes-like object is required, not 'float'$"):
    read(3.5)
