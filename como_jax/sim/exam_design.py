"""The design of the exam: sizes, cameras, and the targets of its moves.

A chain is a clip of three pictures: a start and two moves. `exam_draws` draws a design.

Legend: C chains, V views (a chain seen by one camera in one scene), P = 2V pairs (pair 2v is
pictures 0 -> 1 of view v, 2v + 1 is 1 -> 2).
"""

import dataclasses
import math

import numpy as np

from como_jax import errors

TIERS = ("hand", "pushed")  # the target is the move of the hand, or of an object that was pushed
NAMES = {"hand": ("right", "down", "depth", "gripper", "wrist"), "pushed": ("right", "away")}
ROBOT_NAMES = {"hand": ("x", "y", "z", "gripper", "wrist"), "pushed": ("x", "y")}
# parts: for fitting; unseen cameras and scenes; unseen scenes with the cameras of FIT
FIT, TEST, SAME_CAMERA = 0, 1, 2

CENTER = np.array([0.0, 0.6, 0.3])  # of the hand's positions, meters in the robot's frame
START_RADIUS, MOVE_RADIUS = 0.12, 0.07  # of the balls of starts and moves, meters
# half widths about 0.5 and about 0; opening is 0 (closed) to 1
GRIPPER_START, GRIPPER_MOVE = 0.2, 0.15
# half widths, radians about the vertical
WRIST_START, WRIST_MOVE = math.radians(60), math.radians(36)
TABLE_CENTER = np.array([0.0, 0.6])
PUSHED_HEIGHT = 0.03  # meters: height of the pushed object's center above the table
PUSHED_START, PUSHED_MOVE = 0.14, 0.08  # radii of discs on the table, meters
FIELD = 0.6  # meters: width of the picture at CENTER, the same for every camera

# Azimuth and elevation (degrees) of a camera about CENTER, and its distance in meters. The test
# cameras stand between the others.
CAMERAS = (
  (-35, 30, 0.95),
  (20, 20, 1.2),
  (85, 25, 1.3),
  (145, 30, 1.1),
  (-65, 40, 1.1),
  (-5, 45, 1.1),
  (55, 35, 0.9),
  (180, 20, 0.95),
  (70, 50, 1.0),
  (160, 40, 1.05),
)
FIT_CAMERAS, TEST_CAMERAS = (0, 1, 2, 3, 4), (5, 6, 7)
FIT_MOVING, TEST_MOVING = 8, 9  # cameras that move
# radius of the ball of a moving camera's positions, half width of its rotations
RIG_SHIFT, RIG_TURN = 0.06, math.radians(3)
SPEEDS = (0.0, 1 / 3, 2 / 3, 1.0)


@dataclasses.dataclass(frozen=True)
class Settings:
  """Sizes of the exam.

  Attributes:
    seed: seed of all random numbers.
    image_size: height and width of the pictures, pixels.
    quality: constant rate factor of the H.264 video of each tier.
    fit_chains: chains for fitting.
    fit_views: views of each of them; camera, scene, objects and colors are drawn independently.
    test_chains: chains seen by every fixed test camera in every test scene, and once by the moving
      camera.
    more_test_chains: test chains that are seen in two views only. More moves narrow the confidence
      intervals; more views do not.
    pushed_fit_chains: chains for fitting in the tier of the pushed object.
    pushed_test_chains: its test chains; they have no moving camera.
    fit_scenes: numbers of the appearances for fitting (`sim.scenes`).
    test_scenes: numbers of the appearances of the test.
    objects: sets of objects in the fit part; every test scene has its own set.
    palettes: robot colors in the fit part; every test scene has its own color.
  """

  seed: int
  image_size: int
  quality: tuple[int, int]
  fit_chains: int
  fit_views: int
  test_chains: int
  more_test_chains: int
  pushed_fit_chains: int
  pushed_test_chains: int
  fit_scenes: tuple[int, ...]
  test_scenes: tuple[int, ...]
  objects: int
  palettes: int

  def __post_init__(self):
    chains = ("fit_chains", "test_chains", "pushed_fit_chains", "pushed_test_chains")
    for name in (*chains, "objects", "palettes"):
      if getattr(self, name) < 2:
        raise errors.UserError(f"exam.{name} = {getattr(self, name)}: expected at least 2")
    if both := set(self.fit_scenes) & set(self.test_scenes):
      raise errors.UserError(
        f"exam: scenes {sorted(both)} are in fit_scenes and in test_scenes: expected different ones"
      )


@dataclasses.dataclass(frozen=True)
class Design:
  """All random draws of the exam.

  Attributes:
    poses: float64 [C, 3, 5] of the hand: x, y, z (meters), gripper opening, wrist (radians).
    pushed: float64 [C, 3, 2], x, y of the pushed object, meters; nan where the tier has none.
    tier: int [C], index into `TIERS`.
    views: name -> int [V]: "chain", "camera", "scene", "objects", "palette", "part".
    camera_speed: float [V, 2] of the camera during each pair, as a fraction (0..1) of `RIG_SHIFT`
      and `RIG_TURN`.
    camera_shift: float [V, 3, 3], meters: offset of the camera from its base at each picture.
    camera_turn: float [V, 3, 3], radians: rotation from its base, as a rotation vector.
  """

  poses: np.ndarray
  pushed: np.ndarray
  tier: np.ndarray
  views: dict[str, np.ndarray]
  camera_speed: np.ndarray
  camera_shift: np.ndarray
  camera_turn: np.ndarray


def camera_base(camera: int) -> tuple[np.ndarray, np.ndarray, float]:
  """Pose and field of view of a camera at its base.

  Returns:
    (position [3] in meters, rotation [3, 3] whose columns are the camera's right, up and backward
    axes, vertical field of view in degrees).
  """
  azimuth, elevation, distance = CAMERAS[camera]
  a, e = math.radians(azimuth), math.radians(elevation)
  backward = np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
  right = np.cross([0.0, 0.0, 1.0], backward)
  right /= np.linalg.norm(right)
  return (
    CENTER + distance * backward,
    np.stack([right, np.cross(backward, right), backward], axis=1),
    math.degrees(2 * math.atan(FIELD / 2 / distance)),
  )


def camera_at(design: Design, view: int, picture: int) -> tuple[np.ndarray, np.ndarray, float]:
  """As `camera_base`, for the camera of a view at one of its pictures."""
  position, rotation, fovy = camera_base(int(design.views["camera"][view]))
  return (
    position + rotation @ design.camera_shift[view, picture],
    rotation @ _turn(design.camera_turn[view, picture]),
    fovy,
  )


def _turn(vector: np.ndarray) -> np.ndarray:
  """Rotation matrix of a rotation vector [3] (Rodrigues)."""
  angle = np.linalg.norm(vector)
  if angle == 0:
    return np.eye(3)
  x, y, z = vector / angle
  cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
  return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def targets(design: Design, tier: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Targets of the pairs of a tier's views, without the camera's own motion.

  Returns:
    (views int [v], moves in the frame of the first picture's camera [2v, A], moves in the robot's
    frame [2v, A]). Lengths are in widths of the picture at `CENTER`; `NAMES` and `ROBOT_NAMES` name
    the A dimensions.
  """
  views = np.flatnonzero(design.tier[design.views["chain"]] == tier)
  in_camera, in_robot = [], []
  for view in views:
    chain = design.views["chain"][view]
    path = design.pushed[chain] if tier else design.poses[chain]
    for first in (0, 1):
      move = path[first + 1] - path[first]
      _, rotation, _ = camera_at(design, int(view), first)
      in_camera.append(_in_axes(move, tier, rotation))
      in_robot.append(_in_axes(move, tier, None))
  return views, np.array(in_camera), np.array(in_robot)


def _in_axes(vector: np.ndarray, tier: int, rotation: np.ndarray | None) -> np.ndarray:
  """Expresses a move or a position [A] of the robot's frame in the axes of a camera.

  Args:
    vector: [A], meters and, in tier 0, gripper opening and wrist angle.
    tier: index into `TIERS`.
    rotation: [3, 3] of the camera; None = the axes of the robot.

  Returns:
    [A], lengths in widths of the picture.
  """
  if rotation is None:
    return vector / FIELD if tier else np.array([*vector[:3] / FIELD, *vector[3:]])
  if tier:
    right, backward = rotation[:2, 0], rotation[:2, 2]
    return (
      np.array(
        [right @ vector / np.linalg.norm(right), -(backward @ vector) / np.linalg.norm(backward)]
      )
      / FIELD
    )
  right, up, backward = rotation.T @ vector[:3] / FIELD
  return np.array([right, -up, -backward, *vector[3:]])


def states(design: Design, tier: int, picture: int, *, camera: bool = True) -> np.ndarray:
  """The true pose at one picture of each pair of a tier: the knowledge of a one-picture oracle.

  Args:
    design: of the exam.
    tier: index into `TIERS`.
    picture: 0 (first) or 1 (second) of the pair.
    camera: whether to use the axes of the first picture's camera; False = the robot's axes.

  Returns:
    [2v, A], relative to the center of the start positions.
  """
  center = TABLE_CENTER if tier else np.array([*CENTER, 0.5, 0.0])
  rows = []
  for view in np.flatnonzero(design.tier[design.views["chain"]] == tier):
    path = (design.pushed if tier else design.poses)[design.views["chain"][view]] - center
    for first in (0, 1):
      _, rotation, _ = camera_at(design, int(view), first)
      rows.append(_in_axes(path[first + picture], tier, rotation if camera else None))
  return np.array(rows)


def places(design: Design, tier: int) -> np.ndarray:
  """Image positions of the hand (or the pushed object) in each picture of a tier's views.

  Returns:
    [v, 3, 2], to the right and down from the center of the picture, in widths of the picture.
  """
  positions = []
  for view in np.flatnonzero(design.tier[design.views["chain"]] == tier):
    chain = design.views["chain"][view]
    for picture in range(3):
      point = (
        np.array([*design.pushed[chain, picture], PUSHED_HEIGHT])
        if tier
        else design.poses[chain, picture, :3]
      )
      position, rotation, fovy = camera_at(design, int(view), picture)
      right, up, backward = rotation.T @ (point - position)
      positions.append(np.array([right, -up]) / (-backward * 2 * math.tan(math.radians(fovy) / 2)))
  return np.array(positions).reshape(-1, 3, 2)
