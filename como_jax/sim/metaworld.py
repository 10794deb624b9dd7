"""Meta-World 3 (MIT license): 50 table-top tasks of a Sawyer arm with scripted experts.

Our own renderer draws the frames, because gymnasium's `render()` silently returns black frames
after another environment of the process was closed. The control rate is 80 steps per second (5
physics steps of 2.5 ms).

Action [4]: x, y, z move of the hand's target (1.0 = 1 cm per control step), gripper effort (1
closes, -1 opens).
State [4]: x, y, z of the hand in meters, gripper opening (0 closed .. 1 open).
The goal marker of a task is visible in the images.
"""

import functools
import warnings

import numpy as np

from como_jax.sim import base, rendering, scenes

rendering.choose_backend()

import metaworld.env_dict
import mujoco
from metaworld import policies

VERSION = f"metaworld 3.1.1 (mujoco {mujoco.__version__})"
EXPERT = "scripted expert (Meta-World's own policies)"
ROBOT = "sawyer"
CAMERAS = ("corner", "corner2", "corner3", "corner4", "topview", "behindGripper", "gripperPOV")
# the up axes of these cameras point down, so their frames are rotated by 180 degrees
_UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")
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
  task: str,
  *,
  cameras: tuple[str, ...] = ("corner2", "corner"),
  image_size: int = 128,
  stride: int = 1,
  scene: int = 0,
) -> "MetaWorld":
  """Builds one task.

  Args:
    task: a key of `TASKS`.
    cameras: from `CAMERAS`.
    image_size: height and width of frames, pixels.
    stride: control steps for which `step` holds an action.
    scene: appearance of episodes whose `reset` sets no scene.
  """
  return MetaWorld(task, cameras=cameras, image_size=image_size, stride=stride, scene=scene)


class MetaWorld(base.Stepper):
  """`base.Simulator` over one Meta-World environment."""

  def __init__(
    self, task: str, *, cameras: tuple[str, ...], image_size: int, stride: int, scene: int
  ):
    base.check("Meta-World", task, TASKS, cameras, CAMERAS, stride)
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      self._env = _classes()[task](seed=0)
    # goals and objects come from the seed of `reset`, not from a fixed vector
    self._env.seeded_rand_vec = True
    self._env._freeze_rand_vec = False
    self._env.touching_object = functools.partial(_touching_object, self._env)
    self._policy = policies.ENV_POLICY_MAP[f"{task}-v3"]()
    model = self._env.model
    self._renderer = rendering.Renderer(model, image_size, f"metaworld/{task}")
    self._scenes = scenes.Scenes(
      model, surfaces=("basic_floor", "table_wood", "wall_metal"), recolored=(0.5, 0.1, 0.1)
    )
    spec = base.Spec(
      name=f"metaworld/{task}",
      robot=ROBOT,
      instruction=TASKS[task],
      cameras=dict.fromkeys(cameras, (image_size, image_size)),
      state_names=STATE_NAMES,
      action_names=ACTION_NAMES,
      action_low=np.full(4, -1, np.float32),
      action_high=np.full(4, 1, np.float32),
      fps=round(1 / self._env.dt, 6),
      stride=stride,
      max_steps=int(self._env.max_path_length) - 1,
    )
    super().__init__(spec, scene)

  def expert(self) -> np.ndarray:
    """See `base.Simulator.expert`."""
    with warnings.catch_warnings():
      # the experts command more than 1 on purpose and warn about it
      warnings.simplefilter("ignore")
      action = np.asarray(self._policy.get_action(self._observed), np.float32)
    return np.clip(action, self.spec.action_low, self.spec.action_high)

  def close(self) -> None:
    """See `base.Simulator.close`."""
    self._renderer.close()

  def _restart(self, seed: int, scene: int) -> None:
    if self._scenes.apply(scene):
      self._renderer.close()
    self._env.seed(seed)
    self._policy = type(self._policy)()  # some experts store their phase
    self._observed, _ = self._env.reset()

  def _advance(self, action: np.ndarray) -> bool:
    self._observed, _, _, _, info = self._env.step(action)
    return bool(info["success"])

  def _state(self) -> np.ndarray:
    return self._observed[:4]

  def _frame(self, camera: str) -> np.ndarray:
    frame = self._renderer.frame(self._env.data, camera)
    return np.ascontiguousarray(frame[::-1, ::-1]) if camera in _UPSIDE_DOWN else frame


def _touching_object(env, geom: int) -> bool:
  """Whether both pads press on the object, like Meta-World's method of that name.

  The original loops over contacts in Python, which takes up to half the time of a control step.
  """
  data = env.data
  pairs = np.asarray(data.contact.geom).reshape(-1, 2)
  address, on_object = np.asarray(data.contact.efc_address), (pairs == geom).any(axis=1)
  pads = (env.model.geom(name).id for name in ("leftpad_geom", "rightpad_geom"))
  return all(
    data.efc_force[address[on_object & (pairs == pad).any(axis=1)]].sum() > 0 for pad in pads
  )


@functools.cache
def _classes() -> dict[str, type]:
  """Task -> environment class with the goal in its observation, which the experts need."""
  classes = metaworld.env_dict.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
  return {task: classes[f"{task}-v3-goal-observable"] for task in TASKS}
