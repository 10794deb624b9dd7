"""What the stages of a quickstart have written, read for its summary and its page.

Legend: F frames, H W pixels.
"""

import json
import pathlib
from typing import Any

import numpy as np

from como_jax.data import video
from como_jax.report import quickstart_page
from como_jax.train import log

CONFIG = "quickstart.json"
PROBE, EXAM = "metrics.json", "exam.json"
ROLLOUT, SERVED = "results.json", "serve.json"
FILM = 6  # pictures per episode on the page


def read(workdir: pathlib.Path) -> quickstart_page.Products:
  """Reads what the stages have written into their folders."""
  return quickstart_page.Products(
    workdir,
    config=_json(workdir / CONFIG),
    rows=_json(workdir / "probe" / PROBE)["rows"],
    exam=_json(workdir / "exam" / EXAM).get("rows", {}),
    motion_speed=_json(workdir / "motion" / "speed.json"),
    policy_speed=_json(workdir / "policy" / "speed.json"),
    curves={
      (stage, kind): log.read(workdir / stage, kind=kind)
      for stage in ("motion", "policy")
      for kind in ("train", "validation")
    },
    rollout=_json(workdir / "rollout" / ROLLOUT),
    served=_json(workdir / "serve" / SERVED),
  )


def films(products: quickstart_page.Products) -> dict[str, np.ndarray]:
  """Frames of the recorded episodes, evenly spaced: caption -> uint8 [F, H, W, 3]."""
  result = {}
  for episode in products.rollout["episodes"]:
    if episode["video"]:
      path = products.workdir / "rollout" / episode["video"]
      frames = [image for _, image in video.read(str(path), video.Geometry(128, "squash"))]
      chosen = np.linspace(0, len(frames) - 1, FILM).round().astype(int)
      caption = f"{episode['task']}: {'success' if episode['success'] else 'failure'}"
      result[caption] = np.stack([frames[i] for i in chosen])
  return result


def all_episodes_played(results: pathlib.Path) -> bool:
  """Whether rollouts are finished: no episode has ended by an error."""
  return results.exists() and not _json(results)["errors"]


def _json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file; {} if it does not exist, because its stage was left out."""
  return json.loads(path.read_text()) if path.is_file() else {}
