"""PyAV is imported only where video is decoded."""

import subprocess
import sys
import textwrap

import pytest

from como_jax.data import pyav

# Makes the package av impossible to import in a new process.
WITHOUT = """
import sys
class Missing:
  def find_spec(self, name, path=None, target=None):
    if name == "av" or name.startswith("av."):
      raise ImportError("no package av here")
sys.meta_path.insert(0, Missing())
"""


def _run(code: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-c", WITHOUT + textwrap.dedent(code)], capture_output=True, text=True
  )


def test_training_and_labeling_are_imported_without_it():
  done = _run("""
    import como_jax.tasks.extract, como_jax.tasks.motion, como_jax.tasks.policy
    import como_jax.tasks.serve
    from como_jax.data import images
    assert "av" not in sys.modules and images.decode_errors()
  """)
  assert done.returncode == 0, done.stderr


def test_a_video_without_it_ends_the_run_with_the_package_name(tmp_path):
  """It is no damaged video, which would be skipped."""
  (tmp_path / "a.mp4").write_bytes(b"video")
  done = _run(f"""
    from como_jax import errors
    from como_jax.data import video
    try:
      video.probe({str(tmp_path / "a.mp4")!r})
    except errors.RunError as error:
      print(error)
  """)
  assert done.returncode == 0, done.stderr
  assert "pip install av" in done.stdout and "no package av here" in done.stdout


def test_errors_are_those_of_the_imported_package():
  error = pytest.importorskip("av.error")
  assert pyav.errors() == (error.FFmpegError,)
  assert pyav.PictureType.I.name == "I" and pyav.Colorspace["ITU601"].name == "ITU601"
