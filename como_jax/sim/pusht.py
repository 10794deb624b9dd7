"""Push-T of gym-pusht 0.1.8 (Apache-2.0): a disc pushes a T-shaped block onto a goal.

The camera looks from above. The goal always has the same position; the seed determines the start of
disc and block. Success is a coverage of the goal above 95 %. The control rate is 10 steps per
second, and an episode has at most 300 steps. No OpenGL is needed.

Action [2]: x, y of the point that pulls the disc, pixels of a 512 x 512 board. State [2]: x, y of
the disc, same pixels. Frames equal the `pixels` observation, without the cross that marks the
action; any image size works.
"""

import os

import numpy as np

from como_jax.sim import base, pusht_expert

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import pygame
import pymunk
from gym_pusht.envs import pusht

VERSION = f"gym-pusht 0.1.8 (pymunk {pymunk.version})"
EXPERT = (
  "scripted expert (search over pushes in a copy of the simulator; not the human demonstrations "
  "of Push-T)"
)
ROBOT = "pusht"
TASKS = {"pusht": "push the T-shaped block onto the T-shaped goal"}
CAMERAS = ("top",)
BOARD = 512.0
MAX_STEPS = 300
_BACKGROUND, _GOAL = (255, 255, 255), (144, 238, 144)  # as gym-pusht draws them
_SUBSTEPS = 10


def build(
  task: str = "pusht",
  *,
  cameras: tuple[str, ...] = CAMERAS,
  image_size: int = 96,
  stride: int = 1,
  scene: int = 0,
) -> "PushT":
  """Builds the task.

  Args:
    task: a key of `TASKS`.
    cameras: from `CAMERAS`.
    image_size: height and width of frames, pixels; published data sets have 96.
    stride: control steps for which `step` holds an action.
    scene: colors of episodes whose `reset` sets no scene.
  """
  return PushT(task, cameras=cameras, image_size=image_size, stride=stride, scene=scene)


class PushT(base.Stepper):
  """`base.Simulator` over one Push-T environment."""

  def __init__(
    self, task: str, *, cameras: tuple[str, ...], image_size: int, stride: int, scene: int
  ):
    base.check("Push-T", task, TASKS, cameras, CAMERAS, stride)
    self._env, self._size = pusht.PushTEnv(), image_size
    self._colors: dict[str, tuple[int, ...]] = {}
    self._expert: pusht_expert.Pusher | None = None
    spec = base.Spec(
      name=f"pusht/{task}",
      robot=ROBOT,
      instruction=TASKS[task],
      cameras=dict.fromkeys(cameras, (image_size, image_size)),
      state_names=("agent_x", "agent_y"),
      action_names=("target_x", "target_y"),
      action_low=np.zeros(2, np.float32),
      action_high=np.full(2, BOARD, np.float32),
      fps=10.0,
      stride=stride,
      max_steps=MAX_STEPS,
      move=(0, 1),
      absolute=True,
      gripper=(),
    )
    super().__init__(spec, scene)

  def expert(self) -> np.ndarray:
    """See `base.Simulator.expert`. Searches for half a second before each push."""
    if self._expert is None:
      raise RuntimeError(f"{self.spec.name}: call reset before expert")
    env = self._env
    pose = np.array([*env.block.position, env.block.angle])
    return np.asarray(self._expert(np.array(env.agent.position), pose), np.float32)

  def close(self) -> None:
    """See `base.Simulator.close`."""

  def _restart(self, seed: int, scene: int) -> None:
    self._env.reset(seed=seed)
    self._colors = _colors(scene)
    if scene:
      for shape in self._env._block_shapes:
        shape.color = pygame.Color(*self._colors["block"])
      for shape in self._env.agent.shapes:
        shape.color = pygame.Color(*self._colors["agent"])
    self._expert = pusht_expert.Pusher(_Copy().push, self._env.goal_pose, seed)

  def _advance(self, action: np.ndarray) -> bool:
    _, _, _, _, info = self._env.step(action)
    return bool(info["is_success"])

  def _state(self) -> np.ndarray:
    return np.array(self._env.agent.position)

  def _frame(self, camera: str) -> np.ndarray:
    del camera  # there is only one camera
    screen = self._env._draw()
    if self._colors:
      pixels = pygame.surfarray.pixels3d(screen)
      for name, color in (("background", _BACKGROUND), ("goal", _GOAL)):
        pixels[(pixels == color).all(axis=-1)] = self._colors[name]
      del pixels  # the array locks the surface
    return np.ascontiguousarray(self._env._get_img(screen, self._size, self._size))


def _colors(scene: int) -> dict[str, tuple[int, ...]]:
  """Draws the colors of scene k > 0 from the number k alone; empty for scene 0."""
  if not scene:
    return {}
  rng = np.random.default_rng([7919, scene])
  ranges = {"background": (150, 250), "goal": (90, 240), "block": (20, 140), "agent": (20, 200)}
  return {
    name: tuple(int(v) for v in rng.integers(*limits, size=3)) for name, limits in ranges.items()
  }


class _Copy:
  """A second board, on which the expert tries pushes."""

  def __init__(self):
    self._env = pusht.PushTEnv()
    self._env.reset(seed=0)

  def push(self, agent: np.ndarray, pose: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Simulates one push.

    Args:
      agent: [2], start of the disc, which is at rest.
      pose: [3] (x, y, angle) of the block before the push.
      targets: [N, 2], points that pull the disc, one per control step.

    Returns:
      Pose [3] of the block after the push.
    """
    env = self._env
    disc, block = env.agent, env.block
    block.angle = float(pose[2])
    block.position = (float(pose[0]), float(pose[1]))
    block.velocity, block.angular_velocity = (0.0, 0.0), 0.0
    disc.position, disc.velocity = (float(agent[0]), float(agent[1])), (0.0, 0.0)
    env.space.reindex_shapes_for_body(block)
    env.space.reindex_shapes_for_body(disc)
    for x, y in targets.tolist():
      for _ in range(_SUBSTEPS):
        position, speed = disc.position, disc.velocity
        disc.velocity = (
          speed[0] + (env.k_p * (x - position[0]) - env.k_v * speed[0]) * env.dt,
          speed[1] + (env.k_p * (y - position[1]) - env.k_v * speed[1]) * env.dt,
        )
        env.space.step(env.dt)
    return np.array([*block.position, block.angle])
