"""Files that are replaced as a whole, and what is taken for a full or broken disk."""

import errno
import os

import pytest

from como_jax import errors
from como_jax.train import atomic


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
  path = tmp_path / "a.json"
  path.write_text("old")
  monkeypatch.setattr(
    atomic.os,
    "fsync",
    lambda number: synced.append((path.read_text(), (tmp_path / ".a.json.new").read_text())),
  )
  synced = []
  atomic.write(path, "new")
  assert synced == [("old", "new")], "on the disk before it takes the other's name"
  assert path.read_text() == "new" and [one.name for one in tmp_path.iterdir()] == ["a.json"]


def chained(error, *, cause):
  """An error that was raised from another, or while another was handled."""
  outer = RuntimeError("outer")
  setattr(outer, "__cause__" if cause else "__context__", error)
  return outer


@pytest.mark.parametrize(
  "number", ["ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EACCES", "EPERM", "EIO", "ESTALE"]
)
def test_a_broken_disk_is_known_by_its_number(number):
  code = getattr(errno, number)
  assert atomic.storage_problem(OSError(code, "in other words")) == os.strerror(code)
  for cause in (True, False):
    assert atomic.storage_problem(
      chained(OSError(code, "in other words"), cause=cause)
    ) == os.strerror(code)


def test_a_full_disk_is_known_by_its_words_and_what_may_not_be_written_is_not():
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
    assert atomic.storage_problem(
      ValueError(f"INTERNAL: {os.strerror(number)} [os_error_code]")
    ) == os.strerror(number)
  for other in (
    ValueError(os.strerror(errno.EACCES)),
    OSError(errno.ENOENT, "No such file"),
    RuntimeError("else"),
    None,
  ):
    assert atomic.storage_problem(other) == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_one_line_that_names_the_file_or_the_run(tmp_path, number):
  for place, name in ((("/some/file",), "/some/file"), ((), f"into {tmp_path}")):
    with pytest.raises(errors.StorageError) as caught, atomic.explained(tmp_path):
      raise OSError(number, "Full", *place)
    assert str(caught.value) == f"cannot write {name}: Full: make room, then give --resume"


def test_another_error_stays_what_it_is(tmp_path):
  other = PermissionError(errno.EACCES, "Permission denied")
  with pytest.raises(PermissionError) as caught, atomic.explained(tmp_path):
    raise other
  assert caught.value is other
