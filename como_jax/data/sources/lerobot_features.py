"""Reads and checks meta/info.json of a LeRobot data set, and selects features.

It decides which features are cameras, actions and states.
"""

import dataclasses
import math
import os
import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from como_jax import errors
from como_jax.data import images
from como_jax.data.sources import lerobot_json
from como_jax.data.sources import lerobot_tables as tables
from como_jax.data.sources.options import SourceOptions

INFO = "meta/info.json"
_USUAL = {  # the names of LeRobot first, then those of openpi's and other converters
  "action": ("action", "actions", "observation.action", "observation.actions"),
  "state": (
    "observation.state",
    "state",
    "observation.states",
    "states",
    "observation.proprio",
    "proprio",
    "observation.robot_state",
    "robot_state",
    "observation.agent_pos",
    "agent_pos",
  ),
}
_LAST_PART = {"action": ("action", "actions"), "state": ("state", "states", "proprio")}
_TEMPLATE_KEYS = {
  "data_path": ("episode_index", "episode_chunk", "chunk_index", "file_index"),
  "video_path": ("episode_index", "episode_chunk", "chunk_index", "file_index", "video_key"),
}
_OWN = ("data", "videos", "images", "meta")  # folders that belong to a data set


@dataclasses.dataclass(frozen=True)
class Camera:
  """A camera of a LeRobot data set.

  Attributes:
    name: its name in como_jax shards.
    key: its feature.
    video: True for video, False for images in the table.
    depth: whether meta/info.json declares it as a depth camera.
  """

  name: str
  key: str
  video: bool
  depth: bool


@dataclasses.dataclass(frozen=True)
class Vector:
  """A feature of actions or states.

  Attributes:
    key: the feature.
    size: number of values per row, None when info.json does not give it.
    names: names of the values, None when info.json does not give them.
  """

  key: str
  size: int | None
  names: list[str] | None


def read_info(root: str) -> dict[str, Any]:
  """Reads and checks meta/info.json.

  Raises:
    errors.UserError: a key is missing or not valid. The message names the key, its value and what
      was expected.
  """
  path = os.path.join(root, *INFO.split("/"))
  info = lerobot_json.read_json(path)
  version = re.match(r"v?(\d+)(\.|$)", str(info.get("codebase_version", "")))
  if not version or version.group(1) not in ("2", "3"):
    raise errors.UserError(
      f"{root}: LeRobot codebase_version {info.get('codebase_version')!r} is not supported, "
      "expected v2.0, v2.1 or v3.0"
    )
  for key in ("fps", "features", "data_path"):
    if key not in info:
      raise errors.UserError(f"{path} lacks the key {key!r}")
  try:
    fps = math.nan if isinstance(info["fps"], bool) else float(info["fps"])
  except (TypeError, ValueError):
    fps = math.nan
  if not 0 < fps < math.inf:
    raise errors.UserError(f"{path}: fps = {info['fps']!r}, expected a positive number")
  chunks = info.setdefault("chunks_size", 1000)
  if not isinstance(chunks, int) or chunks < 1:
    raise errors.UserError(f"{path}: chunks_size = {chunks!r}, expected a positive whole number")
  features = info["features"]
  if not isinstance(features, dict) or not all(
    isinstance(feature, dict) for feature in features.values()
  ):
    raise errors.UserError(f"{path}: features is not an object of objects")
  for key, valid in _TEMPLATE_KEYS.items():
    if info.get(key) is not None:
      _check_template(path, key, info[key], valid)
  return info | {"fps": fps, "major": int(version.group(1))}


def _check_template(path: str, key: str, template: Any, valid: tuple[str, ...]) -> None:
  """Checks a path template.

  Args:
    path: of meta/info.json.
    key: of the template.
    template: the template.
    valid: names that it may contain.

  Raises:
    errors.UserError: it cannot be filled, leads out of the data set, or has a width of four or more
      digits, which would make a path of gigabytes of zeros.
  """
  try:
    if not isinstance(template, str):
      raise ValueError("expected text")
    for _, name, width, conversion in string.Formatter().parse(template):
      if name is not None and (
        name not in valid or conversion or re.search(r"\d{4}|{", width or "")
      ):
        raise ValueError(f"the part {{{name}:{width}}}: {errors.nearest(name, valid)}")
    if os.path.isabs(template) or ".." in template.split("/"):
      raise ValueError("it leads out of the data set")
  except ValueError as error:
    raise errors.UserError(f"{path}: {key} = {template!r} cannot be used ({error})") from error


def camera_name(feature: str) -> str:
  """The short name of a camera.

  "observation.images.top" and "images.top" become "top", "observation.image" becomes "image".
  """
  return re.sub(r"^(observation\.)?(images\.)?", "", feature) or feature


def cameras(features: Mapping[str, dict], options: SourceOptions, where: str) -> list[Camera]:
  """The requested cameras in the requested order, or all cameras.

  Args:
    features: from meta/info.json.
    options: only `camera_keys` is used.
    where: path of meta/info.json, for messages.

  Raises:
    errors.UserError: the data set has no camera, or no camera of a requested name.
  """
  all_keys = [
    key for key, feature in features.items() if feature.get("dtype") in ("video", "image")
  ]
  if not all_keys:
    raise errors.UserError(
      f"{where}: the LeRobot data set has no camera (no feature of dtype video or image)"
    )
  short = [camera_name(key) for key in all_keys]
  names = {
    key: name if short.count(name) == 1 else key for key, name in zip(all_keys, short, strict=True)
  }
  selected = []
  for requested in options.camera_keys or all_keys:
    key = next((key for key in all_keys if requested in (key, names[key])), None)
    if key is None:
      dtype = features.get(requested, {}).get("dtype")
      problem = (
        f"is a feature of dtype {dtype!r}, expected video or image"
        if dtype
        else "is no feature of the data set"
      )
      hint = errors.nearest(requested, names.values())
      raise errors.UserError(f"{where}: source option camera_keys: {requested!r} {problem}: {hint}")
    if key not in selected:
      selected.append(key)
  return [
    Camera(names[key], key, features[key]["dtype"] == "video", _is_depth(features[key]))
    for key in selected
  ]


def _is_depth(feature: Mapping[str, Any]) -> bool:
  parts = [
    feature,
    *(feature[key] for key in ("info", "video_info") if isinstance(feature.get(key), dict)),
  ]
  flags = [
    str(part.get(key)).lower() for part in parts for key in ("video.is_depth_map", "is_depth_map")
  ]
  return (
    "true" in flags
    or "1" in flags
    or any(images.is_deep_gray(str(part.get("video.pix_fmt", ""))) for part in parts)
  )


def numeric(features: Mapping[str, dict]) -> list[str]:
  """Keys of the features that hold numbers."""
  return [
    key
    for key, feature in features.items()
    if re.match(r"(float|u?int|bool|double)", str(feature.get("dtype")))
  ]


def vector(role: str, features: Mapping[str, dict], requested: str, where: str) -> Vector | None:
  """Selects the feature of actions or states.

  It is the requested feature, if any. Otherwise it is the first feature with a usual name.
  Otherwise it is the only feature whose name ends in a usual name, like "robot/state".

  Args:
    role: "action" or "state".
    features: from meta/info.json.
    requested: key of the feature, "" = search for it.
    where: path of meta/info.json, for messages.

  Returns:
    The feature, None when there is none.

  Raises:
    errors.UserError: the requested feature does not exist or holds no numbers.
  """
  valid = numeric(features)
  if requested and requested not in valid:
    dtype = features.get(requested, {}).get("dtype")
    problem = (
      f"is a feature of dtype {dtype!r}, expected numbers"
      if dtype
      else "is no feature of the data set"
    )
    candidates = [key for key in valid if key not in (*tables.INDICES, "timestamp")]
    raise errors.UserError(
      f"{where}: source option {role}_key: {requested!r} {problem}: "
      f"{errors.nearest(requested, candidates)}"
    )
  key = requested or next((key for key in _USUAL[role] if key in valid), None)
  if key is None:
    ending = [key for key in valid if re.split(r"[./]", key)[-1] in _LAST_PART[role]]
    if len(ending) != 1:
      return None
    key = ending[0]
  return Vector(key, _size(features[key].get("shape")), _flat(features[key].get("names")) or None)


def _size(shape: Any) -> int | None:
  sides = shape if isinstance(shape, list) else [shape]
  return (
    math.prod(sides) if sides and all(type(side) is int and side > 0 for side in sides) else None
  )


def _flat(names: Any) -> list[str]:
  """Flattens the names of a vector's values.

  They may be nested: [...], {"motors": [...]}, {"left": {"axes": [...]}} or {"x": 0}.
  """
  if isinstance(names, dict):
    if names and all(type(value) is int for value in names.values()):
      return sorted(names, key=lambda name: names[name])
    return [name for part in names.values() for name in _flat(part)]
  if isinstance(names, list):
    return [
      name
      for part in names
      for name in (_flat(part) if isinstance(part, (list, dict)) else [str(part)])
    ]
  return [] if names is None else [str(names)]


def unused(features: Mapping[str, dict], used: Iterable[str]) -> list[str]:
  """Features that are not read.

  Features that LeRobot itself adds (indices, timestamp, next.done, next.reward, ...) are left out.

  Args:
    features: from meta/info.json.
    used: keys of the features that are read, without cameras.
  """
  used = {*used, *tables.INDICES, "timestamp"}
  pictures = ("video", "image")
  return [
    key
    for key, feature in features.items()
    if key not in used and not key.startswith("next.") and feature.get("dtype") not in pictures
  ]


def find_nested(root: str, *, depth: int = 3) -> list[str]:
  """Finds folders below `root` that are LeRobot data sets.

  Args:
    root: the folder.
    depth: number of levels to search.

  Returns:
    Relative paths, sorted.
  """
  data_sets, seen = [], {os.path.realpath(root)}

  def search(folder: str, level: int) -> None:
    own = _OWN if os.path.isfile(os.path.join(root, folder, *INFO.split("/"))) else ()
    try:
      with os.scandir(os.path.join(root, folder)) as entries:
        children = sorted(
          entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()
        )
    except OSError:
      return
    for name in children:
      child, real = os.path.join(folder, name), os.path.realpath(os.path.join(root, folder, name))
      if name in own or real in seen:
        continue
      seen.add(real)
      if os.path.isfile(os.path.join(root, child, *INFO.split("/"))):
        data_sets.append(child.replace(os.sep, "/"))
      elif level < depth:
        search(child, level + 1)

  search("", 1)
  return sorted(data_sets)
