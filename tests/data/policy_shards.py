"""Tables and manifests of policy data that are no files."""

from types import SimpleNamespace

import numpy as np

from como_jax.data import policy_mixture, policy_sets


def table(
  *,
  cameras=("l", "r"),
  tasks=("reach", "push"),
  interval=(0.1, 0.1),
  length=(5, 5),
  rates=(10.0, 10.0),
  uniform=(True, True),
):
  return SimpleNamespace(
    cameras=tuple(cameras),
    tasks=list(tasks),
    interval=np.array(interval),
    length=np.array(length),
    rates=np.array(rates),
    uniform=np.array(uniform),
  )


def manifest(*, action=3, state=2, names=("a", "b", "c"), **more):
  return {
    "action": {"size": action, "names": names},
    "state": {"size": state, "names": ("x", "y")[:state]} if state is not None else {"size": None},
    **more,
  }


def label_set(path):
  """Labels whose motion model is named as they are."""
  manifest = {
    "queries": 3,
    "dims": 4,
    "offset_seconds": "0.5",
    "model": {"fingerprint": path, "path": "m"},
    "cameras": ("l", "r"),
  }
  return SimpleNamespace(manifest=manifest)


def known_shards(monkeypatch):
  """{path: (table, manifest)} of the shards there are; more may be put into it."""
  known = {"one": (table(), manifest())}
  monkeypatch.setattr(policy_sets.shards, "read_table", lambda path: known[path][0])
  monkeypatch.setattr(policy_sets.shards, "read_manifest", lambda path: known[path][1])
  monkeypatch.setattr(policy_sets.labels, "check", lambda labels, *, data_path: None)
  monkeypatch.setattr(policy_sets.labels, "Labels", label_set)
  return known


def mixture(*sets, cameras=(), slots=2):
  return policy_mixture.PolicyMixture(sets, cameras=cameras, num_cameras=slots)
