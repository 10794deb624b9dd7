"""Which video files are views of one recording: they stay on one side of a split."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence

from como_jax import errors

_RULES = ["auto", "none", "folder", "name"]
_CAMERA = re.compile(
  r"(cam|camera|view|angle|exo|ego|egocentric|left|right|wrist|front|top|side|back|rear|bottom|head|hand|gripper"
  r"|overhead|static|external|stereo|third|first|person|main|rgb|color|color|depth|high|low|image|images"
  r"|observation)\d*"
)


def groups(names: Sequence[str], rule: str) -> tuple[list[str], str]:
  """The recording of each file.

  Args:
    names: relative paths, "/"-separated.
    rule: `SourceOptions.group`. "auto" looks, in this order, for
      1. sibling folders that are all named like cameras (cam_left, view2, wrist): files with the
         same path below them are one recording;
      2. two or more files of one folder that are all named like cameras (left.mp4, right.mp4): the
         folder is one recording, if a sibling folder holds the same names;
      3. the same file names in several sibling folders: where every folder holds the same names and
         there are fewer names than folders, a folder is one recording, else the files of one name
         are.

  Returns:
    (group of each file, "" where it stands alone; what was chosen in words). All files in one group
    would leave nothing
    to validate with: "auto" then groups none.

  Raises:
    errors.UserError: a rule that is no regular expression with a group, or that puts all files into
      one group.
  """
  if rule == "none":
    return [""] * len(names), ""
  stems = [os.path.splitext(name)[0] for name in names]
  if rule == "auto":
    found, how = _auto(stems)
  elif rule == "folder":
    found, how = [os.path.dirname(name) or "." for name in names], "files of one folder"
  elif rule == "name":
    found, how = [os.path.basename(stem) for stem in stems], "files of one name"
  else:
    found, how = _matches(names, rule), f"files of one match of {rule!r}"
  sizes = defaultdict(int)
  for one in found:
    sizes[one] += bool(one)
  found = [one if sizes[one] > 1 else "" for one in found]
  recordings = set(found) - {""}
  if len(names) > 1 and len(recordings) == 1 and "" not in found:
    if rule != "auto":
      raise errors.UserError(
        f"source option group={rule!r} puts all {len(names)} videos into one group, which leaves "
        "none to validate with: use 'none', or a rule that tells recordings apart"
      )
    return [""] * len(
      names
    ), f"all {len(names)} videos look like views of one recording ({how}): not grouped"
  if not recordings:
    return found, ""
  grouped = sum(bool(one) for one in found)
  return (
    found,
    (
      f"{grouped} videos are taken as views of {len(recordings)} recordings ({how}; source option "
      "group)"
    ),
  )


def _matches(names: Sequence[str], rule: str) -> list[str]:
  try:
    pattern = re.compile(rule)
  except re.error as error:
    raise errors.UserError(
      f"source option group={rule!r} is neither 'auto', 'none', 'folder', 'name' nor a regular "
      f"expression ({error})"
    ) from error
  if not pattern.groups:
    raise errors.UserError(
      f"source option group={rule!r}: {errors.nearest(rule, _RULES)}, or a regular "
      r"expression whose first group names the recording, as in '(.*)_cam\d'"
    )
  found = (pattern.search(name) for name in names)
  return [(match.group(1) or "") if match else "" for match in found]


def _auto(stems: Sequence[str]) -> tuple[list[str], str]:
  found, rules = [""] * len(stems), []
  children = _children(stems)
  # 1: from the top down
  for parent in sorted(children, key=lambda one: (one.count("/") if one else -1, one)):
    below = children[parent]
    if len(below) > 1 and all(_like_camera(os.path.basename(child)) for child in below):
      _by_name(parent, below, stems, found)
      rules.append("folders named like cameras")
  # 2 and 3: direct files of sibling folders
  for parent in sorted(children, key=lambda one: -one.count("/")):
    below = {
      child: {
        os.path.basename(stems[i]): i
        for i in rows
        if os.path.dirname(stems[i]) == child and not found[i]
      }
      for child, rows in children[parent].items()
    }
    below = {child: files for child, files in below.items() if files}
    rules += _siblings(parent, below, found)
  return found, ", ".join(dict.fromkeys(rules))


def _children(stems: Sequence[str]) -> dict[str, dict[str, list[int]]]:
  """Folder -> child folder -> files anywhere below it."""
  children = defaultdict(lambda: defaultdict(list))
  for i, stem in enumerate(stems):
    parts = stem.split("/")
    for depth in range(len(parts) - 1):
      children["/".join(parts[:depth])]["/".join(parts[: depth + 1])].append(i)
  return children


def _by_name(
  parent: str, below: dict[str, list[int]], stems: Sequence[str], found: list[str]
) -> None:
  for child, rows in below.items():
    for i in rows:
      found[i] = found[i] or f"{parent}/*{stems[i][len(child) :]}".lstrip("/")


def _siblings(parent: str, below: dict[str, dict[str, int]], found: list[str]) -> list[str]:
  """Rules 2 and 3 for the files directly in some sibling folders, {folder: {name: number of the
  file}}.
  """
  counts = defaultdict(int)
  for files in below.values():
    for name in files:
      counts[name] += 1
  shared = {name for name, count in counts.items() if count > 1}
  cameras = len(shared) > 1 and all(map(_like_camera, shared))
  same = len(counts) == len(shared) and all(len(files) == len(counts) for files in below.values())
  if cameras or (same and 1 < len(counts) < len(below)):
    for child, files in below.items():
      for name, i in files.items():
        found[i] = child if name in shared else ""
    return ["files named like cameras" if cameras else "the same few file names in every folder"]
  if not shared or (same and len(counts) == 1):  # video.mp4 in every folder says nothing
    return []
  for files in below.values():
    for name, i in files.items():
      found[i] = f"{parent}/*/{name}".lstrip("/") if name in shared else ""
  return ["the same file names in sibling folders"]


def _like_camera(name: str) -> bool:
  """Whether one of the words of a name is a usual one for a camera, and none says otherwise (ep,
  clip, demo...).
  """
  words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
  return any(_CAMERA.fullmatch(word) for word in words) and not any(
    re.fullmatch(r"(ep|episode|clip|demo|traj|trajectory|take|run|session|trial)\d*", word)
    for word in words
  )
