"""Folders of short videos, and the numbers that they show."""

import os
import shutil

from como_jax.data import video
from tests.data import makers

KEEP = video.Geometry()


def shown(raw, camera, geometry=KEEP):
  return [makers.number(image) for _, image in raw.cameras[camera](geometry)]


def video_files(root, *names):
  """The same small video under several names."""
  made = makers.write_video(root / ".made" / "a.mp4", 3)
  for name in names:
    target = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy(made, target)
  shutil.rmtree(root / ".made")
  return str(root)
