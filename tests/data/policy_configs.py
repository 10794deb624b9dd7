"""The config of a policy's run, with its statistics."""

import dataclasses

import numpy as np

from como_jax.data import statistics
from tests.data import flat

ROWS = np.float64([[0, 2, 0.1], [4, 2, 0.9], [2, 2, 0.1], [6, 2, 0.9]])


def config(**facts):
  """Of a run: action x moves, y never does, the gripper takes two values."""
  one = statistics.Accumulator()
  one.add(ROWS)
  action = dataclasses.replace(one.finish(), binary=np.array([False, False, True]))
  return {
    "model": {"kind": "policy", "robots": {"arm": {"action": 3, "state": 3}}, "dtype": "float32"},
    "normalization": flat.stored_normalization(
      "standard", {"arm": {"action": action, "state": action}}, action
    ),
    "policy": {
      "cameras": ["front", ""],
      "guidance_scale": 2.0,
      "resize": "crop",
      "latent_model": "aa",
    },
    "robots": {"arm": {"action_names": ["x", "y", "grip"], "step_seconds": 0.2, **facts}},
    "language": {"kind": "hash"},
  }
