"""From a policy's config to the entries of its mixture and its instructions."""

import numpy as np

from como_jax import config as config_lib
from como_jax.data.policy_index import PolicySet
from como_jax.tasks import policy_data


def config(**data):
  section = {**config_lib.data().to_dict(), "labels": "", **data}
  policy = {"robot": "arm", "cameras": ("front", "side")}
  return config_lib.ConfigDict(
    {
      "task": "policy",
      "data": section,
      "policy": policy,
      "model": {"num_cameras": 3},
      "language": {"kind": "hash"},
    }
  )


def test_the_entries_of_a_mixture(monkeypatch):
  asked = []
  monkeypatch.setattr(policy_data.motion_data, "resolve", lambda path: asked.append(path) or path)
  monkeypatch.setattr(policy_data.motion_data, "cache_dir", lambda section: "CACHE")
  monkeypatch.setattr(
    policy_data.motion_data, "to_shards", lambda path, section, **more: asked.append(more) or "one"
  )
  (alone,) = policy_data.mixture_entries(
    config(path="a/b/", cameras=("r",), labels="L", image_size=48)
  )
  assert alone == PolicySet(path="one", robot="arm", labels="L", cameras=("r",), name="b")
  assert asked == ["a/b/", {"image_size": 48, "cache_dir": "CACHE"}]
  del asked[:]
  mixture = (
    {"path": "x", "robot": "arm", "name": "mine", "weight": 2.0},
    {"path": "y", "labels": "L"},
  )
  one, other = policy_data.mixture_entries(config(mixture=mixture))
  assert (one.name, one.weight, one.labels, one.cameras) == ("mine", 2.0, "", ()) and (
    other.name,
    other.robot,
    other.labels,
  ) == ("y", "", "L")
  assert asked[:2] == ["x", "y"], "all are looked for before the first is converted"


def test_a_mixture_is_opened_with_the_config_s_slots_and_split(monkeypatch):
  monkeypatch.setattr(policy_data, "mixture_entries", lambda config: ["ENTRY"])
  monkeypatch.setattr(
    policy_data.policy_mixture, "PolicyMixture", lambda entries, **more: (entries, more)
  )
  assert policy_data.open_mixture(config(validation_fraction=0.3)) == (
    ["ENTRY"],
    dict(cameras=("front", "side"), num_cameras=3, validation_fraction=0.3),
  )


def test_instructions_are_embedded_in_one_call(monkeypatch):
  asked = []

  def encode(texts):
    asked.append(texts)
    return np.arange(len(texts)), -np.arange(len(texts))

  monkeypatch.setattr(
    policy_data.language, "build", lambda section: encode if section == {"kind": "hash"} else None
  )
  found, texts = policy_data.embed(config(), ["", "open"])
  assert found is encode and asked == [["", "open"]] and texts == {"": (0, 0), "open": (1, -1)}
