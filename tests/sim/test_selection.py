"""Tasks, cameras and arguments of a simulator that a rollout chooses."""

import types

import pytest

from como_jax import errors
from como_jax.sim import selection
from tests.sim import toys


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


def test_tasks_cameras_and_arguments_of_the_simulator():
  def names(*tasks):
    return selection.task_names(tasks, toys.TASKS, simulator="toy")

  assert names() == tuple(toys.TASKS) and names("line", "some_suite", "line", "some_suite/1") == (
    "line",
    "some_suite/0",
    "some_suite/1",
  )
  valid = ", ".join(sorted({*toys.TASKS, "some_suite"}))
  assert (
    text_of(lambda: names("some_suit"))
    == f"config.tasks: toy task 'some_suit' is unknown: did you mean 'some_suite'? (valid: {valid})"
  )

  def cameras(slots, *given, video=False):
    return selection.camera_names(given, toys.CAMERAS, slots=slots, video=video, simulator="toy")

  assert (
    cameras(None) == ()
    and cameras(None, video=True) == ("front",)
    and cameras(("side",)) == ("side",)
  )
  assert cameras(None, "side", "front") == ("side", "front") and cameras(
    ("a", "b"), "side", "front"
  ) == ("side", "front")
  assert (
    text_of(lambda: cameras(("a", "b"), "side"))
    == "config.cameras names 1 cameras, the policy has 2 slots: a, b"
  )
  assert text_of(lambda: cameras(None, "frnt")) == (
    "toy has no camera 'frnt': did you mean 'front'? (valid: front, side); config.cameras names "
    "one for each of the policy's slots"
  )

  def build(**given):
    return selection.builder(toys.build, given, simulator="toy")

  assert build(speed=2.0).keywords == {"speed": 2.0}
  for name in ("task", "cameras", "image_size", "stride", "scene", "spead"):
    assert text_of(lambda name=name: build(**{name: 1})).startswith(
      f"config.build: toy has no {name!r}: "
    )
  assert (
    text_of(lambda: build(spead=1))
    == "config.build: toy has no 'spead': did you mean 'speed'? (valid: speed)"
  )
  closed = []
  spec = selection.spec(
    lambda task, **more: types.SimpleNamespace(
      spec=(task, more), close=lambda: closed.append(task)
    ),
    "line",
    cameras=("a",),
    image_size=8,
  )
  assert spec == ("line", {"cameras": ("a",), "image_size": 8}) and closed == ["line"]
