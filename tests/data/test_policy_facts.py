"""What is found out about the data of a policy: robots, rates, cameras, instructions, labels; on
tables of paper.
"""

import dataclasses

import pytest

from como_jax import errors
from como_jax.data import policy_facts, policy_sets
from como_jax.data.policy_index import PolicySet
from tests.data.policy_shards import known_shards, manifest, mixture, table


@pytest.fixture(name="data", autouse=True)
def _data(monkeypatch):
  return known_shards(monkeypatch)


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


def opened(*sets):
  return [policy_sets.open_set(entry) for entry in sets]


def robots(*sets, step_seconds=0.0, **changes):
  found = mixture(*sets, **changes).robots(step_seconds=step_seconds)
  return {name: dataclasses.asdict(facts) for name, facts in found.items()}


def test_what_is_known_of_a_robot(data):
  data["two"] = (table(cameras=("l", "wrist"), tasks=("", "push", "open", "close")), manifest())
  one, other = PolicySet("one", robot="arm"), PolicySet("two", robot="arm")
  expected = {
    "action": 3,
    "state": 2,
    "action_names": ("a", "b", "c"),
    "state_names": ("x", "y"),
    "step_seconds": 0.1,
    "unused_cameras": (),
    "cameras": ("l", "r"),
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
  assert (found["state"], found["action_names"], found["state_names"]) == (0, (), ())
  assert found["instructions"] == {
    "count": 12,
    "empty": False,
    "examples": [f"task {i}" for i in (0, 1, 10, 11, 2, 3, 4, 5)],
  }
  data["one"] = (table(), {**manifest(), "state": {"size": 2}})
  assert robots(one)["arm"]["state_names"] == ()


def test_cameras_that_no_data_of_a_robot_use(data):
  data["one"] = (table(cameras=("l", "r", "top", "far")), manifest())

  def used(*cameras, **more):
    return PolicySet("one", robot="arm", cameras=cameras, **more)

  assert robots(used("l", "r"))["arm"]["unused_cameras"] == ("far", "top")
  assert robots(used("l", "r"), used("", "top"))["arm"]["unused_cameras"] == ("far",)
  assert robots(used("", "r"))["arm"]["cameras"] == ("", "r") and robots(
    used("", "r"), used("top")
  )["arm"]["cameras"] == ("top", "r")
  assert robots(used("l", "r"), cameras=("front", "side"))["arm"]["cameras"] == ("front", "side")
  assert robots(used("", "r"), used("top"), cameras=("front", "side"))["arm"]["cameras"] == (
    "front",
    "side",
  )
  assert robots(used("l"), cameras=("front", "side"))["arm"]["cameras"] == ("front", "")
  assert robots(used("r", views="each"))["arm"]["cameras"] == ("r",) and robots(
    used("r", views="each")
  )["arm"]["unused_cameras"] == ("far", "l", "top")


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


def test_facts_of_the_labels():
  assert policy_facts.latent_motion(opened(PolicySet("one", robot="arm"))) is None
  sets = opened(PolicySet("one", robot="arm"), PolicySet("one", labels="L"))
  assert policy_facts.latent_motion(sets) == policy_facts.LatentMotion(
    latent_model="L", latent_offset_seconds=0.5, num_queries=3, latent_dim=4
  )


def test_how_frames_were_made_square(data):
  for name, more in (
    ("crop", dict(resize="crop", image_size=32)),
    ("own", dict(resize="crop", image_size=0)),
    ("old", dict(image_size=32)),
  ):
    data[name] = (table(), manifest(**more))

  def resize(*paths):
    return policy_facts.resize(opened(*(PolicySet(path, robot="arm") for path in paths)))

  assert resize("crop", "crop") == "crop" and resize("own", "old", "one") == "squash"
  assert text_of(lambda: resize("one", "crop", "old")) == (
    "config.data.mixture: frames were made square in different ways (one with 'squash', crop with "
    "'crop'): ingest all with one resize"
  )


def test_what_fills_the_slots(data):
  def filled(count, *cameras, **more):
    (one,) = opened(PolicySet("one", robot="arm", cameras=cameras, **more))
    return policy_facts.slot_cameras(one, count)

  assert (
    filled(1) == ("l",)
    and filled(3) == ("l", "r", "")
    and filled(3, "", "r") == ("", "r", "")
    and filled(1, "r", "l") == ("r",)
  )
  assert filled(2, "", "r", "l", views="each") == ("r", "") and filled(2, views="each") == ("l", "")

  def unused(count, *cameras, **more):
    (one,) = opened(PolicySet("one", robot="arm", cameras=cameras, **more))
    return policy_facts.unused_cameras(one, count)

  assert (
    unused(1) == ("r",)
    and unused(2) == ()
    and unused(2, "r") == ("l",)
    and unused(1, views="each") == ()
    and unused(1, "r", views="each") == ("l",)
  )
