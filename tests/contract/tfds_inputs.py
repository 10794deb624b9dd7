"""Generated data sets of tensorflow-datasets, as `inputs` generates those of other formats."""

import os

import numpy as np

from tests.contract import inputs
from tests.data import lerobot_makers, tfds_makers

# Data sets of tensorflow-datasets: what an example holds, and whether its instruction changes.
CHOICES = tuple(
  {"examples": examples, "instruction": instruction, "clock": "even"}
  for examples, instruction in (("rlds", "one"), ("rlds", "changes"), ("plain", "one"))
)


def write(one: inputs.Input, folder: str) -> None:
  """One data set of tensorflow-datasets: two splits of two episodes each."""
  rng, rlds = np.random.default_rng([one.seed, 2]), one.choice["examples"] == "rlds"
  one.frame_rate, one.shows_colors = float(rng.choice([5, 10, 12.5, 30])), False
  kinds, splits = tfds_makers.features, {}
  image = kinds.Image(shape=(lerobot_makers.HEIGHT, lerobot_makers.WIDTH, 3), encoding_format="png")
  layout = kinds.FeaturesDict(
    {
      "frames": kinds.Sequence(image),
      "action": kinds.Sequence(kinds.Tensor(shape=(3,), dtype=np.float32)),
      "instruction": kinds.Text(),
    }
  )
  if rlds:
    layout = tfds_makers.rlds_layout((lerobot_makers.HEIGHT, lerobot_makers.WIDTH))
  for e in range(4):
    split, length = ("test", "train")[e // 2], int(rng.integers(8, 20))
    late = one.choice["instruction"] == "changes"
    frames = [
      inputs.Frame(
        t / one.frame_rate,
        1000 * e + t,
        (float(e), float(t), t / 2),
        lerobot_makers.TASKS[int(t >= length // 2) if late else e % 2],
      )
      for t in range(length)
    ]
    shown = [lerobot_makers.coded(frame.number) for frame in frames]
    splits.setdefault(split, []).append(
      {
        "steps": [
          tfds_makers.step(t, shown[t], wrist=shown[t], text=frame.task, action=frame.action)
          for t, frame in enumerate(frames)
        ]
      }
      if rlds
      else {
        "frames": [tfds_makers.png(picture_of) for picture_of in shown],
        "action": [np.array(frame.action, np.float32) for frame in frames],
        "instruction": frames[0].task,
      }
    )
    one.episodes[f"{split}_{e % 2:06d}"] = frames
  made = tfds_makers.write(os.path.join(folder, "made"), layout, splits)
  os.rename(made, os.path.join(folder, "set"))
