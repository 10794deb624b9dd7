"""What the exam shows: poses, moves, views and targets, drawn so that neither picture of a pair
tells the move.

A chain is a clip of three pictures: a start and two moves. Every move is drawn with mean zero,
independently of the start, of the move before it, of the scene, the objects, the colors and the
camera's own motion. Positions and moves of the hand are uniform in balls, so they look the same
along every axis of every camera. Everything is a pure function of the settings.

Legend: C chains, V views (a chain seen by one camera in one scene), P = 2V pairs (pair 2v is
pictures 0 -> 1 of view v, 2v + 1 is 1 -> 2).
"""

import dataclasses
import math

import numpy as np

from como_jax import errors

TIERS = ("hand", "pushed")  # what is asked: the move of the hand, or of an object that was pushed
NAMES = {"hand": ("right", "down", "depth", "gripper", "wrist"), "pushed": ("right", "away")}
ROBOT_NAMES = {"hand": ("x", "y", "z", "gripper", "wrist"), "pushed": ("x", "y")}
# parts: to fit on; unseen cameras and scenes; unseen scenes seen by the cameras of FIT
FIT, TEST, SAME_CAMERA = 0, 1, 2

CENTER = np.array([0.0, 0.6, 0.3])  # of the hand's positions, meters in the robot's frame
START_RADIUS, MOVE_RADIUS = 0.12, 0.07  # of the balls of starts and moves, meters
# half widths about 0.5 and about 0; opening is 0 (closed) to 1
GRIPPER_START, GRIPPER_MOVE = 0.2, 0.15
# half widths, radians about the vertical
WRIST_START, WRIST_MOVE = math.radians(60), math.radians(36)
TABLE_CENTER = np.array([0.0, 0.6])
PUSHED_HEIGHT = 0.03  # meters: of the pushed object's middle above the table
PUSHED_START, PUSHED_MOVE = 0.14, 0.08  # radii of discs on the table, meters
FIELD = 0.6  # meters: width of the picture at CENTER, the same for every camera

# Azimuth and elevation (degrees) of a camera about CENTER, and its distance in meters. Those of the
# test stand between the others.
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
FIT_MOVING, TEST_MOVING = 8, 9  # rigs that move
# radius of the ball of a moving camera's places, half width of its turns
RIG_SHIFT, RIG_TURN = 0.06, math.radians(3)
SPEEDS = (0.0, 1 / 3, 2 / 3, 1.0)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How much is drawn.

  Attributes:
    seed: of everything.
    image_size: height and width of the pictures, pixels.
    quality: constant rate factor of the H.264 video of each tier.
    fit_chains, fit_views: chains to fit on, and how many views each has (camera, scene, objects and
      colors drawn independently).
    test_chains: chains seen by every fixed test camera in every test scene (complete twins), and
      once by the moving camera.
    more_test_chains: chains of the test that are seen in two views only: moves, not views, make
      intervals narrow.
    pushed_fit_chains, pushed_test_chains: the same for the tier in which an object is pushed; its
      test has no moving camera.
    fit_scenes, test_scenes: numbers of appearances (`sim.scenes`).
    objects, palettes: how many sets of objects and robot colors the fit part has; every test scene
      has its own.
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
    for name in (
      "fit_chains",
      "test_chains",
      "pushed_fit_chains",
      "pushed_test_chains",
      "objects",
      "palettes",
    ):
      if getattr(self, name) < 2:
        raise errors.UserError(f"exam.{name} = {getattr(self, name)}: expected at least 2")
    if both := set(self.fit_scenes) & set(self.test_scenes):
      raise errors.UserError(
        f"exam: scenes {sorted(both)} are in fit_scenes and in test_scenes: expected different ones"
      )


@dataclasses.dataclass(frozen=True)
class Design:
  """Everything that is drawn.

  Attributes:
    poses: float64 [C, 3, 5] of the hand: x, y, z (meters), gripper opening, wrist (radians).
    pushed: float64 [C, 3, 2]: x, y of the pushed object, meters; nan where the tier has none.
    tier: int [C], index into `TIERS`.
    views: name -> int [V]: "chain", "camera", "scene", "objects", "palette", "part".
    camera_speed: float [V, 2] of the camera during each pair, in 0..1 of `RIG_SHIFT` and
      `RIG_TURN`.
    camera_shift, camera_turn: float [V, 3, 3] meters and radians, of the camera at each picture
      from its base.
  """

  poses: np.ndarray
  pushed: np.ndarray
  tier: np.ndarray
  views: dict[str, np.ndarray]
  camera_speed: np.ndarray
  camera_shift: np.ndarray
  camera_turn: np.ndarray


def draw(settings: Settings) -> Design:
  """The design of a settings record."""
  rng = np.random.default_rng([settings.seed, 20_261_127])
  poses, pushed, tier, part = [], [], [], []
  for number, (fit, test) in enumerate(
    (
      (settings.fit_chains, settings.test_chains + settings.more_test_chains),
      (settings.pushed_fit_chains, settings.pushed_test_chains),
    )
  ):
    count = fit + test
    poses.append(_poses(rng, count))
    place = _path(
      count,
      lambda n: TABLE_CENTER + PUSHED_START * _ball(rng, n, 2),
      lambda n: PUSHED_MOVE * _ball(rng, n, 2),
    )
    pushed.append(place if number else np.full_like(place, np.nan))
    tier += [number] * count
    part += [FIT] * fit + [TEST] * test
  part, tier = np.array(part), np.array(tier)
  rows = []
  for chain in np.flatnonzero(part == FIT):
    for _ in range(settings.fit_views):
      cameras = FIT_CAMERAS + ((FIT_MOVING,) if tier[chain] == 0 else ())
      rows.append(
        (
          chain,
          rng.choice(cameras),
          rng.choice(settings.fit_scenes),
          rng.integers(settings.objects),
          rng.integers(settings.palettes),
          FIT,
        )
      )
  several = np.flatnonzero((part == TEST) & (tier == 0))[settings.test_chains :]
  for chain in np.flatnonzero(part == TEST):
    seen = [(camera, scene, TEST) for camera in TEST_CAMERAS for scene in settings.test_scenes]
    if chain in several:
      seen = [seen[i] for i in rng.choice(len(seen), 2, replace=False)]
    seen += (
      [(TEST_MOVING, rng.choice(settings.test_scenes), TEST)]
      if tier[chain] == 0 and chain not in several
      else []
    )
    seen += [(rng.choice(FIT_CAMERAS), rng.choice(settings.test_scenes), SAME_CAMERA)]
    for camera, scene, kind in seen:
      own = settings.test_scenes.index(scene)
      rows.append((chain, camera, scene, settings.objects + own, settings.palettes + own, kind))
  views = dict(
    zip(
      ("chain", "camera", "scene", "objects", "palette", "part"),
      np.array(rows, np.int64).T,
      strict=False,
    )
  )
  count = len(rows)
  moving = np.isin(views["camera"], (FIT_MOVING, TEST_MOVING))
  speed = np.where(moving, rng.choice(SPEEDS, size=count), 0.0)
  shift, turn = (
    RIG_SHIFT * _ball(rng, count * 3, 3),
    rng.uniform(-RIG_TURN, RIG_TURN, size=(count * 3, 3)),
  )
  scale = speed[:, None, None]
  return Design(
    poses=np.concatenate(poses),
    pushed=np.concatenate(pushed),
    tier=tier,
    views=views,
    camera_speed=np.stack([speed, speed], axis=1),
    camera_shift=scale * shift.reshape(count, 3, 3),
    camera_turn=scale * turn.reshape(count, 3, 3),
  )


def _poses(rng: np.random.Generator, count: int) -> np.ndarray:
  hand = _path(
    count,
    lambda n: CENTER + START_RADIUS * _ball(rng, n, 3),
    lambda n: MOVE_RADIUS * _ball(rng, n, 3),
  )
  gripper = _path(
    count,
    lambda n: rng.uniform(0.5 - GRIPPER_START, 0.5 + GRIPPER_START, (n, 1)),
    lambda n: rng.uniform(-GRIPPER_MOVE, GRIPPER_MOVE, (n, 1)),
  )
  wrist = _path(
    count,
    lambda n: rng.uniform(-WRIST_START, WRIST_START, (n, 1)),
    lambda n: rng.uniform(-WRIST_MOVE, WRIST_MOVE, (n, 1)),
  )
  return np.concatenate([hand, gripper, wrist], axis=-1)


def _path(count: int, start, move) -> np.ndarray:
  """[count, 3, ...]: a start and two independent moves."""
  first = start(count)
  second = first + move(count)
  return np.stack([first, second, second + move(count)], axis=1)


def _ball(rng: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
  """Uniform in the unit ball, [count, dimensions]."""
  direction = rng.normal(size=(count, dimensions))
  direction /= np.linalg.norm(direction, axis=1, keepdims=True)
  return direction * rng.uniform(size=(count, 1)) ** (1 / dimensions)


def camera_base(camera: int) -> tuple[np.ndarray, np.ndarray, float]:
  """(position [3] in meters, rotation [3, 3] whose columns are the camera's right, up and backward
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
  """As `camera_base`, where the camera of a view stands at one of its pictures."""
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
  """Of the pairs of a tier's views: what the exam asks, without the camera's own motion.

  Returns:
    (views int [v], in the frame of the first picture's camera [2v, A], in the robot's frame [2v,
    A]). Lengths are in widths of the picture at `CENTER`; the names of the A numbers are in `NAMES`
    and `ROBOT_NAMES`.
  """
  chosen = np.flatnonzero(design.tier[design.views["chain"]] == tier)
  seen, robot = [], []
  for view in chosen:
    chain = design.views["chain"][view]
    path = design.pushed[chain] if tier else design.poses[chain]
    for first in (0, 1):
      move = path[first + 1] - path[first]
      _, rotation, _ = camera_at(design, int(view), first)
      seen.append(_in_axes(move, tier, rotation))
      robot.append(_in_axes(move, tier, None))
  return chosen, np.array(seen), np.array(robot)


def _in_axes(vector: np.ndarray, tier: int, rotation: np.ndarray | None) -> np.ndarray:
  """Numbers of a tier [A] from a move or a place in the robot's frame: lengths in widths of the
  picture, along the axes of a camera of that rotation (None: of the robot).
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
  """The true pose at picture 0 (first) or 1 (second) of each pair of a tier, from the middle of the
  starts, in the axes of the first picture's camera (or the robot's): what an oracle of one picture
  knows, [2v, A].
  """
  rows = []
  for view in np.flatnonzero(design.tier[design.views["chain"]] == tier):
    chain = design.views["chain"][view]
    path = (
      design.pushed[chain] - TABLE_CENTER
      if tier
      else design.poses[chain] - np.array([*CENTER, 0.5, 0.0])
    )
    for first in (0, 1):
      place = path[first + picture]
      _, rotation, _ = camera_at(design, int(view), first)
      rows.append(_in_axes(place, tier, rotation if camera else None))
  return np.array(rows)


def places(design: Design, tier: int) -> np.ndarray:
  """Where the hand (or the pushed object) is in each picture of a tier's views: [v, 3, 2] to the
  right and down from the picture's middle, in widths of the picture.
  """
  found = []
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
      found.append(np.array([right, -up]) / (-backward * 2 * math.tan(math.radians(fovy) / 2)))
  return np.array(found).reshape(-1, 3, 2)


def closed_form(tier: int, *, samples: int = 400_000, seed: int = 0) -> dict[str, np.ndarray]:
  """Errors of the best reader of the true second pose, in units of the moves' variance, [A] each;
  both moves of a chain together.

  "linear": variance of the place before over that of the place after. "conditional": the
  conditional variance of the drawn distributions, by the mean move at each distance from the middle
  (the distributions are the same in every direction), from samples.
  """
  rng = np.random.default_rng(seed)
  parts = (
    [(2, PUSHED_START, PUSHED_MOVE)]
    if tier
    else [
      (3, START_RADIUS, MOVE_RADIUS),
      (1, GRIPPER_START, GRIPPER_MOVE),
      (1, WRIST_START, WRIST_MOVE),
    ]
  )
  linear, conditional = [], []
  for dimensions, start, move in parts:
    first = [start * _ball(rng, samples, dimensions)]
    moves = [move * _ball(rng, samples, dimensions) for _ in range(2)]
    first.append(first[0] + moves[0])
    after, moved = np.concatenate([first[0] + moves[0], first[1] + moves[1]]), np.concatenate(moves)
    linear += [1 - np.mean(moved**2) / np.mean(after**2)] * dimensions
    distance = np.linalg.norm(after, axis=1)
    outward = np.einsum("ij,ij->i", moved, after) / distance
    bins = np.minimum((distance / distance.max() * 200).astype(int), 199)
    known = np.bincount(bins, outward, 200) ** 2 / np.maximum(np.bincount(bins, minlength=200), 1)
    conditional += [1 - known.sum() / np.sum(moved**2)] * dimensions
  return {"linear": np.array(linear), "conditional": np.array(conditional)}
