"""What is found out about the data of a policy: robots, rates, cameras, instructions, labels; on
tables of paper.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.data.policy_index import PolicySet
from como_jax.tasks import policy_data


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


@pytest.fixture(name="data", autouse=True)
def _data(monkeypatch):
  """{path: (table, manifest)} of the shards there are."""
  known = {"one": (table(), manifest())}
  monkeypatch.setattr(policy_data.shards, "read_table", lambda path: known[path][0])
  monkeypatch.setattr(policy_data.shards, "read_manifest", lambda path: known[path][1])
  return known


def config(*, cameras=(), step_seconds=0.0, slots=2, **data):
  section = {**config_lib.data().to_dict(), "labels": "", **data}
  return config_lib.ConfigDict(
    {
      "task": "policy",
      "data": section,
      "policy": {"robot": "arm", "cameras": cameras, "step_seconds": step_seconds},
      "model": {"num_cameras": slots},
      "language": {"kind": "hash"},
    }
  )


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


def test_the_data_sets_of_a_policy(monkeypatch):
  asked, checked = [], []
  monkeypatch.setattr(policy_data.motion_data, "resolve", lambda path: asked.append(path) or path)
  monkeypatch.setattr(policy_data.motion_data, "cache_dir", lambda section: "CACHE")
  monkeypatch.setattr(
    policy_data.motion_data, "to_shards", lambda path, section, **more: asked.append(more) or "one"
  )
  monkeypatch.setattr(
    policy_data.labels, "check", lambda labels, *, data_path: checked.append((labels, data_path))
  )
  (alone,) = policy_data.sets(config(path="a/b/", cameras=("r",), labels="L", image_size=48))
  assert alone == PolicySet(
    path="one", robot="arm", labels="L", cameras=("r",), name="b"
  ) and checked == [("L", "one")]
  assert asked == ["a/b/", {"image_size": 48, "cache_dir": "CACHE"}]
  del asked[:], checked[:]
  mixture = (
    {"path": "x", "robot": "arm", "name": "mine", "weight": 2.0},
    {"path": "y", "labels": "L"},
  )
  one, other = policy_data.sets(config(mixture=mixture))
  assert (one.name, one.weight, one.labels, one.cameras) == ("mine", 2.0, "", ()) and (
    other.name,
    other.robot,
  ) == ("y", "")
  assert asked[:2] == ["x", "y"] and checked == [("L", "one")], (
    "all are looked for before the first is converted"
  )


def test_cameras_are_put_into_the_slots_of_their_names(monkeypatch):
  monkeypatch.setattr(policy_data.motion_data, "resolve", lambda path: path)
  monkeypatch.setattr(policy_data.motion_data, "to_shards", lambda path, section, **more: "one")

  def filled(*slots, **entry):
    (found,) = policy_data.sets(
      config(cameras=slots, mixture=({"path": "x", "robot": "arm", **entry},))
    )
    return found.cameras

  assert (
    filled("r", "l") == ("r", "l")
    and filled("top", "l") == ("", "l")
    and filled("top", "side") == filled() == ()
  )
  assert filled("r", "l", cameras=("l",)) == ("l",) and filled("r", "l", views="each") == ()


def robots(*sets, **changes):
  return policy_data.robots(config(**changes), list(sets))


def test_what_is_known_of_a_robot(data):
  data["two"] = (table(cameras=("l", "wrist"), tasks=("", "push", "open", "close")), manifest())
  one, other = PolicySet("one", robot="arm"), PolicySet("two", robot="arm")
  expected = {
    "action": 3,
    "state": 2,
    "action_names": ["a", "b", "c"],
    "state_names": ["x", "y"],
    "step_seconds": 0.1,
    "unused_cameras": [],
    "cameras": ["l", "r"],
    "instructions": {"count": 2, "empty": False, "examples": ["push", "reach"]},
  }
  assert robots(one, PolicySet("one", labels="L")) == {"arm": expected}
  assert robots(one, other) == {
    "arm": {
      **expected,
      "instructions": {"count": 4, "empty": True, "examples": ["close", "open", "push", "reach"]},
    }
  }
  assert robots(PolicySet("two", robot="arm", tasks=("", "open")))["arm"]["instructions"] == {
    "count": 1,
    "empty": True,
    "examples": ["open"],
  }
  data["one"] = (table(tasks=[f"task {i}" for i in range(12)]), manifest(state=None, names=None))
  found = robots(one)["arm"]
  assert (found["state"], found["action_names"], found["state_names"]) == (0, [], [])
  assert found["instructions"] == {
    "count": 12,
    "empty": False,
    "examples": [f"task {i}" for i in (0, 1, 10, 11, 2, 3, 4, 5)],
  }
  data["one"] = (table(), {**manifest(), "state": {"size": 2}})
  assert robots(one)["arm"]["state_names"] == []


def test_cameras_that_no_data_of_a_robot_use(data):
  data["one"] = (table(cameras=("l", "r", "top", "far")), manifest())

  def used(*cameras, **more):
    return PolicySet("one", robot="arm", cameras=cameras, **more)

  assert robots(used("l", "r"))["arm"]["unused_cameras"] == ["far", "top"]
  assert robots(used("l", "r"), used("", "top"))["arm"]["unused_cameras"] == ["far"]
  assert robots(used("", "r"))["arm"]["cameras"] == ["", "r"] and robots(
    used("", "r"), used("top")
  )["arm"]["cameras"] == ["top", "r"]
  assert robots(used("l", "r"), cameras=("front", "side"))["arm"]["cameras"] == ["front", "side"]
  assert robots(used("", "r"), used("top"), cameras=("front", "side"))["arm"]["cameras"] == [
    "front",
    "side",
  ]
  assert robots(used("l"), cameras=("front", "side"))["arm"]["cameras"] == ["front", ""]
  assert robots(used("r", views="each"))["arm"]["cameras"] == ["r"] and robots(
    used("r", views="each")
  )["arm"]["unused_cameras"] == ["far", "l", "top"]


def test_the_step_of_a_robot(data):
  def step(seconds=0.0, **clips):
    return (
      data.update(one=(table(**clips), manifest())),
      robots(PolicySet("one", robot="arm"), step_seconds=seconds),
    )[1]["arm"]["step_seconds"]

  assert (
    step() == 0.1
    and step(interval=(0.1, 9.0), length=(5, 1)) == 0.1
    and step(interval=(0.1, 0.10005)) == 0.100025
  )
  assert step(0.25, interval=(0.1, 0.2)) == 0.25 and step(interval=(1 / 3, 1 / 3)) == 0.333333
  end = ": set config.policy.step_seconds"
  assert (
    text_of(lambda: step(interval=(0.1, 0.2), rates=(10.0, 5.0)))
    == "one: clips of 5, 10 frames a second" + end
  )
  assert (
    text_of(lambda: step(interval=(0.1, 0.1002), rates=(10.0, 9.98004)))
    == "one: clips of 9.98, 10 frames a second" + end
  )
  assert (
    text_of(lambda: step(uniform=(True, False), rates=(10.0, 0.0)))
    == "one: clips of 10 frames a second, some at varying rates" + end
  )
  assert text_of(lambda: step(length=(1, 1))) == "one: clips of 10 frames a second" + end


def test_data_that_no_robot_can_be_trained_on(data):
  assert (
    text_of(lambda: robots(PolicySet("one", labels="L")))
    == "config.data.mixture: no entry names a robot, so there is no action to learn"
  )
  for size, shown in ((None, "none"), (0, "none"), ("several", "several")):
    data["two"] = (table(), manifest(action=size))
    assert text_of(lambda: robots(PolicySet("two", robot="arm", name="mine"))) == (
      f"mine: robot 'arm' needs actions of one size, the data set has {shown}"
    )
  data["two"] = (table(), manifest(action=1))
  assert robots(PolicySet("two", robot="arm"))["arm"]["action"] == 1
  one, two = PolicySet("one", robot="arm"), PolicySet("two", robot="arm")
  other = "two: robot 'arm' has {} {} here and {} in another data set: give it another robot name"
  assert text_of(lambda: robots(one, two)) == other.format("action", 1, 3)
  assert robots(one, PolicySet("two", robot="bot")).keys() == {"arm", "bot"}
  data["two"] = (table(), manifest(state=1))
  assert text_of(lambda: robots(one, two)) == other.format("state", 1, 2)
  data["two"] = (table(interval=(0.2, 0.2)), manifest())
  assert (
    text_of(lambda: robots(one, two))
    == other.format("step_seconds", 0.2, 0.1) + ", or set config.policy.step_seconds"
  )


def test_facts_of_the_labels(monkeypatch):
  found = {
    "queries": 3,
    "dims": 4,
    "offset_seconds": "0.5",
    "model": {"fingerprint": "aa"},
    "other": 1,
  }
  monkeypatch.setattr(
    policy_data.labels,
    "Labels",
    lambda path: SimpleNamespace(manifest={**found, "model": {"fingerprint": path}}),
  )
  assert policy_data.label_facts([PolicySet("one", robot="arm")]) is None
  assert policy_data.label_facts(
    [PolicySet("one"), PolicySet("one", labels="L"), PolicySet("one", labels="M")]
  ) == {"queries": 3, "dims": 4, "latent_offset_seconds": 0.5, "latent_model": "L"}


def test_how_frames_were_made_square(data):
  for name, more in (
    ("crop", dict(resize="crop", image_size=32)),
    ("own", dict(resize="crop", image_size=0)),
    ("old", dict(image_size=32)),
  ):
    data[name] = (table(), manifest(**more))

  def resize(*paths):
    return policy_data.resize([PolicySet(path) for path in paths])

  assert resize("crop", "crop") == "crop" and resize("own", "old", "one") == "squash"
  assert text_of(lambda: resize("one", "crop", "old")) == (
    "config.data.mixture: frames were made square in different ways (one with 'squash', crop with "
    "'crop'): ingest all with one resize"
  )


def test_names_of_the_slots(data):
  def names(*sets, **changes):
    return policy_data.cameras(config(**changes), list(sets))

  data["one"] = (table(cameras=("l", "r", "top")), manifest())
  arm = PolicySet("one", robot="arm")
  assert names(arm, cameras=("a", "b")) == ("a", "b") and names(
    PolicySet("no", labels="L"), arm
  ) == ("l", "r")
  assert names(arm, slots=1) == names(arm, slots=0) == ("l",) and names(arm, slots=4) == (
    "l",
    "r",
    "top",
    "",
  )
  assert names(PolicySet("one", robot="arm", cameras=("top", "", "l"))) == ("top", "", "l")
  assert names(PolicySet("one", robot="arm", cameras=("", "r", "top"), views="each")) == ("r",)


def test_what_fills_the_slots(data):
  def filled(count, *cameras, **more):
    return policy_data._filled(PolicySet("one", cameras=cameras, **more), count)

  assert (
    filled(1) == ("l",)
    and filled(3) == ("l", "r", "")
    and filled(3, "", "r") == ("", "r", "")
    and filled(1, "r", "l") == ("r",)
  )
  assert filled(2, "", "r", "l", views="each") == ("r", "") and filled(2, views="each") == ("l", "")

  def unused(count, *cameras, **more):
    return policy_data.unused_cameras(PolicySet("one", cameras=cameras, **more), count)

  assert (
    unused(1) == ("r",)
    and unused(2) == ()
    and unused(2, "r") == ("l",)
    and unused(1, views="each") == ()
    and unused(1, "r", views="each") == ("l",)
  )


def test_every_instruction_is_embedded_once(data, monkeypatch):
  asked = []
  data["two"] = (table(tasks=("push", "open")), manifest())

  def encode(texts):
    asked.append(texts)
    return np.arange(len(texts)), -np.arange(len(texts))

  monkeypatch.setattr(
    policy_data.language, "build", lambda section: encode if section == {"kind": "hash"} else None
  )
  found, texts = policy_data.instructions(config(), [PolicySet("one"), PolicySet("two")])
  assert (
    found is encode
    and asked == [["", "open", "push", "reach"]]
    and texts == {text: (i, -i) for i, text in enumerate(asked[0])}
  )
