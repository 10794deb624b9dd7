"""Entries of a policy's mixture: their slots, instructions and tables."""

import pytest

from como_jax.data import policy_sets
from como_jax.data.policy_index import PolicySet
from tests.data.policy_shards import known_shards, manifest, mixture, table


@pytest.fixture(name="data", autouse=True)
def _data(monkeypatch):
  return known_shards(monkeypatch)


def test_cameras_are_put_into_the_slots_of_their_names():
  def filled(*slots, **entry):
    return mixture(PolicySet("one", robot="arm", **entry), cameras=slots).sets[0].entry.cameras

  assert (
    filled("r", "l") == ("r", "l")
    and filled("top", "l") == ("", "l")
    and filled("top", "side") == filled() == ()
  )
  assert filled("r", "l", cameras=("l",)) == ("l",) and filled("r", "l", views="each") == ()


def test_names_of_the_slots(data):
  def names(*sets, **changes):
    return mixture(*sets, **changes).slots

  data["one"] = (table(cameras=("l", "r", "top")), manifest())
  arm = PolicySet("one", robot="arm")
  assert names(arm, cameras=("a", "b")) == ("a", "b") and names(
    PolicySet("one", labels="L"), arm
  ) == ("l", "r")
  assert names(arm, slots=1) == names(arm, slots=0) == ("l",) and names(arm, slots=4) == (
    "l",
    "r",
    "top",
    "",
  )
  assert names(PolicySet("one", robot="arm", cameras=("top", "", "l"))) == ("top", "", "l")
  assert names(PolicySet("one", robot="arm", cameras=("", "r", "top"), views="each")) == ("r",)


def test_every_instruction_once(data):
  data["two"] = (table(tasks=("push", "open")), manifest())
  found = mixture(PolicySet("one", robot="arm"), PolicySet("two", robot="arm"))
  assert found.instructions() == ["", "open", "push", "reach"]


def test_every_table_is_read_once(data, monkeypatch):
  reads, read = [], policy_sets.shards.read_table
  monkeypatch.setattr(
    policy_sets.shards, "read_table", lambda path: reads.append(path) or read(path)
  )
  found = mixture(PolicySet("one", robot="arm"), PolicySet("one", labels="L"))
  found.robots(), found.resize(), found.latent_motion(), found.instructions()
  assert reads == ["one", "one"], "once for each entry"
