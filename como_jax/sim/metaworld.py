"""Meta-World 3 (MIT licence): 50 table-top tasks of a Sawyer arm with scripted experts.

Frames are drawn by our own `mujoco.Renderer`, because gymnasium's `render()` silently returns black frames after
another environment of the process was closed; shadows, anti-aliasing and reflections are off, which is 5 to 8 times
faster on software OpenGL. The control rate is 80 steps a second (5 physics steps of 2.5 ms).

Action [4]: x, y, z move of the hand's target (1.0 = 1 cm a control step), gripper effort (1 closes, -1 opens).
State [4]: x, y, z of the hand in metres, gripper opening (0 closed .. 1 open).
The goal marker of a task is part of the picture.
"""

import functools
import warnings

import numpy as np

from como_jax import errors
from como_jax.sim import base, rendering, scenes

rendering.choose_backend()

import metaworld  # noqa: E402  MuJoCo reads MUJOCO_GL while it is imported
import mujoco  # noqa: E402
from metaworld import policies  # noqa: E402

VERSION = f"metaworld 3.1.1 (mujoco {mujoco.__version__})"
ROBOT = "sawyer"
CAMERAS = ("corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV")
_UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")  # their up axes point down: turned by 180 degrees
STATE_NAMES = ("hand_x", "hand_y", "hand_z", "gripper_opening")
ACTION_NAMES = ("delta_x", "delta_y", "delta_z", "gripper")

TASKS = {
  "assembly": "put the ring on the peg",
  "basketball": "drop the ball into the basket",
  "bin-picking": "move the block into the other bin",
  "box-close": "close the box with its lid",
  "button-press": "press the button on the front",
  "button-press-topdown": "press the button from above",
  "button-press-topdown-wall": "press the button from above behind the wall",
  "button-press-wall": "press the button on the front behind the wall",
  "coffee-button": "press the button of the coffee machine",
  "coffee-pull": "pull the mug away from the coffee machine",
  "coffee-push": "push the mug under the coffee machine",
  "dial-turn": "turn the dial",
  "disassemble": "take the ring off the peg",
  "door-close": "close the door",
  "door-lock": "lock the door",
  "door-open": "open the door",
  "door-unlock": "unlock the door",
  "drawer-close": "close the drawer",
  "drawer-open": "open the drawer",
  "faucet-close": "turn the faucet off",
  "faucet-open": "turn the faucet on",
  "hammer": "hammer the nail into the wall",
  "hand-insert": "put the block into the hole with the hand",
  "handle-press": "press the handle down",
  "handle-press-side": "press the handle down from the side",
  "handle-pull": "pull the handle up",
  "handle-pull-side": "pull the handle up from the side",
  "lever-pull": "pull the lever up",
  "peg-insert-side": "insert the peg into the hole",
  "peg-unplug-side": "unplug the peg",
  "pick-out-of-hole": "pick the block out of the hole",
  "pick-place": "pick up the block and hold it at the goal",
  "pick-place-wall": "carry the block over the wall to the goal",
  "plate-slide": "slide the plate into the goal",
  "plate-slide-back": "slide the plate back out of the goal",
  "plate-slide-back-side": "slide the plate sideways out of the goal",
  "plate-slide-side": "slide the plate sideways into the goal",
  "push": "push the block to the goal",
  "push-back": "push the block backwards to the goal",
  "push-wall": "push the block around the wall to the goal",
  "reach": "reach the goal with the hand",
  "reach-wall": "reach the goal behind the wall",
  "shelf-place": "put the block on the shelf",
  "soccer": "kick the ball into the goal",
  "stick-pull": "pull the thermos with the stick",
  "stick-push": "push the thermos with the stick",
  "sweep": "sweep the block off the table",
  "sweep-into": "sweep the block into the hole",
  "window-close": "close the window",
  "window-open": "open the window",
}


def build(
  task: str, *, cameras: tuple[str, ...] = ("corner2", "corner"), image_size: int = 128, stride: int = 1, scene: int = 0
) -> "MetaWorld":
  """One task.

  Args:
    task: a key of `TASKS`.
    cameras: from `CAMERAS`.
    image_size: height and width of frames, pixels.
    stride: control steps that `step` holds an action for.
    scene: appearance until a `reset` names another.
  """
  return MetaWorld(task, cameras=cameras, image_size=image_size, stride=stride, scene=scene)


class MetaWorld:
  """`base.Simulator` over one Meta-World environment."""

  def __init__(self, task: str, *, cameras: tuple[str, ...], image_size: int, stride: int, scene: int):
    if task not in TASKS:
      raise errors.UserError(f"Meta-World task {task!r} is unknown: {errors.nearest(task, TASKS)}")
    for camera in cameras:
      if camera not in CAMERAS:
        raise errors.UserError(f"Meta-World camera {camera!r} is unknown: {errors.nearest(camera, CAMERAS)}")
    if stride < 1:
      raise errors.UserError(f"stride = {stride}: expected a number of control steps >= 1")
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      self._env = _classes()[task](seed=0)
    self._env.seeded_rand_vec = True  # goals and objects come from the seed of `reset`, not from a fixed vector
    self._env._freeze_rand_vec = False
    self._policy = policies.ENV_POLICY_MAP[f"{task}-v3"]()
    self._size, self._scene, self._renderer = image_size, scene, None
    model = self._env.model
    model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
    self._scenes = scenes.Scenes(
      model, surfaces=("basic_floor", "table_wood", "wall_metal"), recoloured=(0.5, 0.1, 0.1)
    )
    self._observed, self._success, self._steps = None, False, 0
    self.spec = base.Spec(
      name=f"metaworld/{task}",
      robot=ROBOT,
      instruction=TASKS[task],
      cameras={camera: (image_size, image_size) for camera in cameras},
      state_names=STATE_NAMES,
      action_names=ACTION_NAMES,
      action_low=np.full(4, -1, np.float32),
      action_high=np.full(4, 1, np.float32),
      fps=round(1 / self._env.dt, 6),
      stride=stride,
      max_steps=int(self._env.max_path_length) - 1,
    )

  def reset(self, seed: int, *, scene: int | None = None) -> base.Observation:
    """See `base.Simulator.reset`; scene None keeps the one given to `build`."""
    self.restart(seed, scene=scene)
    return self.observe()

  def restart(self, seed: int, *, scene: int | None = None) -> None:
    """`reset` without looking: nothing is rendered."""
    if self._scenes.apply(self._scene if scene is None else scene):
      self.close()
    self._env.seed(int(seed))
    self._policy = type(self._policy)()  # some experts remember the phase they are in
    self._observed, _ = self._env.reset()
    self._success, self._steps = False, 0

  def step(self, action: np.ndarray) -> base.Observation:
    """See `base.Simulator.step`; stops early at `max_steps`."""
    for _ in range(self.spec.stride):
      if not self.done:
        self.advance(action)
    return self.observe()

  def advance(self, action: np.ndarray) -> None:
    """See `base.Simulator.advance`."""
    if self._observed is None or self.done:
      raise RuntimeError(f"{self.spec.name}: call reset before stepping (after {self._steps} control steps)")
    action = np.clip(np.asarray(action, np.float32), self.spec.action_low, self.spec.action_high)
    self._observed, _, _, _, info = self._env.step(action)
    self._steps += 1
    self._success = self._success or bool(info["success"])

  def observe(self, cameras: tuple[str, ...] | None = None) -> base.Observation:
    """The present observation with frames of `cameras` (all of the spec's when None)."""
    observation = {base.STATE: self._observed[:4].astype(np.float32), base.TASK: self.spec.instruction}
    for camera in self.spec.cameras if cameras is None else cameras:
      observation[base.IMAGE + camera] = self._render(camera)
    return observation

  def expert(self) -> np.ndarray:
    """See `base.Simulator.expert`."""
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # the experts ask for more than 1 on purpose and warn about it
      action = np.asarray(self._policy.get_action(self._observed), np.float32)
    return np.clip(action, self.spec.action_low, self.spec.action_high)

  @property
  def success(self) -> bool:
    return self._success

  @property
  def done(self) -> bool:
    return self._steps >= self.spec.max_steps

  def close(self) -> None:
    if self._renderer is not None:
      self._renderer.close()
      self._renderer = None

  def _render(self, camera: str) -> np.ndarray:
    """Upright uint8 [H, W, 3]."""
    if self._renderer is None:
      try:
        self._renderer = mujoco.Renderer(self._env.model, self._size, self._size)
      except Exception as error:  # every backend fails in its own way
        raise errors.UserError(
          f"{self.spec.name}: MuJoCo cannot render here ({type(error).__name__}: {error}). Unset MUJOCO_GL, import "
          f"como_jax.sim before mujoco, or `apt-get install -y {rendering.PACKAGES['egl']}`"
        ) from error
    self._renderer.update_scene(self._env.data, camera=camera)
    self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
    self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    frame = self._renderer.render()
    return np.ascontiguousarray(frame[::-1, ::-1]) if camera in _UPSIDE_DOWN else frame.copy()


@functools.cache
def _classes() -> dict[str, type]:
  """Task -> environment class with the goal in its observation, which the experts need."""
  found = metaworld.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
  return {task: found[f"{task}-v3-goal-observable"] for task in TASKS}
