"""Statistics that ingest kept: the same as of all rows, without reading one; or none."""

import dataclasses
import os

import numpy as np
import pytest

from como_jax.data import frame_index, kept_statistics, labels, policy_mixture, statistics, stored
from tests.data import makers, policy_walks


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
  return makers.shards(tmp_path_factory.mktemp("kept") / "s", (30, 24, 40), episodes_per_shard=2)


def opened(*sets):
  return policy_mixture.PolicyMixture(sets, validation_fraction=0.0)


def test_no_row_is_read_and_the_rest_is_as_of_the_rows(path):
  mixture = opened(policy_walks.arm(path))
  mixture.split("train")
  with stored.counter() as asked:
    found = mixture.statistics(kept=True).robots["arm"]
  assert asked.requests == 0
  with stored.counter() as asked:
    want = mixture.statistics().robots["arm"]
  assert asked.requests > 3
  assert found.keys() == want.keys() == {"action", "state"}
  for key, value in want.items():
    assert found[key].count == value.count == 94
    for name in ("mean", "std", "min", "max", "binary"):
      np.testing.assert_allclose(getattr(found[key], name), getattr(value, name), atol=1e-9)
    spread = value.max - value.min
    for name in ("q01", "q99"):
      assert (np.abs(getattr(found[key], name) - getattr(value, name)) <= 0.05 * spread).all()


def test_two_data_sets_of_a_robot_are_merged(path, tmp_path):
  other = makers.shards(tmp_path / "t", (9,))
  two = opened(policy_walks.arm(path), policy_walks.arm(other, name="other"))
  found, want = (two.statistics(kept=kept).robots["arm"]["action"] for kept in (True, False))
  assert found.count == want.count == 103
  np.testing.assert_allclose(found.std, want.std)


@pytest.mark.parametrize(
  "changes,step,kept",
  [
    ({}, 0.0, True),
    ({}, 0.1, True),
    ({}, 0.2, False),
    ({"episodes": (0, 2)}, 0.0, False),
    ({"tasks": ("task 0",)}, 0.0, False),
  ],
)
def test_where_they_say_enough(path, changes, step, kept):
  entry = dataclasses.replace(policy_walks.arm(path), **changes)
  mixture = opened(entry)
  assert bool(kept_statistics.of_robots(mixture.split("train"), step)) == kept
  if not kept:  # all as of the rows
    one, other = (
      mixture.statistics(step_seconds=step, kept=each).robots["arm"]["action"]
      for each in (True, False)
    )
    np.testing.assert_array_equal(one.q01, other.q01)


def test_not_without_an_index(tmp_path):
  path = makers.shards(tmp_path / "s", (9, 8))
  os.remove(f"{path}/{frame_index.FILE}")
  mixture = opened(policy_walks.arm(path))
  assert not kept_statistics.of_robots(mixture.split("train"), 0.0)
  assert mixture.statistics(kept=True).robots["arm"]["action"].count == 17


def test_latents_are_those_of_the_only_label_set(path, tmp_path):
  folder = policy_walks.label(path, tmp_path / "l")
  entry = policy_walks.arm(path, labels=folder)
  found = opened(entry).statistics(kept=True).latent
  assert isinstance(found, statistics.Statistics)
  assert found.to_json() == labels.Labels(folder).statistics.to_json()
  for sets in (
    [dataclasses.replace(entry, episodes=(0, 1))],
    [entry, dataclasses.replace(entry, name="again")],
    [policy_walks.arm(path)],
  ):
    assert kept_statistics.of_latents(opened(*sets).split("train")) is None
