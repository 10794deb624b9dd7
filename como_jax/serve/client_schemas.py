"""Which keys a client sends, by preset, and how they become our observation names.

The openpi presets are the key names of its LIBERO, DROID and ALOHA clients
(github.com/Physical-Intelligence/openpi, src/openpi/policies/*_policy.py, examples/*/main.py), so
that those clients run unchanged. "como" is our own names.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.observations import IMAGE, STATE, TASK

RESET = "reset"  # any preset: true = a new episode begins, forget the history
MOST_PIXELS = 1920 * 1080  # of one image; the server keeps a history of them per connection
MOST_STATE = 1024
MOST_TEXT = 2_000  # characters of an instruction


@dataclasses.dataclass(frozen=True)
class Preset:
  """The keys of one kind of client.

  Attributes:
    cameras: keys of the images, uint8. A slash after a group's name (`images/cam_high`) also means
      a dict within a dict.
    state: keys whose numbers, one after the other, are the state.
    task: key of the instruction.
    channels_first: images are [3, H, W] and not [H, W, 3].
  """

  cameras: tuple[str, ...]
  state: tuple[str, ...]
  task: str
  channels_first: bool = False


PRESETS = {
  "como": Preset((), (STATE,), TASK),  # cameras: observation.images.<each of the policy's>
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
  """Why an observation needs an instruction: the policy has several to tell apart and was never
  without one. "" = it needs none.

  Args:
    instructions: {"count", "empty", "examples"} of the robot's training data
      (tasks/policy_data.py); None = not known.
  """
  if not instructions or instructions["count"] < 2 or instructions["empty"]:
    return ""
  return (
    f"the policy was trained on {instructions['count']} instructions, such as "
    f"{instructions['examples'][0]!r}"
  )


class Mapper:
  """Turns a decoded message into an observation of the policy.

  Attributes:
    name: of the preset.
    cameras: client key -> the policy's camera name, for the images that are used.
    task: key of the instruction.
    keys: every key that must be sent, with the instruction's where the policy has several to tell
      apart.
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
    """Args:
      name: of a preset.
      slots: the policy's cameras.
      cameras: the preset's image keys that fill the slots, in order; their last parts will do
        (`wrist_image`). () = the first ones.
      state_dim: numbers of the state, where it is known beforehand; 0 = the policy looks at none,
        so none need be sent.
      prompt: instruction of messages without one.
      instructions: those that the policy was trained on, see `wants_instruction`.
      unused: cameras of the policy's data that it does not look at; under our own names they may be
        sent all the same.

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
    chosen = []
    for camera in cameras or known[: len(slots)]:
      if camera not in known and camera not in short:
        raise errors.UserError(
          f"config.cameras: preset {name!r} has no camera {camera!r}: "
          f"{errors.nearest(camera, short)}"
        )
      chosen.append(short.get(camera, camera))
    if len(chosen) != len(slots) or len(set(chosen)) != len(chosen):
      raise errors.UserError(
        f"the policy has {len(slots)} camera(s) ({', '.join(slots)}), preset {name!r} fills them "
        f"with {', '.join(chosen) or 'none'}: give config.cameras, one different key for each"
      )
    self.cameras = dict(zip(chosen, slots, strict=False))
    needed = self._preset.state if state_dim != 0 else ()
    self.task, self._wants = (
      self._preset.task,
      "" if self._prompt.strip() else wants_instruction(instructions),
    )
    self.keys = (*chosen, *needed, *((self.task,) if self._wants else ()))
    ignored = () if self._preset.cameras else [IMAGE + camera for camera in unused]
    self._known = {*known, *ignored, *self._preset.state, self.task, RESET}

  def __call__(self, message: Any) -> tuple[dict[str, Any], bool]:
    """(observation, whether the history is to be forgotten).

    Raises:
      errors.UserError: naming the missing or unknown key and the nearest, or the value of another
        type, shape or range.
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
          f"observation has no {key!r} (preset {self.name!r}): {_given(key, flat)}"
        )
    reset = flat.get(RESET, False)
    if not isinstance(reset, (bool, np.bool_)):
      raise errors.UserError(f"{RESET!r} is a {type(reset).__name__}, true or false is expected")
    found = {IMAGE + slot: self._image(key, flat[key]) for key, slot in self.cameras.items()}
    if all(key in flat for key in self._preset.state):
      state = np.concatenate([_numbers(key, flat[key]) for key in self._preset.state])
      if self._state_dim and len(state) != self._state_dim:
        raise errors.UserError(
          f"{' + '.join(self._preset.state)}: {len(state)} numbers, the policy's state has "
          f"{self._state_dim}"
        )
      found[STATE] = state
    found[TASK] = _text(self.task, flat.get(self.task, self._prompt))
    if self._wants and not found[TASK].strip():
      raise errors.UserError(
        f"observation has no {self.task!r} (preset {self.name!r}): {self._wants}; send one, or "
        "start the server with --config.prompt"
      )
    return found, bool(reset)

  def _flatten(self, message: Mapping[Any, Any]) -> dict[Any, Any]:
    """{"images": {"cam_high": x}} -> {"images/cam_high": x}."""
    flat = {}
    for key, value in message.items():
      inner = (
        {f"{key}/{name}": one for name, one in value.items()}
        if isinstance(value, dict)
        else {key: value}
      )
      for name, one in inner.items():
        if name in flat:
          raise errors.UserError(f"observation has {_clip(name)!r} twice")
        flat[name] = one
    return flat

  def _image(self, key: str, value: Any) -> np.ndarray:
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
    if value.size > 3 * MOST_PIXELS:
      raise errors.UserError(
        f"{key!r} has {value.size // 3} pixels, at most {MOST_PIXELS} are accepted: resize it "
        "on the robot"
      )
    return np.ascontiguousarray(value.transpose(1, 2, 0)) if first else value


def _numbers(key: str, value: Any) -> np.ndarray:
  """A float32 vector of an array, scalar or list of numbers."""
  try:
    array = np.atleast_1d(np.asarray(value))
  except ValueError:  # a ragged list
    array = None
  if (
    array is None
    or array.ndim != 1
    or array.dtype.kind not in "iuf"
    or not 0 < len(array) <= MOST_STATE
  ):
    what = (
      f"{array.dtype} {list(array.shape)}"
      if isinstance(value, np.ndarray)
      else f"a {type(value).__name__}"
    )
    raise errors.UserError(f"{key!r} is {what}, a vector of 1 to {MOST_STATE} numbers is expected")
  with np.errstate(over="ignore"):
    array = array.astype(np.float32)
  if not np.isfinite(array).all():
    raise errors.UserError(f"{key!r} holds a number that is not finite in float32")
  return array


def _text(key: str, value: Any) -> str:
  if not isinstance(value, str):
    raise errors.UserError(f"{key!r} is a {type(value).__name__}, a text is expected")
  if len(value) > MOST_TEXT:
    raise errors.UserError(f"{key!r} has {len(value)} characters, at most {MOST_TEXT} are accepted")
  return value


def _of_other_presets(key: Any, task: str) -> str:
  """A hint for a client that was written for another preset: openpi's clients call the instruction
  `prompt`.
  """
  names = [name for name, one in PRESETS.items() if key in (*one.cameras, *one.state, one.task)]
  if not names:
    return ""
  instead = (
    f"the instruction is called {task!r} here; "
    if any(key == PRESETS[name].task for name in names)
    else ""
  )
  return f"{instead}--config.preset={'|'.join(names)} of the server knows it; "


def _given(key: str, flat: Mapping[Any, Any]) -> str:
  given = [_clip(name) for name in flat]
  return "the message is empty" if not given else "given were " + ", ".join(sorted(given)[:12])


def _clip(key: Any) -> str:
  """A key as sent, on one line and short: messages go back to the sender and into logs."""
  text = repr(key)[1:-1] if isinstance(key, str) else repr(key)
  return text if len(text) <= 60 else text[:57] + "..."
