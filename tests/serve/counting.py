"""A policy around a model that only counts."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.data import policy_upgrade
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import policy as serving
from como_jax.serve import policy_checkpoint
from tests.data import flat
from tests.serve import test_policy

ROBOTS = {"hand": {"action": 5, "state": 0}, "arm": {"action": 3, "state": 2}}


class Model:
  """Normalized actions: the first of the state, plus 10 for each element of the chunk.

  `seen` has what it was traced with.
  """

  action_horizon, image_size = 4, 16

  def __init__(self, config):
    self.config, self.robots, self.seen = config, tuple(config["robots"]), []
    self.action_head = types.SimpleNamespace()

  def init(self, key):
    return {"network": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}}

  def sample(self, params, batch, key, *, robot, num_sampling_steps, guidance_scale):
    self.seen.append(
      {
        "rows": len(batch["state"]),
        "robot": robot,
        "steps": num_sampling_steps,
        "guidance": guidance_scale,
        "dtype": params["network"]["kernel"].dtype,
      }
    )
    return (
      jnp.zeros((len(batch["state"]), 4, 3))
      + batch["state"][:, :1, None]
      + 10.0 * jnp.arange(4)[None, :, None]
    )


@pytest.fixture(autouse=True)
def counting(monkeypatch):
  monkeypatch.setattr(policy_checkpoint.models, "build", Model)


def stored(robots=("hand", "arm"), *, history=2, settings=None, **facts):
  """The config of a checkpoint."""
  chosen = {name: ROBOTS[name] for name in robots}
  found = {
    name: {
      "action": test_policy.statistics_of(np.tile(test_policy.ROWS, 2)[:, : sizes["action"]]),
      "state": test_policy.statistics_of(test_policy.ROWS[:, :2]),
    }
    for name, sizes in chosen.items()
  }
  return {
    "model": {
      "kind": "policy",
      "robots": chosen,
      "history": history,
      "image_size": Model.image_size,
      "dtype": "bfloat16",
    },
    "normalization": flat.stored_normalization("standard", found),
    "policy": {"cameras": ["front", ""], **(settings or {})},
    "robots": {name: {"action_names": [], "step_seconds": 0.5, **facts} for name in robots},
    "language": {
      "kind": "hash",
      "weights": "",
      "pooled": False,
      "num_tokens": 3,
      "width": 6,
      "dtype": "float32",
    },
  }


def acting(config=None, *, robot="arm", name="policy", **more):
  params = {"network": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
  spec = policy_upgrade.from_config(stored() if config is None else config)
  return serving.Policy(policy_checkpoint.restore(params, spec, name=name), robot=robot, **more)


def observation(number=0.0, **changes):
  image = np.full((16, 16, 3), number, np.uint8)
  seen = {STATE: np.float32([number, 1.0]), IMAGE + "front": image, TASK: "go"} | changes
  return {name: value for name, value in seen.items() if value is not None}
