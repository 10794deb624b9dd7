"""Fetch: video of a simulator, stored without actions."""

import dataclasses
import importlib.util
import json

import pytest

from tests.sim.collection import SETTINGS


@pytest.mark.sim
def test_video_of_another_simulator_has_no_actions(tmp_path):
  if importlib.util.find_spec("gymnasium_robotics") is None:
    pytest.skip("pip install -r requirements-fetch.txt")
  from como_jax import config as config_lib
  from como_jax.data.sources import lerobot
  from como_jax.tasks import collect as task

  section = dataclasses.asdict(
    dataclasses.replace(
      SETTINGS,
      simulator="fetch",
      cameras=("front", "side", "top"),
      cameras_per_episode=0,
      motions=2,
      repeated=0,
      stride=1,
      wander=(4, 4),
      max_steps=100,
      actions=False,
    )
  )
  config = config_lib.ConfigDict(
    dict(
      task="collect",
      output="",
      tasks=("pick-and-place",),
      workers=1,
      collect=section,
      video=dict(crf=30, gop=4),
    )
  )
  path = task.collect_dataset(config, str(tmp_path))
  info = json.loads((path / "meta/info.json").read_text())
  assert (info["fps"], info["robot_type"], info["total_episodes"]) == (25, "fetch", 2)
  assert {f"observation.images.{camera}" for camera in ("front", "side", "top")} < set(
    info["features"]
  )
  assert not {"action", "observation.state", "next.success"} & set(info["features"])
  notes = json.loads((path / "meta/collection.json").read_text())
  assert "without actions" in notes["labeled_as"] and "scripted expert" in notes["labeled_as"]
  assert set(lerobot.LeRobot(str(path))[0].arrays) == {"timestamp"}
