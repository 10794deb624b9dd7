"""What a LeRobot data set holds: meta/info.json checked, and which of its features are cameras,
actions and states.
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
from como_jax.data.sources import lerobot_tables as tables
from como_jax.data.sources.options import SourceOptions

INFO = "meta/info.json"
_USUAL = {  # LeRobot's own names first, then those of openpi's and other converters
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
_OWN = ("data", "videos", "images", "meta")  # folders of a data set


@dataclasses.dataclass(frozen=True)
class Camera:
  """A camera: its name in our data, its feature, whether it is video (else images in the table),
  and declared depth.
  """

  name: str
  key: str
  video: bool
  depth: bool


@dataclasses.dataclass(frozen=True)
class Vector:
  """Feature of actions or states; `size` and `names` (of its numbers) are None where info.json does
  not say.
  """

  key: str
  size: int | None
  names: list[str] | None


def read_info(root: str) -> dict[str, Any]:
  """meta/info.json. Raises `errors.UserError` naming the key, its value and what was expected."""
  path = os.path.join(root, *INFO.split("/"))
  info = tables.read_json(path)
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
  """Refuses what cannot be filled, leads out of the data set, or asks for gigabytes of zeros."""
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
  """The camera's short name.

  "observation.images.top" and "images.top" give "top", "observation.image" gives "image".
  """
  return re.sub(r"^(observation\.)?(images\.)?", "", feature) or feature


def cameras(features: Mapping[str, dict], options: SourceOptions, where: str) -> list[Camera]:
  """The cameras asked for, in the order asked for, else all.

  Raises:
    errors.UserError: there is none, or none of that name.
  """
  every = [key for key, feature in features.items() if feature.get("dtype") in ("video", "image")]
  if not every:
    raise errors.UserError(
      f"{where}: the LeRobot data set has no camera (no feature of dtype video or image)"
    )
  short = [camera_name(key) for key in every]
  names = {
    key: name if short.count(name) == 1 else key for key, name in zip(every, short, strict=True)
  }
  wanted = []
  for given in options.camera_keys or every:
    key = next((key for key in every if given in (key, names[key])), None)
    if key is None:
      dtype = features.get(given, {}).get("dtype")
      what = (
        f"is a feature of dtype {dtype!r}, expected video or image"
        if dtype
        else "is no feature of the data set"
      )
      hint = errors.nearest(given, names.values())
      raise errors.UserError(f"{where}: source option camera_keys: {given!r} {what}: {hint}")
    if key not in wanted:
      wanted.append(key)
  return [
    Camera(names[key], key, features[key]["dtype"] == "video", _is_depth(features[key]))
    for key in wanted
  ]


def _is_depth(feature: Mapping[str, Any]) -> bool:
  said = [
    feature,
    *(feature[key] for key in ("info", "video_info") if isinstance(feature.get(key), dict)),
  ]
  flags = [
    str(part.get(key)).lower() for part in said for key in ("video.is_depth_map", "is_depth_map")
  ]
  return (
    "true" in flags
    or "1" in flags
    or any(images.is_deep_gray(str(part.get("video.pix_fmt", ""))) for part in said)
  )


def numeric(features: Mapping[str, dict]) -> list[str]:
  return [
    key
    for key, feature in features.items()
    if re.match(r"(float|u?int|bool|double)", str(feature.get("dtype")))
  ]


def vector(role: str, features: Mapping[str, dict], given: str, where: str) -> Vector | None:
  """The feature of "action" or "state": the one given, else the usual name, else the only one whose
  last part is usual.

  Raises:
    errors.UserError: none has the given name.
  """
  valid = numeric(features)
  if given and given not in valid:
    dtype = features.get(given, {}).get("dtype")
    what = (
      f"is a feature of dtype {dtype!r}, expected numbers"
      if dtype
      else "is no feature of the data set"
    )
    candidates = [key for key in valid if key not in (*tables.INDICES, "timestamp")]
    raise errors.UserError(
      f"{where}: source option {role}_key: {given!r} {what}: {errors.nearest(given, candidates)}"
    )
  key = given or next((key for key in _USUAL[role] if key in valid), None)
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
  """Names of a vector's numbers from any nesting: [...], {"motors": [...]}, {"left": {"axes":
  [...]}}, {"x": 0}.
  """
  if isinstance(names, dict):
    if names and all(type(value) is int for value in names.values()):
      return sorted(names, key=names.get)
    return [name for part in names.values() for name in _flat(part)]
  if isinstance(names, list):
    return [
      name
      for part in names
      for name in (_flat(part) if isinstance(part, (list, dict)) else [str(part)])
    ]
  return [] if names is None else [str(names)]


def unused(features: Mapping[str, dict], used: Iterable[str]) -> list[str]:
  """Features that are neither read nor LeRobot's bookkeeping (indices, timestamp, next.done,
  next.reward ...).
  """
  used = {*used, *tables.INDICES, "timestamp"}
  pictures = ("video", "image")
  return [
    key
    for key, feature in features.items()
    if key not in used and not key.startswith("next.") and feature.get("dtype") not in pictures
  ]


def find_nested(root: str, *, depth: int = 3) -> list[str]:
  """Folders below `root` that are LeRobot data sets, relative and sorted; `depth` levels are looked
  through.
  """
  found, seen = [], {os.path.realpath(root)}

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
        found.append(child.replace(os.sep, "/"))
      elif level < depth:
        search(child, level + 1)

  search("", 1)
  return sorted(found)
