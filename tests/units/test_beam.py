"""The same units under Apache Beam: the same bytes."""

import sys

import pytest

from como_jax import errors
from como_jax.units import beam
from tests.data import shared_ingest
from tests.data.test_ingest_share import _alone as _alone  # a fixture
from tests.data.test_ingest_share import content
from tests.inference.test_label_shared import _words as _words
from tests.tasks.small_labels import content as labels_content
from tests.tasks.small_labels import run

RUNNER = "--config.runner=beam"


def test_without_beam_it_is_refused(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  with pytest.raises(errors.UserError, match=r"config.runner='beam' needs .*como-jax\[beam\]"):
    shared_ingest.write(shared_ingest.Held(), tmp_path / "out", runner="beam")
  shared_ingest.write(shared_ingest.Held(), tmp_path / "out", workers=0)


def test_files_are_moved_when_all_are_there(tmp_path):
  def make(folder, *, fail=False):
    for name in ("a", "b", "left"):
      with open(f"{folder}/{name}", "w") as file:
        file.write(name)
    if fail:
      raise OSError("no space")
    return ["a", "b"]

  with pytest.raises(OSError, match="no space"):
    beam.place(str(tmp_path), lambda folder: make(folder, fail=True))
  assert not any(path.is_file() for path in tmp_path.rglob("*"))
  beam.place(str(tmp_path), make)
  found = [path for path in tmp_path.rglob("*") if path.is_file()]
  assert sorted(found) == [tmp_path / "a", tmp_path / "b"]


def test_ingest_by_beam_writes_the_same_bytes(alone, tmp_path):
  pytest.importorskip("apache_beam")
  shared_ingest.write(shared_ingest.Held(), tmp_path / "out", runner="beam")
  assert content(tmp_path / "out") == alone


def test_labels_by_beam_are_the_same_bytes(words, tmp_path):
  pytest.importorskip("apache_beam")
  checkpoint = words[0]
  plain = labels_content(run(tmp_path / "plain", checkpoint))
  by_beam = labels_content(run(tmp_path / "beam", checkpoint, RUNNER))
  assert plain.pop("config.json") != by_beam.pop("config.json")
  assert by_beam == plain
