"""From a policy's config to the entries of its mixture and its instructions."""

import numpy as np

from como_jax import config as config_lib
from como_jax.assembly import policy_data
from como_jax.data.batching import Batching
from como_jax.data.policy_index import PolicySet


def config(**data):
  section = {**config_lib.data().to_dict(), "labels": "", **data}
  policy = {"robot": "arm", "cameras": ("front", "side"), "step_seconds": 0.25, "reduce": "last"}
  policy["statistics"] = "kept"
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
  monkeypatch.setattr(policy_data.data_folders, "resolve", lambda path: asked.append(path) or path)
  monkeypatch.setattr(
    policy_data.data_folders, "to_shards", lambda path, section: asked.append(section) or "one"
  )
  given = config(path="a/b/", cameras=("r",), labels="L", image_size=48)
  (alone,) = policy_data.mixture_entries(given)
  assert alone == PolicySet(path="one", robot="arm", labels="L", cameras=("r",), name="b")
  assert asked == ["a/b/", given.data]
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


class Mixture:
  """A mixture of paper."""

  paths = ["one"]

  def __init__(self, entries, **options):
    self.opened, self.asked = (entries, options), []

  def instructions(self):
    return ["", "open"]

  def robots(self, **options):
    return options

  def statistics(self, **options):
    return options

  def batches(self, *records):
    return records

  def evaluation_examples(self, *records, **options):
    return (*records, options)


def test_the_config_decides_slots_split_and_what_is_asked(monkeypatch):
  asked = []

  def encode(texts):
    asked.append(texts)
    return np.arange(len(texts)), -np.arange(len(texts))

  monkeypatch.setattr(policy_data, "mixture_entries", lambda config: ["ENTRY"])
  monkeypatch.setattr(policy_data.policy_mixture, "PolicyMixture", Mixture)
  monkeypatch.setattr(policy_data.motion_data, "augmentation", lambda section: "AUGMENT")
  monkeypatch.setattr(
    policy_data.language, "build", lambda section: encode if section == {"kind": "hash"} else None
  )
  monkeypatch.setattr(policy_data.reading, "choose", lambda section, *more: more)
  monkeypatch.setattr(policy_data.reading, "in_order", lambda section: "IN ORDER")
  data = policy_data.PolicyData(config(validation_fraction=0.3))
  assert data.mixture.opened == (
    ["ENTRY"],
    dict(cameras=("front", "side"), num_cameras=3, validation_fraction=0.3),
  )
  assert asked == [["", "open"]] and data.language == {"": (0, 0), "open": (1, -1)}
  assert data.robots() == dict(step_seconds=0.25)
  assert data.statistics() == dict(step_seconds=0.25, reduce="last", kept=True)
  assert data.choose_read_options("BATCH") == (["one"], "BATCH")
  assert data.batches("LAYOUT", "BATCHING", "OPTIONS") == (
    "LAYOUT",
    "BATCHING",
    "OPTIONS",
    "AUGMENT",
  )
  assert data.examples("LAYOUT", "train", batch_size=6, max_examples=9) == (
    "LAYOUT",
    Batching(6),
    "IN ORDER",
    dict(split="train", max_examples=9),
  )
