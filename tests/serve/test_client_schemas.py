"""Client keys -> observations."""

import warnings

import numpy as np
import pytest

from como_jax import errors
from como_jax.serve import client_schemas
from tests.serve import fake

IMAGE = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)


def test_libero():
  found, reset = client_schemas.Mapper("libero", ("front", "wrist"), state_dim=8)(
    fake.observation(2.0)
  )
  assert (
    set(found)
    == {"observation.images.front", "observation.images.wrist", "observation.state", "task"}
    and not reset
  )
  assert found["observation.images.front"].mean() == 100 and found["task"] == "pick up the cup"
  assert (
    found["observation.state"].dtype == np.float32
    and found["observation.state"].tolist() == [2.0] * 8
  )


def test_droid_puts_joints_and_gripper_together():
  message = {
    "observation/exterior_image_1_left": IMAGE,
    "observation/wrist_image_left": IMAGE,
    "prompt": "x",
    "observation/joint_position": np.arange(7.0),
    "observation/gripper_position": np.float64(9.0),
  }
  found, _ = client_schemas.Mapper("droid", ("a", "b"), state_dim=8)(message)
  assert found["observation.state"].tolist() == [0, 1, 2, 3, 4, 5, 6, 9]


def test_aloha_has_channels_first_in_a_dict():
  message = {
    "images": {
      name: np.ascontiguousarray(IMAGE.transpose(2, 0, 1)) for name in ("cam_high", "cam_low")
    },
    "state": [0.5] * 14,
    "prompt": "x",
  }
  found, _ = client_schemas.Mapper("aloha", ("top",))(message)
  np.testing.assert_array_equal(found["observation.images.top"], IMAGE)
  assert (
    found["observation.images.top"].flags.c_contiguous and len(found["observation.state"]) == 14
  )


def test_openpis_aloha_simulation_sends_one_camera_and_no_prompt():
  """The message of openpi's examples/aloha_sim/env.py."""
  message = {
    "state": np.linspace(0, 1, 14),
    "images": {"cam_high": np.ascontiguousarray(IMAGE.transpose(2, 0, 1))},
  }
  found, reset = client_schemas.Mapper("aloha", ("top",), state_dim=14, prompt="transfer the cube")(
    message
  )
  np.testing.assert_array_equal(found["observation.images.top"], IMAGE)
  assert (
    found["task"] == "transfer the cube" and len(found["observation.state"]) == 14 and not reset
  )
  assert client_schemas.Mapper("aloha", ("top",))(message)[0]["task"] == ""
  assert (
    client_schemas.Mapper("aloha", ("top",), prompt="x")({**message, "prompt": "stop"})[0]["task"]
    == "stop"
  )
  with pytest.raises(errors.UserError, match="observation has no 'images/cam_low'"):
    client_schemas.Mapper("aloha", ("top", "bottom"))(message)


def test_our_own_names():
  mapper = client_schemas.Mapper("como", ("corner",), state_dim=2)
  assert mapper.keys == ("observation.images.corner", "observation.state")
  found, reset = mapper(
    {
      "observation.images.corner": IMAGE,
      "observation.state": np.zeros(2, np.float32),
      "task": "",
      "reset": True,
    }
  )
  assert reset and found["task"] == ""


def test_cameras_fill_slots_in_the_order_given():
  message = fake.observation()
  for chosen in (("wrist_image",), ("observation/wrist_image",)):
    mapper = client_schemas.Mapper("libero", ("front",), cameras=chosen, state_dim=8)
    assert (
      mapper.cameras == {"observation/wrist_image": "front"}
      and mapper(message)[0]["observation.images.front"].mean() == 0
    )
  del message["observation/image"]  # not used, so it need not come
  mapper(message)
  swapped = client_schemas.Mapper("libero", ("a", "b"), cameras=("wrist_image", "image"))
  assert swapped.cameras == {"observation/wrist_image": "a", "observation/image": "b"}


def test_a_policy_without_state_needs_none():
  mapper = client_schemas.Mapper("libero", ("front",), state_dim=0)
  message = fake.observation()
  del message["observation/state"]
  assert mapper.keys == ("observation/image",) and "observation.state" not in mapper(message)[0]


SEVERAL = {"count": 2, "empty": False, "examples": ["wave hello", "stack the blocks"]}


@pytest.mark.parametrize("preset, key", [("como", "task"), ("libero", "prompt")])
def test_an_instruction_is_asked_for_where_the_policy_has_several(preset, key):
  images = (
    ("observation.images.a", "observation.state")
    if preset == "como"
    else ("observation/image", "observation/state")
  )
  message = {images[0]: IMAGE, images[1]: np.zeros(2, np.float32)}
  mapper = client_schemas.Mapper(preset, ("a",), state_dim=2, instructions=SEVERAL)
  assert mapper.keys == (*images, key) and mapper.task == key
  for silent in (message, {**message, key: ""}):
    with pytest.raises(
      errors.UserError,
      match=(
        f"no '{key}' .preset '{preset}'.: the policy was trained on 2 instructions, such as "
        "'wave hello'; .*--config.prompt"
      ),
    ):
      mapper(silent)
  assert mapper({**message, key: "wave hello"})[0]["task"] == "wave hello"
  assert (
    client_schemas.Mapper(preset, ("a",), state_dim=2, instructions=SEVERAL, prompt="stack them")(
      message
    )[0]["task"]
    == "stack them"
  )
  for fine in (None, {**SEVERAL, "empty": True}, {**SEVERAL, "count": 1}):
    assert client_schemas.wants_instruction(fine) == ""
    mapper = client_schemas.Mapper(preset, ("a",), state_dim=2, instructions=fine)
    assert mapper.keys == images and mapper(message)[0]["task"] == ""


def test_keys_of_another_preset_are_explained():
  mapper = client_schemas.Mapper("como", ("a",), state_dim=2)
  message = {"observation.images.a": IMAGE, "observation.state": np.zeros(2, np.float32)}
  with pytest.raises(
    errors.UserError,
    match=r"key 'prompt' is unknown to preset 'como': the instruction is called 'task' here; "
    r"--config.preset=libero\|droid\|aloha of the server knows it; .*valid: .*task",
  ):
    mapper({**message, "prompt": "go"})
  with pytest.raises(
    errors.UserError,
    match=r"'observation/image' is unknown to preset 'como': --config.preset=libero of the server",
  ):
    mapper({**message, "observation/image": IMAGE})
  with pytest.raises(
    errors.UserError,
    match=(
      r"'task' is unknown to preset 'libero': the instruction is called 'prompt' here; "
      r"--config.preset=como"
    ),
  ):
    client_schemas.Mapper("libero", ("a",))({"task": "go"})


def test_a_camera_that_the_policy_does_not_look_at_may_be_sent():
  message = {
    "observation.images.a": IMAGE,
    "observation.images.wrist": IMAGE,
    "observation.state": np.zeros(2, np.float32),
  }
  mapper = client_schemas.Mapper("como", ("a",), state_dim=2, unused=("wrist",))
  assert (
    "observation.images.wrist" not in mapper(message)[0]
    and "observation.images.wrist" not in mapper.keys
  )
  with pytest.raises(errors.UserError, match="'observation.images.wrist' is unknown"):
    client_schemas.Mapper("como", ("a",), state_dim=2)(message)


@pytest.mark.parametrize(
  "name, slots, cameras, expected",
  [
    ("liberro", ("a",), (), "did you mean 'libero'"),
    ("libero", ("a", "b", "c"), (), "3 camera"),
    ("libero", ("a",), ("image", "wrist_image"), "1 camera"),
    ("libero", ("a", "b"), ("image", "image"), "different"),
    ("libero", ("a",), ("wrist_imgae",), "did you mean 'wrist_image'"),
  ],
)
def test_mistakes_are_named_before_serving(name, slots, cameras, expected):
  with pytest.raises(errors.UserError, match=expected):
    client_schemas.Mapper(name, slots, cameras=cameras)


def said(message, name="como", slots=("a",), **settings):
  """The error of a message."""
  with pytest.raises(errors.UserError) as caught:
    client_schemas.Mapper(name, slots, **settings)(message)
  return str(caught.value)


def test_images_have_at_most_the_pixels_of_full_hd():
  message = {
    "observation.images.a": np.zeros((1080, 1920, 3), np.uint8),
    "observation.state": [0.0],
  }
  assert client_schemas.Mapper("como", ("a",))(message)[0]["observation.images.a"].shape == (
    1080,
    1920,
    3,
  )
  message["observation.images.a"] = np.zeros((1, 1080 * 1920 + 1, 3), np.uint8)
  assert said(message) == (
    "'observation.images.a' has 2073601 pixels, at most 2073600 are accepted: resize it on "
    "the robot"
  )


def test_states_have_1_to_1024_numbers():
  message = {"observation.images.a": IMAGE, "observation.state": np.arange(1024)}
  assert len(client_schemas.Mapper("como", ("a",))(message)[0]["observation.state"]) == 1024
  for state, what in (
    (np.zeros(1025), "float64 [1025]"),
    (np.zeros((2, 4)), "float64 [2, 4]"),
    ([[1.0], [1.0, 2.0]], "a list"),
    ("up", "a str"),
    (np.zeros(0), "float64 [0]"),
    (True, "a bool"),
  ):
    assert (
      said({**message, "observation.state": state})
      == f"'observation.state' is {what}, a vector of 1 to 1024 numbers is expected"
    )
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # of numpy, which would go to the server's output
    assert (
      said({**message, "observation.state": [1e300]})
      == "'observation.state' holds a number that is not finite in float32"
    )


def test_texts_have_at_most_2000_characters():
  message = {"observation.images.a": IMAGE, "observation.state": [0.0]}
  assert len(client_schemas.Mapper("como", ("a",), prompt="x" * 2000)(message)[0]["task"]) == 2000
  assert (
    said({**message, "task": "x" * 2001}) == "'task' has 2001 characters, at most 2000 are accepted"
  )
  assert (
    said(message, prompt="x" * 2001)
    == "'config.prompt' has 2001 characters, at most 2000 are accepted"
  )
  assert said(message, prompt=None) == "'config.prompt' is a NoneType, a text is expected"


def test_what_is_sent_twice_is_refused():
  image = np.zeros((3, 2, 2), np.uint8)
  assert (
    said({"images": {"cam_high": image}, "images/cam_high": image, "state": [0.0]}, "aloha")
    == "observation has 'images/cam_high' twice"
  )


def test_keys_are_shown_short_and_on_one_line():
  assert (
    client_schemas._clip("x" * 60) == "x" * 60
    and client_schemas._clip("x" * 61) == "x" * 57 + "..."
  )
  assert client_schemas._clip("a\n") == "a\\n" and client_schemas._clip(b"k") == "b'k'"
  known = errors.nearest("b'k'", ("observation.images.a", "observation.state", "task", "reset"))
  assert said({b"k": 1}) == f"""observation key "b'k'" is unknown to preset 'como': {known}"""


def test_at_most_twelve_of_the_given_keys_are_listed():
  slots = tuple("abcdefghijklmn")
  message = {f"observation.images.{slot}": IMAGE for slot in reversed(slots)}
  listed = ", ".join(f"observation.images.{slot}" for slot in slots[:12])
  assert (
    said(message, slots=slots)
    == f"observation has no 'observation.state' (preset 'como'): given were {listed}"
  )
  assert (
    said({}) == "observation has no 'observation.images.a' (preset 'como'): the message is empty"
  )


def test_reset_is_a_truth_value():
  message = {"observation.images.a": IMAGE, "observation.state": [0.0]}
  assert client_schemas.Mapper("como", ("a",))({**message, "reset": np.bool_(True)})[1] is True
  assert client_schemas.Mapper("como", ("a",))(message)[1] is False
  assert said({**message, "reset": 1}) == "'reset' is a int, true or false is expected"


def test_our_own_cameras_may_be_named_in_another_order():
  mapper = client_schemas.Mapper("como", ("left/front", "b"), cameras=("b", "left/front"))
  assert mapper.cameras == {
    "observation.images.b": "left/front",
    "observation.images.left/front": "b",
  }
