"""A simulator that needs no package: a point on a line must be brought to 1.

Some of its tasks crash, raise or hang.
"""

import os
import pathlib
import time

import numpy as np

from como_jax import errors
from como_jax.sim import base
from tests import limits

TASKS = {
  "line": "go to one",
  "far": "go far away",
  "raises": "raise",
  "dies": "die",
  "hangs": "hang",
  "refuses": "refuse",
  "once": "die the first time",
  "black": "show nothing",
  "some_suite/0": "go to one",
  "some_suite/1": "go to one again",
}
CAMERAS = ("front", "side")
VERSION = "toy 1"
ACTIONS = ("push", "unused")


def build(task, *, cameras=(), image_size=8, stride=1, scene=0, speed=1.0):
  if task not in TASKS:
    raise errors.UserError(f"toy task {task!r} is unknown: {errors.nearest(task, TASKS)}")
  for camera in cameras:
    if camera not in CAMERAS:
      raise errors.UserError(f"toy camera {camera!r} is unknown: {errors.nearest(camera, CAMERAS)}")
  return Toy(task, cameras, image_size, speed)


class Toy(base.Stepper):
  """Position starts at seed / 100 and moves by 0.01 times the action each control step.

  `rendered` counts observations.
  """

  def __init__(self, task, cameras, image_size, speed, **changes):
    super().__init__(
      base.Spec(
        **dict(
          name=f"toy/{task}",
          robot="toy",
          instruction=TASKS[task],
          cameras=dict.fromkeys(cameras, (image_size, image_size)),
          state_names=("position", "rendered"),
          action_names=ACTIONS,
          action_low=np.full(2, -1, np.float32),
          action_high=np.full(2, 1, np.float32),
          fps=20.0,
          stride=1,
          max_steps=200,
          initial_states=50,
        )
        | changes
      ),
      0,
    )
    self._task, self._size, self._speed = task, image_size, speed

  def _restart(self, seed, scene):
    self._position, self._rendered, self._look = seed / 100, 0, scene
    if self._task == "once":
      flag = pathlib.Path(os.environ["TOY_FLAG"])
      if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), 9)

  def _advance(self, action):
    if self._task == "raises":
      raise FloatingPointError("unstable")
    if self._task == "dies":
      os._exit(7)
    if self._task == "hangs":
      time.sleep(limits.SAFETY_NET)
    if self._task == "refuses":
      raise errors.UserError("no OpenGL here")
    self._position += 0.01 * self._speed * float(action[0])
    return self._position >= (10 if self._task == "far" else 1) - 1e-6

  def observe(self, cameras=None):
    self._rendered += 1
    return super().observe(cameras)

  def _state(self):
    return np.array([self._position, self._rendered], np.float32)

  def _frame(self, camera):
    frame = np.zeros((self._size, self._size, 3), np.uint8)
    if self._task != "black":
      frame[:, : self._size // 2] = (100 if camera == "front" else 200) + 50 * self._look
      frame[0, 0] = self._steps % 256
    return frame

  def expert(self):
    return np.array([1, 0], np.float32)

  def close(self):
    pass
