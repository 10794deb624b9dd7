"""Video files of a written LeRobot data set."""

from pyarrow import parquet

from como_jax.data import lerobot_video
from tests.data.written_sets import FPS, read_video, write_set


def test_videos_go_on_in_a_new_file_beyond_the_size_limit(tmp_path):
  write_set(tmp_path / "set", lengths=(40, 40, 40), video_megabytes=0)
  rows = parquet.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pylist()
  for row in rows:
    where = {
      name: row[f"videos/observation.images.left/{name}"] for name in ("chunk_index", "file_index")
    }
    decoded, _, _ = read_video(
      tmp_path
      / "set"
      / lerobot_video.VIDEO_PATH.format(video_key="observation.images.left", **where)
    )
    assert len(decoded) >= round(row["videos/observation.images.left/to_timestamp"] * FPS)
  assert len(list((tmp_path / "set/videos/observation.images.left").rglob("*.mp4"))) > 1
