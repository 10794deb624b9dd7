"""A policy for the toy simulator."""

import numpy as np


class Fake:
  """A policy that pushes towards the goal; the attributes of serve.policy.Policy."""

  robot, action_horizon, action_dim, history, step_seconds = "toy", 4, 2, 1, 0.1
  cameras, image_size, metadata = ("wrist",), 8, {"robot": "toy"}

  def __init__(self, **changes):
    self.calls, self.seeds = [], []
    for name, value in changes.items():
      setattr(self, name, value)

  def infer(self, histories, *, seed=0):
    self.calls.append(histories), self.seeds.append(seed)
    return np.tile(np.float32([1, 0]), (len(histories), self.action_horizon, 1))
