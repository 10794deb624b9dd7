"""Fetch arm of gymnasium-robotics 1.4 (MIT license): reach, push, pick-and-place.

A second embodiment beside Meta-World.

The environments are built directly, without gymnasium's wrappers, and rendered by our own renderer.
The control rate is 25 steps per second (20 physics steps of 2 ms). Gymnasium's limit is 50 steps.
Here it is 100, because slowed experts need more.

Action [4]: x, y, z move of the gripper (1.0 = 5 cm per control step), gripper (1 opens, -1 closes).
State [4]: x, y, z of the gripper in meters, gripper opening (0 closed .. 1 open).
The goal marker (red ball) is visible in the images. Goals and objects are sampled from the seed. A
block may already lie at its goal, as in the original tasks.
"""

import contextlib
import io

import numpy as np

from como_jax.sim import base, rendering, scenes

rendering.choose_backend()

import mujoco

# the package prints advice about its hand environments
with contextlib.redirect_stderr(io.StringIO()):
  from gymnasium_robotics.envs.fetch import pick_and_place, push, reach

VERSION = f"gymnasium-robotics 1.4.2 (mujoco {mujoco.__version__})"
EXPERT = "scripted expert (proportional controller that knows the positions of block and goal)"
ROBOT = "fetch"
TASKS = {
  "reach": "move the gripper to the red ball",
  "push": "push the block to the red ball",
  "pick-and-place": "pick up the block and hold it at the red ball",
}
# Free cameras, because the model's own cameras see little of the table: look-at point [m],
# distance [m], azimuth and elevation [deg].
_VIEWS = {
  "front": ((1.30, 0.75, 0.50), 1.25, 180.0, -28.0),
  "side": ((1.30, 0.75, 0.50), 1.25, 100.0, -25.0),
  "corner": ((1.30, 0.75, 0.50), 1.30, 132.0, -30.0),
  "top": ((1.30, 0.75, 0.42), 1.30, 180.0, -80.0),
}
CAMERAS = tuple(_VIEWS)
STATE_NAMES = ("gripper_x", "gripper_y", "gripper_z", "gripper_opening")
ACTION_NAMES = ("delta_x", "delta_y", "delta_z", "gripper")
MAX_STEPS = 100
_FINGER_RANGE = 0.05  # meters, each finger
_GAIN = 10.0  # action per meter
_CLOSING_STEPS = 5


def build(
  task: str,
  *,
  cameras: tuple[str, ...] = ("front", "side"),
  image_size: int = 128,
  stride: int = 1,
  scene: int = 0,
) -> "Fetch":
  """Builds one task.

  Args:
    task: a key of `TASKS`.
    cameras: from `CAMERAS`.
    image_size: height and width of frames, pixels.
    stride: control steps for which `step` holds an action.
    scene: appearance of episodes whose `reset` sets no scene.
  """
  return Fetch(task, cameras=cameras, image_size=image_size, stride=stride, scene=scene)


class Fetch(base.Stepper):
  """`base.Simulator` over one Fetch environment."""

  def __init__(
    self, task: str, *, cameras: tuple[str, ...], image_size: int, stride: int, scene: int
  ):
    base.check("Fetch", task, TASKS, cameras, CAMERAS, stride)
    kinds = {
      "reach": reach.MujocoFetchReachEnv,
      "push": push.MujocoFetchPushEnv,
      "pick-and-place": pick_and_place.MujocoFetchPickAndPlaceEnv,
    }
    self._task, self._env = task, kinds[task]()
    self._expert = _Expert(task)
    self._observed: dict[str, np.ndarray] = {}  # empty before the first `reset`
    self._goal_marker = int(self._env.model.site("target0").id)
    self._renderer = rendering.Renderer(self._env.model, image_size, f"fetch/{task}")
    self._scenes = scenes.Scenes(
      self._env.model,
      surfaces=("floor_mat", "table_mat", "robot0:arm_mat", "robot0:torso_mat", "robot0:head_mat"),
      recolored=(-1.0, -1.0, -1.0),  # matches no geom: the robot is colored by its materials
    )
    spec = base.Spec(
      name=f"fetch/{task}",
      robot=ROBOT,
      instruction=TASKS[task],
      cameras=dict.fromkeys(cameras, (image_size, image_size)),
      state_names=STATE_NAMES,
      action_names=ACTION_NAMES,
      action_low=np.full(4, -1, np.float32),
      action_high=np.full(4, 1, np.float32),
      fps=round(1 / self._env.dt, 6),
      stride=stride,
      max_steps=MAX_STEPS,
      gripper_open=1.0,
    )
    super().__init__(spec, scene)

  def expert(self) -> np.ndarray:
    """See `base.Simulator.expert`."""
    return self._expert(self._observed).astype(np.float32)

  def close(self) -> None:
    """See `base.Simulator.close`."""
    self._renderer.close()

  def _restart(self, seed: int, scene: int) -> None:
    if self._scenes.apply(scene):
      self._renderer.close()
    self._expert = _Expert(self._task)
    self._observed, _ = self._env.reset(seed=seed)

  def _advance(self, action: np.ndarray) -> bool:
    self._observed, _, _, _, info = self._env.step(action)
    return bool(info["is_success"])

  def _state(self) -> np.ndarray:
    fingers = [
      float(self._env.data.joint(f"robot0:{side}_gripper_finger_joint").qpos[0]) for side in "lr"
    ]
    return np.append(self._observed["observation"][:3], np.mean(fingers) / _FINGER_RANGE)

  def _frame(self, camera: str) -> np.ndarray:
    # Moves only the rendered marker. The environment's own method calls mj_forward, so an episode
    # with rendering would differ from one without.
    self._env.data.site_xpos[self._goal_marker] = self._env.goal
    return self._renderer.frame(self._env.data, _free_camera(*_VIEWS[camera]))


def _free_camera(
  lookat: tuple[float, float, float], distance: float, azimuth: float, elevation: float
) -> mujoco.MjvCamera:
  camera = mujoco.MjvCamera()
  camera.lookat[:] = lookat
  camera.distance, camera.azimuth, camera.elevation = distance, azimuth, elevation
  return camera


class _Expert:
  """Proportional controller towards the current sub-goal.

  It returns to an earlier sub-goal when a disturbance undoes it.
  """

  def __init__(self, task: str):
    self._act = {"reach": self._reach, "push": self._push, "pick-and-place": self._pick}[task]
    self._closing = 0

  def __call__(self, observed: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the action [4] for an observation of the environment."""
    gripper, block = observed["observation"][:3], observed["observation"][3:6]
    return self._act(gripper, block, observed["desired_goal"])

  def _reach(self, gripper, block, goal) -> np.ndarray:
    return _towards(gripper, goal, 1.0)

  def _push(self, gripper, block, goal) -> np.ndarray:
    to_goal = goal[:2] - block[:2]
    distance = np.linalg.norm(to_goal)
    direction = to_goal / max(distance, 1e-6)
    behind = np.append(block[:2] - 0.065 * direction, block[2])
    offset = gripper[:2] - block[:2]
    along, across = offset @ direction, np.linalg.norm(offset - (offset @ direction) * direction)
    # the gripper is behind the block and low: push
    if along < 0 and across < 0.02 and gripper[2] < block[2] + 0.03:
      target = np.append(block[:2] + min(distance, 0.05) * direction, block[2])
      return _towards(gripper, target, -1.0, gain=6.0)
    if np.linalg.norm(gripper[:2] - behind[:2]) < 0.02:
      return _towards(gripper, behind, -1.0)
    high = block[2] + 0.08
    if gripper[2] < high - 0.03:  # rise before going around, or the fingers drag the block along
      return _towards(gripper, [*gripper[:2], high], -1.0)
    return _towards(gripper, [*behind[:2], high], -1.0)

  def _pick(self, gripper, block, goal) -> np.ndarray:
    gap, across = np.linalg.norm(block - gripper), np.linalg.norm((block - gripper)[:2])
    if gap > 0.04:  # the block was lost or is not yet reached
      self._closing = 0
    if self._closing > _CLOSING_STEPS:
      return _towards(gripper, gripper + goal - block, -1.0)
    if self._closing or gap < 0.012:
      self._closing += 1
      return np.array([0.0, 0.0, 0.0, -1.0])
    return _towards(gripper, block if across < 0.015 else block + [0, 0, 0.08], 1.0)


def _towards(position, target, gripper: float, gain: float = _GAIN) -> np.ndarray:
  return np.append(np.clip((np.asarray(target) - position) * gain, -1, 1), gripper)
