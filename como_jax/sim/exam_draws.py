"""Draws the poses, moves and views of the exam.

The draws are such that the first picture of a pair says nothing about the move, and the second says
little (`closed_form`). Every move has mean zero. It is drawn independently of the start, of the
move before it, of the scene, the objects, the colors and the camera's own motion. Positions and
moves of the hand are uniform in balls, so they have the same distribution along every axis of every
camera. Everything is a pure function of the settings.

Legend: C chains, V views, A target dimensions.
"""

import numpy as np

from como_jax.sim.exam_design import (
  CENTER,
  FIT,
  FIT_CAMERAS,
  FIT_MOVING,
  GRIPPER_MOVE,
  GRIPPER_START,
  MOVE_RADIUS,
  PUSHED_MOVE,
  PUSHED_START,
  RIG_SHIFT,
  RIG_TURN,
  SAME_CAMERA,
  SPEEDS,
  START_RADIUS,
  TABLE_CENTER,
  TEST,
  TEST_CAMERAS,
  TEST_MOVING,
  WRIST_MOVE,
  WRIST_START,
  Design,
  Settings,
)


def draw(settings: Settings) -> Design:
  """Draws the design; a pure function of the settings."""
  rng = np.random.default_rng([settings.seed, 20_261_127])
  poses, pushed, tier, part = _chains(settings, rng)
  views = _views(settings, rng, tier, part)
  count = len(views["chain"])
  moving = np.isin(views["camera"], (FIT_MOVING, TEST_MOVING))
  speed = np.where(moving, rng.choice(SPEEDS, size=count), 0.0)
  shift = RIG_SHIFT * _ball(rng, count * 3, 3)
  turn = rng.uniform(-RIG_TURN, RIG_TURN, size=(count * 3, 3))
  scale = speed[:, None, None]
  return Design(
    poses=poses,
    pushed=pushed,
    tier=tier,
    views=views,
    camera_speed=np.stack([speed, speed], axis=1),
    camera_shift=scale * shift.reshape(count, 3, 3),
    camera_turn=scale * turn.reshape(count, 3, 3),
  )


def _chains(
  settings: Settings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Draws the chains: poses, pushed positions, tier (as in `Design`) and part [C]."""
  poses, pushed, tier, part = [], [], [], []
  for number, (fit, test) in enumerate(
    (
      (settings.fit_chains, settings.test_chains + settings.more_test_chains),
      (settings.pushed_fit_chains, settings.pushed_test_chains),
    )
  ):
    count = fit + test
    poses.append(_poses(rng, count))
    positions = _path(
      count,
      lambda n: TABLE_CENTER + PUSHED_START * _ball(rng, n, 2),
      lambda n: PUSHED_MOVE * _ball(rng, n, 2),
    )
    pushed.append(positions if number else np.full_like(positions, np.nan))
    tier += [number] * count
    part += [FIT] * fit + [TEST] * test
  return np.concatenate(poses), np.concatenate(pushed), np.array(tier), np.array(part)


def _views(
  settings: Settings, rng: np.random.Generator, tier: np.ndarray, part: np.ndarray
) -> dict[str, np.ndarray]:
  """Draws the views of the chains, as in `Design`.

  Args:
    settings: of the exam.
    rng: of the draws.
    tier: index into `TIERS` of each chain [C].
    part: `FIT` or `TEST`, of each chain [C].
  """
  rows = []
  for chain in np.flatnonzero(part == FIT):
    for _ in range(settings.fit_views):
      cameras = FIT_CAMERAS + ((FIT_MOVING,) if tier[chain] == 0 else ())
      camera, scene = rng.choice(cameras), rng.choice(settings.fit_scenes)
      objects, palette = rng.integers(settings.objects), rng.integers(settings.palettes)
      rows.append((chain, camera, scene, objects, palette, FIT))
  two_view_chains = np.flatnonzero((part == TEST) & (tier == 0))[settings.test_chains :]
  for chain in np.flatnonzero(part == TEST):
    chain_views = [
      (camera, scene, TEST) for camera in TEST_CAMERAS for scene in settings.test_scenes
    ]
    if chain in two_view_chains:
      chain_views = [chain_views[i] for i in rng.choice(len(chain_views), 2, replace=False)]
    if tier[chain] == 0 and chain not in two_view_chains:
      chain_views += [(TEST_MOVING, rng.choice(settings.test_scenes), TEST)]
    chain_views += [(rng.choice(FIT_CAMERAS), rng.choice(settings.test_scenes), SAME_CAMERA)]
    for camera, scene, kind in chain_views:
      scene_index = settings.test_scenes.index(scene)
      rows.append(
        (
          chain,
          camera,
          scene,
          settings.objects + scene_index,
          settings.palettes + scene_index,
          kind,
        )
      )
  columns = ("chain", "camera", "scene", "objects", "palette", "part")
  return dict(zip(columns, np.array(rows, np.int64).T, strict=False))


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


def closed_form(tier: int, *, samples: int = 400_000, seed: int = 0) -> dict[str, np.ndarray]:
  """Errors of the best predictors of the move from the true second pose alone.

  Args:
    tier: index into `TIERS`.
    samples: samples of the drawn distributions.
    seed: of the samples.

  Returns:
    [A] each, in units of the variance of the moves, for both moves of a chain together. "linear":
    variance of the position before the move, divided by that of the position after it.
    "conditional": conditional variance of the move. It is computed from the mean move at each
    distance from the center, because the distributions are the same in every direction.
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
