import pytest

from como_jax import errors
from como_jax.data import sources
from como_jax.data.sources import markers, video_folder


def put(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")


def test_a_format_is_found_by_all_of_its_files(tmp_path):
  put(tmp_path / "one", "dataset_info.json")
  put(tmp_path / "both", "dataset_info.json", "features.json", "manifest.json")
  assert markers.found(str(tmp_path / "one")) == []
  assert markers.found(str(tmp_path / "both")) == ["tfds", "shards"]
  assert markers.found(str(tmp_path / "nowhere")) == []
  assert set(markers.MARKERS) | {"video_folder"} == set(sources.SOURCES)


def test_a_further_line_is_enough_for_a_format(tmp_path, monkeypatch):
  """Detection, its messages and data sets inside a folder of videos read the table."""
  monkeypatch.setitem(markers.MARKERS, "raw", markers.Marker("raw frames", ("*.raw", "times.txt")))
  put(tmp_path / "set", "a.raw", "times.txt")
  put(tmp_path / "videos", "a.mp4", "sub/b.raw", "sub/times.txt")
  put(tmp_path / "half", "b.raw")
  assert sources.detect(str(tmp_path / "set")) == "raw"
  assert video_folder.find_nested(str(tmp_path / "videos")) == [("sub", "raw")]
  with pytest.raises(errors.UserError, match=r"\*\.raw and times\.txt \(raw frames\)"):
    sources.detect(str(tmp_path / "half"))
  with pytest.raises(errors.UserError, match="LeRobot.*raw frames or video files"):
    sources.detect(str(tmp_path / "nowhere"))
