import os

from como_jax.data import episode


def test_the_fingerprint_changes_with_the_files_and_a_missing_one_is_no_error(tmp_path):
  def found(*names):
    return episode.fingerprint(str(tmp_path), names)

  (tmp_path / "a").write_bytes(b"1")
  without = found("a", "b")
  assert without != found("a") and without != found("a", "c")
  (tmp_path / "b").write_bytes(b"1")
  whole = found("a", "b")
  assert whole != without and whole == found("a", "b")
  os.utime(tmp_path / "b", ns=(0, 0))
  touched = found("a", "b")
  (tmp_path / "b").write_bytes(b"12")
  os.utime(tmp_path / "b", ns=(0, 0))
  assert len({whole, touched, found("a", "b")}) == 3
