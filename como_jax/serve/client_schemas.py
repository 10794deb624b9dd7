"""Presets of client keys, and their conversion to our observation names.

The openpi presets have the key names of its LIBERO, DROID and ALOHA clients
(github.com/Physical-Intelligence/openpi, src/openpi/policies/*_policy.py, examples/*/main.py), so
those clients run unchanged. The preset "como" has our own names.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import policy_spec
from como_jax.observations import IMAGE, STATE, TASK

RESET = "reset"  # in every preset: true = a new episode begins, clear the history
MAX_PIXELS = 1920 * 1080  # of one image; the server keeps a history of images per connection
MAX_STATE = 1024
MAX_TEXT = 2_000  # characters of an instruction


@dataclasses.dataclass(frozen=True)
class Preset:
  """The keys of one kind of client.

  Attributes:
    cameras: keys of the images, uint8. A key with a slash (`images/cam_high`) may also be sent as a
      nested dict.
    state: keys whose values are concatenated to the state.
    task: key of the instruction.
    channels_first: whether images are [3, H, W]; otherwise they are [H, W, 3].
  """

  cameras: tuple[str, ...]
  state: tuple[str, ...]
  task: str
  channels_first: bool = False


PRESETS = {
  "como": Preset((), (STATE,), TASK),  # cameras: observation.images.<camera of the policy>
  "libero": Preset(
    ("observation/image", "observation/wrist_image"), ("observation/state",), "prompt"
  ),
  "droid": Preset(
    ("observation/exterior_image_1_left", "observation/wrist_image_left"),
    ("observation/joint_position", "observation/gripper_position"),
    "prompt",
  ),
  "aloha": Preset(
    ("images/cam_high", "images/cam_low", "images/cam_left_wrist", "images/cam_right_wrist"),
    ("state",),
    "prompt",
    channels_first=True,
  ),
}


def wants_instruction(instructions: Mapping[str, Any] | None) -> str:
  """Reason why an observation needs an instruction; "" = it needs none.

  An instruction is needed when the training data has several instructions and never an empty one.

  Args:
    instructions: {"count", "empty", "examples"} of the robot's training data
      (data/policy_facts.py); None = unknown.
  """
  if not instructions or not policy_spec.instruction_needed(instructions):
    return ""
  return (
    f"the policy was trained on {instructions['count']} instructions, such as "
    f"{instructions['examples'][0]!r}"
  )


class Mapper:
  """Converts a decoded message to an observation of the policy.

  Attributes:
    name: of the preset.
    cameras: client key -> the policy's camera name, for the images that are used.
    task: key of the instruction.
    keys: keys that every message needs. The key of the instruction is one of them where the policy
      needs an instruction (`wants_instruction`).
  """

  def __init__(
    self,
    name: str,
    slots: Sequence[str],
    *,
    cameras: Sequence[str] = (),
    state_dim: int | None = None,
    prompt: str = "",
    instructions: Mapping[str, Any] | None = None,
    unused: Sequence[str] = (),
  ):
    """Checks the preset against the policy.

    Args:
      name: of a preset.
      slots: the policy's cameras.
      cameras: the preset's image keys for the slots, in order. The last part of a key is enough
        (`wrist_image`). () = the first keys.
      state_dim: dimension of the state; None = unknown, 0 = the policy uses no state, so none is
        required.
      prompt: instruction of messages without one.
      instructions: of the training data, see `wants_instruction`.
      unused: cameras of the training data that the policy does not use. In the preset "como",
        messages may contain them.

    Raises:
      errors.UserError: unknown preset or camera, or too few cameras for the slots.
    """
    if name not in PRESETS:
      raise errors.UserError(f"config.preset={name!r} is unknown: {errors.nearest(name, PRESETS)}")
    self.name, self._preset, self._state_dim = name, PRESETS[name], state_dim
    self._prompt = _text("config.prompt", prompt)
    known = self._preset.cameras or tuple(IMAGE + slot for slot in slots)
    short = {
      key.removeprefix(IMAGE) if key.startswith(IMAGE) else key.rpartition("/")[2]: key
      for key in known
    }
    selected = []
    for camera in cameras or known[: len(slots)]:
      if camera not in known and camera not in short:
        raise errors.UserError(
          f"config.cameras: preset {name!r} has no camera {camera!r}: "
          f"{errors.nearest(camera, short)}"
        )
      selected.append(short.get(camera, camera))
    if len(selected) != len(slots) or len(set(selected)) != len(selected):
      raise errors.UserError(
        f"the policy has {len(slots)} camera(s) ({', '.join(slots)}), preset {name!r} fills them "
        f"with {', '.join(selected) or 'none'}: give config.cameras, one different key for each"
      )
    self.cameras = dict(zip(selected, slots, strict=False))
    state_keys = self._preset.state if state_dim != 0 else ()
    self.task = self._preset.task
    self._instruction_reason = "" if self._prompt.strip() else wants_instruction(instructions)
    self.keys = (*selected, *state_keys, *((self.task,) if self._instruction_reason else ()))
    ignored = () if self._preset.cameras else [IMAGE + camera for camera in unused]
    self._known = {*known, *ignored, *self._preset.state, self.task, RESET}

  def __call__(self, message: Any) -> tuple[dict[str, Any], bool]:
    """Converts a message.

    Args:
      message: a decoded message.

    Returns:
      (observation, whether to clear the history).

    Raises:
      errors.UserError: names a missing or unknown key and the nearest valid one, or a value of a
        wrong type, shape or range.
    """
    if not isinstance(message, dict):
      raise errors.UserError(
        f"message is a {type(message).__name__}, a dict of observations is expected"
      )
    flat = self._flatten(message)
    for key in flat:
      if key not in self._known:
        name = _clip(key)
        raise errors.UserError(
          f"observation key {name!r} is unknown to preset {self.name!r}: "
          f"{_of_other_presets(key, self.task)}{errors.nearest(name, self._known)}"
        )
    for key in self.keys:
      if key not in flat and key != self.task:
        raise errors.UserError(
          f"observation has no {key!r} (preset {self.name!r}): {_list_keys(flat)}"
        )
    reset = flat.get(RESET, False)
    if not isinstance(reset, (bool, np.bool_)):
      raise errors.UserError(f"{RESET!r} is a {type(reset).__name__}, true or false is expected")
    observation: dict[str, Any] = {
      IMAGE + slot: self._image(key, flat[key]) for key, slot in self.cameras.items()
    }
    if all(key in flat for key in self._preset.state):
      state = np.concatenate([_vector(key, flat[key]) for key in self._preset.state])
      if self._state_dim and len(state) != self._state_dim:
        raise errors.UserError(
          f"{' + '.join(self._preset.state)}: {len(state)} numbers, the policy's state has "
          f"{self._state_dim}"
        )
      observation[STATE] = state
    observation[TASK] = _text(self.task, flat.get(self.task, self._prompt))
    if self._instruction_reason and not observation[TASK].strip():
      raise errors.UserError(
        f"observation has no {self.task!r} (preset {self.name!r}): {self._instruction_reason}; "
        "send one, or start the server with --config.prompt"
      )
    return observation, bool(reset)

  def _flatten(self, message: Mapping[Any, Any]) -> dict[Any, Any]:
    """Flattens nested dicts: {"images": {"cam_high": x}} -> {"images/cam_high": x}."""
    flat = {}
    for key, value in message.items():
      nested = (
        {f"{key}/{name}": item for name, item in value.items()}
        if isinstance(value, dict)
        else {key: value}
      )
      for name, item in nested.items():
        if name in flat:
          raise errors.UserError(f"observation has {_clip(name)!r} twice")
        flat[name] = item
    return flat

  def _image(self, key: str, value: Any) -> np.ndarray:
    """Checks an image; returns it as uint8 [H, W, 3]."""
    first = self._preset.channels_first
    layout = "[3, H, W]" if first else "[H, W, 3]"
    if not isinstance(value, np.ndarray):
      raise errors.UserError(
        f"{key!r} is a {type(value).__name__}, an array uint8 {layout} is expected"
      )
    if (
      value.dtype != np.uint8
      or value.ndim != 3
      or value.shape[0 if first else -1] != 3
      or not value.size
    ):
      raise errors.UserError(
        f"{key!r} is {value.dtype} {list(value.shape)}, uint8 {layout} is expected"
      )
    if value.size > 3 * MAX_PIXELS:
      raise errors.UserError(
        f"{key!r} has {value.size // 3} pixels, at most {MAX_PIXELS} are accepted: resize it "
        "on the robot"
      )
    return np.ascontiguousarray(value.transpose(1, 2, 0)) if first else value


def _vector(key: str, value: Any) -> np.ndarray:
  """Converts an array, scalar or list of numbers to a float32 vector."""
  try:
    array = np.atleast_1d(np.asarray(value))
  except ValueError:  # a ragged list
    array = None
  if (
    array is None
    or array.ndim != 1
    or array.dtype.kind not in "iuf"
    or not 0 < len(array) <= MAX_STATE
  ):
    kind = (
      f"{array.dtype} {list(array.shape)}"
      if isinstance(value, np.ndarray) and array is not None
      else f"a {type(value).__name__}"
    )
    raise errors.UserError(f"{key!r} is {kind}, a vector of 1 to {MAX_STATE} numbers is expected")
  with np.errstate(over="ignore"):
    array = array.astype(np.float32)
  if not np.isfinite(array).all():
    raise errors.UserError(f"{key!r} holds a number that is not finite in float32")
  return array


def _text(key: str, value: Any) -> str:
  if not isinstance(value, str):
    raise errors.UserError(f"{key!r} is a {type(value).__name__}, a text is expected")
  if len(value) > MAX_TEXT:
    raise errors.UserError(f"{key!r} has {len(value)} characters, at most {MAX_TEXT} are accepted")
  return value


def _of_other_presets(key: Any, task: str) -> str:
  """Hint for a client of another preset; openpi's clients call the instruction `prompt`."""
  names = [
    name for name, preset in PRESETS.items() if key in (*preset.cameras, *preset.state, preset.task)
  ]
  if not names:
    return ""
  hint = (
    f"the instruction is called {task!r} here; "
    if any(key == PRESETS[name].task for name in names)
    else ""
  )
  return f"{hint}--config.preset={'|'.join(names)} of the server knows it; "


def _list_keys(flat: Mapping[Any, Any]) -> str:
  """Lists the keys of a message, for the message about a missing key."""
  keys = [_clip(name) for name in flat]
  return "the message is empty" if not keys else "given were " + ", ".join(sorted(keys)[:12])


def _clip(key: Any) -> str:
  """Shortens a key to one line of at most 60 characters, for replies and logs."""
  text = repr(key)[1:-1] if isinstance(key, str) else repr(key)
  return text if len(text) <= 60 else text[:57] + "..."
