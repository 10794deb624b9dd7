"""The exam's world: Meta-World's Sawyer arm, posed by inverse kinematics.

It adds objects on the table and other surfaces, colors and cameras. Poses are set, never simulated.
A pose is a pure function of the target hand, gripper and wrist, so it does not depend on the
picture before. Legend: H W picture.
"""

import math
import pathlib

import numpy as np

from como_jax import errors
from como_jax.sim import exam_design, rendering, scenes

rendering.choose_backend()

import metaworld
import mujoco

VERSION = f"metaworld {getattr(metaworld, '__version__', '3.1.1')} (mujoco {mujoco.__version__})"
_ARM = tuple(f"right_j{i}" for i in range(7))
# joint angles where inverse kinematics always starts, radians
_HOME = np.array([1.89, -0.58, -0.98, 1.64, 0.94, 1.04, 2.29])
# objects of the model, and how many of them lie on the table
_OBJECTS, _PER_SET = 5, 4
_CLOSED, _TRAVEL = 0.04, 0.075  # of a finger along its rail, meters
_REACH = 1e-4  # tolerance of a pose, meters and radians
_HIDDEN = np.array([0.0, 0.0, -5.0])


class World:
  """One compiled model; `render` poses it and renders a picture."""

  def __init__(self, image_size: int):
    self._model = _compile()
    self._data = mujoco.MjData(self._model)
    self._renderer = rendering.Renderer(self._model, image_size, "exam")
    self._scenes = scenes.Scenes(
      self._model, surfaces=("basic_floor", "table_wood", "wall_metal"), recolored=(0.5, 0.1, 0.1)
    )
    self._joints = np.array([self._model.joint(name).qposadr[0] for name in _ARM])
    self._columns = np.array([self._model.joint(name).dofadr[0] for name in _ARM])
    self._links = np.flatnonzero(
      np.isclose(self._model.geom_rgba[:, :3], (0.5, 0.1, 0.1)).all(axis=1)
      & (self._model.geom_matid < 0)
    )
    self._solved: dict[bytes, np.ndarray] = {}

  def set_appearance(self, scene: int, objects: int, palette: int) -> dict[str, np.ndarray]:
    """Sets the appearance.

    Args:
      scene: number of the appearance (`sim.scenes`).
      objects: number of the set of objects.
      palette: number of the robot's color.

    Returns:
      "light" [3] (brightness, x, y), and the colors "table" [3] and "robot" [3] in 0..1.
    """
    model = self._model
    if self._scenes.apply(scene):
      self._renderer.close()
    color = np.random.default_rng([31, palette]).uniform(0.05, 0.95, size=3)
    model.geom_rgba[self._links, :3] = color
    rng = np.random.default_rng([37, objects])
    self._arrange_objects(rng)
    table = model.material("table_wood")
    texture = int(next(t for t in model.mat_texid[table.id] if t >= 0))
    start = int(model.tex_adr[texture])
    size = int(model.tex_width[texture]) * int(model.tex_height[texture])
    pixels = model.tex_data[start : start + size * 3].reshape(-1, 3)
    light = float(model.light_diffuse.mean() + model.vis.headlight.diffuse.mean())
    return {
      "light": np.array([light, *model.light_pos[0, :2]]),
      "table": pixels.mean(axis=0) / 255 * model.mat_rgba[table.id, :3],
      "robot": color,
    }

  def render(
    self, pose: np.ndarray, pushed: np.ndarray, camera: tuple[np.ndarray, np.ndarray, float]
  ) -> np.ndarray:
    """Poses the arm and renders one picture.

    Args:
      pose: [5], x, y, z of the hand, gripper opening, wrist.
      pushed: [2], x, y of the pushed object; nan hides it.
      camera: position [3], rotation [3, 3], vertical field of view in degrees.

    Returns:
      uint8 [H, W, 3].
    """
    self._pose(pose)
    model, data = self._model, self._data
    block = model.body("pushed").mocapid[0]
    data.mocap_pos[block] = (
      _HIDDEN if np.isnan(pushed).any() else [*pushed, exam_design.PUSHED_HEIGHT]
    )
    position, rotation, fovy = camera
    number = model.camera("exam").id
    model.cam_pos[number], model.cam_fovy[number] = position, fovy
    mujoco.mju_mat2Quat(model.cam_quat[number], rotation.reshape(-1))
    mujoco.mj_kinematics(model, data)
    mujoco.mj_camlight(model, data)
    return self._renderer.frame(data, "exam")

  def film(
    self, design: exam_design.Design, view: int
  ) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Renders the three pictures of a view.

    Args:
      design: design of the exam.
      view: index of the view in the design.

    Returns:
      (pictures, each uint8 [H, W, 3]; properties of the view as numbers: those of
      `set_appearance`, and "camera" [3], its position from the center, meters).
    """
    labels = {name: int(values[view]) for name, values in design.views.items()}
    appearance = self.set_appearance(labels["scene"], labels["objects"], labels["palette"])
    chain = labels["chain"]
    cameras = [exam_design.camera_at(design, view, picture) for picture in range(3)]
    pictures = [
      self.render(design.poses[chain, picture], design.pushed[chain, picture], camera)
      for picture, camera in enumerate(cameras)
    ]
    return pictures, {**appearance, "camera": cameras[0][0] - exam_design.CENTER}

  def close(self) -> None:
    """Frees the rendering context."""
    self._renderer.close()

  def _arrange_objects(self, rng: np.random.Generator) -> None:
    """Draws shape, size, position and color of the objects on the table; hides the others."""
    model = self._model
    kinds = (
      mujoco.mjtGeom.mjGEOM_BOX,
      mujoco.mjtGeom.mjGEOM_CYLINDER,
      mujoco.mjtGeom.mjGEOM_SPHERE,
    )
    for i in range(_OBJECTS):
      geom = model.geom(f"object{i}").id
      size = rng.uniform(0.02, 0.05, size=3)
      angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 0.42)
      model.geom_type[geom], model.geom_size[geom] = kinds[int(rng.integers(3))], size
      height = (
        size[0]
        if model.geom_type[geom] == kinds[2]
        else size[1]
        if model.geom_type[geom] == kinds[1]
        else size[2]
      )
      position = [
        exam_design.TABLE_CENTER[0] + distance * math.cos(angle),
        exam_design.TABLE_CENTER[1] + 0.75 * distance * math.sin(angle),
        height,
      ]
      model.geom_pos[geom] = position if i < _PER_SET else _HIDDEN
      model.geom_rgba[geom, :3] = rng.uniform(0.05, 0.95, size=3)
      model.geom_rbound[geom] = 0.2

  def _pose(self, pose: np.ndarray) -> None:
    key = np.asarray(pose, np.float64).tobytes()
    if key not in self._solved:
      self._solved[key] = self._solve(pose)
    self._data.qpos[self._joints] = self._solved[key]
    for name, side in (("r_close", 1), ("l_close", -1)):
      self._data.qpos[self._model.joint(name).qposadr[0]] = side * (_CLOSED - _TRAVEL * pose[3])

  def _solve(self, pose: np.ndarray) -> np.ndarray:
    """Finds joint angles [7] of the arm by damped least squares, always from the same start.

    Raises:
      RuntimeError: the pose is out of reach.
    """
    model, data = self._model, self._data
    hand = model.body("hand").id
    cos, sin = math.cos(pose[4]), math.sin(pose[4])
    target_rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ _GRASP
    jacobian_position, jacobian_rotation = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    angles, error = _HOME.copy(), np.full(6, np.inf)
    for _ in range(200):
      data.qpos[self._joints] = angles
      mujoco.mj_kinematics(model, data)
      mujoco.mj_comPos(model, data)
      rotation = target_rotation @ data.xmat[hand].reshape(3, 3).T
      error = np.concatenate([pose[:3] - data.xpos[hand], _rotation_vector(rotation)])
      if np.abs(error).max() < _REACH:
        return angles
      mujoco.mj_jacBody(model, data, jacobian_position, jacobian_rotation, hand)
      jacobian = np.concatenate([jacobian_position, jacobian_rotation])[:, self._columns]
      step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(6), error)
      angles = angles + np.clip(step, -0.3, 0.3)
    raise RuntimeError(
      f"exam: the arm does not reach hand {np.round(pose[:3], 3)} with wrist {pose[4]:.2f}: off "
      f"by {np.abs(error).max():.4f}"
    )


# the hand's axes when it points down
_GRASP = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


def _rotation_vector(matrix: np.ndarray) -> np.ndarray:
  quaternion, vector = np.zeros(4), np.zeros(3)
  mujoco.mju_mat2Quat(quaternion, matrix.reshape(-1))
  mujoco.mju_quat2Vel(vector, quaternion, 1.0)
  return vector


def _compile():
  """Compiles Meta-World's table and arm without a task, with the exam's camera, objects, block."""
  file = pathlib.Path(metaworld.__file__).parent / "assets" / "sawyer_xyz" / "sawyer_reach_v3.xml"
  if not file.is_file():
    raise errors.UserError(f"{file} is missing: install requirements-sim.txt")
  spec = mujoco.MjSpec.from_file(str(file))
  spec.detach_body(spec.body("obj"))
  for element in [spec.site("goal"), *spec.equalities]:
    element.delete()
  # a wider gripper: moves of Meta-World's own gripper change less than one pixel
  for geom in spec.geoms:
    if geom.name == "rail":
      geom.size = [0.012, 0.1, 0.012]
    elif geom.name in ("rightclaw_it", "rightpad_geom", "leftclaw_it", "leftpad_geom"):
      geom.size = [0.045, 0.009, 0.018]
  world = spec.worldbody
  world.add_camera(name="exam")
  # nonzero position and rotation, so that the compiled geom keeps its own frame
  for i in range(_OBJECTS):
    world.add_geom(
      name=f"object{i}",
      type=mujoco.mjtGeom.mjGEOM_BOX,
      size=[0.05, 0.05, 0.05],
      pos=[0, 0, -5 - i],
      quat=[0.9, 0, 0, 0.1],
      rgba=[1, 1, 1, 1],
      contype=0,
      conaffinity=0,
    )
  block = world.add_body(name="pushed", mocap=True, pos=[0, 0, -5])
  block.add_geom(
    type=mujoco.mjtGeom.mjGEOM_BOX,
    size=[0.03, 0.03, 0.03],
    rgba=[0.85, 0.1, 0.1, 1],
    contype=0,
    conaffinity=0,
  )
  return spec.compile()
