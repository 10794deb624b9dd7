import os

import pytest

from como_jax import storage
from como_jax.storage import local


def test_a_replaced_file_is_opened_anew(tmp_path):
  store, path = local.LocalStore(), str(tmp_path / "x")
  store.write(path, b"aaaa")
  assert store.read(path, 0, 2) == b"aa"
  (tmp_path / "y").write_bytes(b"bbbb")
  os.utime(tmp_path / "y", ns=(0, os.stat(path).st_mtime_ns))  # only the file itself differs
  os.replace(tmp_path / "y", path)
  assert store.read(path, 0, 2) == b"bb"


def test_few_files_stay_open(tmp_path):
  store, before = local.LocalStore(), len(os.listdir("/proc/self/fd"))
  for number in range(200):
    store.write(str(tmp_path / str(number)), b"ab")
    assert store.read(str(tmp_path / str(number)), 1, 1) == b"b"
  assert len(os.listdir("/proc/self/fd")) - before <= 64


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  store, path = local.LocalStore(), str(tmp_path / "x")
  store.write(path, b"old")

  def full(number):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="space"):
    store.write(path, b"new")
  assert os.listdir(tmp_path) == ["x"] and storage.read_bytes(path) == b"old"


def test_its_own_files_are_not_listed(tmp_path):
  store, path = local.LocalStore(), str(tmp_path / "x")
  store.write_if(path, b"1", None)
  (tmp_path / ".x.1-2.new").write_bytes(b"half")
  assert [entry.key for entry in store.list(str(tmp_path))] == [path]
