"""Written LeRobot data sets of a moving square."""

import av
import numpy as np

from tests.data import lerobot_makers

SIZE, FPS = 32, 40


def moving_square(length: int, seed: int) -> np.ndarray:
  """uint8 [T, 32, 32, 3]: a bright square on a smooth ground, which H.264 keeps well."""
  rng = np.random.default_rng(seed)
  frames = np.empty((length, SIZE, SIZE, 3), np.uint8)
  frames[:] = rng.integers(30, 120, size=3)
  for t in range(length):
    x = (2 * t + 3 * seed) % (SIZE - 8)
    frames[t, 8:16, x : x + 8] = 220
  return frames


def write_set(path, lengths=(7, 5, 9), **settings):
  """Three episodes of two tasks; returns what was written."""
  settings = (
    dict(
      cameras={"left": (SIZE, SIZE), "right": (SIZE, SIZE)},
      state_names=["x", "y"],
      action_names=["dx", "dy", "grip"],
      robot_type="test",
      outcome=True,
      crf=10,
    )
    | settings
  )
  episodes = []
  with lerobot_makers.open_writer(path, FPS, **settings) as writer:
    for i, length in enumerate(lengths):
      rng = np.random.default_rng(i)
      episode = dict(
        frames={"left": moving_square(length, i), "right": moving_square(length, i + 10)},
        state=rng.normal(size=(length, 2)).astype(np.float32),
        action=rng.normal(size=(length, 3)).astype(np.float32),
      )
      writer.add_episode(
        f"task {i % 2}",
        episode["frames"],
        state=episode["state"],
        action=episode["action"],
        success=np.arange(length) >= length - 2,
        metadata={"scene": i, "motion": f"m{i}"},
      )
      episodes.append(episode)
    writer.finalize()
  return episodes


def read_video(path):
  with av.open(str(path)) as container:
    frames = list(container.decode(video=0))
  return (
    np.stack([f.to_ndarray(format="rgb24") for f in frames]),
    [f.pts * f.time_base for f in frames],
    [f.key_frame for f in frames],
  )
