"""Names of what a robot observes, the same in data sets, simulators, policies and servers.

  STATE            "observation.state"            float32 [S]      proprioception
  IMAGE + camera   "observation.images.<camera>"  uint8 [H, W, 3]  RGB
  TASK             "task"                         str              language instruction

They are LeRobot's.
"""

from collections.abc import Mapping
from typing import Any

STATE, IMAGE, TASK = "observation.state", "observation.images.", "task"

Observation = Mapping[str, Any]


def cameras(observation: Observation) -> list[str]:
  """Names of the cameras that an observation has, in its order."""
  return [key.removeprefix(IMAGE) for key in observation if key.startswith(IMAGE)]
