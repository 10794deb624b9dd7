"""Finds video files that are views of one recording; they stay on one side of a split."""

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
  """Finds the recording of each file.

  Args:
    names: relative paths, "/"-separated.
    rule: `SourceOptions.group`. "auto" searches, in this order, for
      1. sibling folders that are all named like cameras (cam_left, view2, wrist): files with the
         same path below them are one recording;
      2. two or more files of one folder that are all named like cameras (left.mp4, right.mp4): the
         folder is one recording, if a sibling folder has the same names;
      3. the same file names in several sibling folders: if every folder has the same names, and
         there are fewer names than folders, each folder is one recording. Otherwise the files with
         the same name are one recording.

  Returns:
    (group of each file, "" when it has none; text that describes the rule used). If "auto" would
    put all files into one group, it makes no groups, because no file would be left for validation.

  Raises:
    errors.UserError: the rule is not a regular expression with a group, or it puts all files into
      one group.
  """
  if rule == "none":
    return [""] * len(names), ""
  stems = [os.path.splitext(name)[0] for name in names]
  if rule == "auto":
    recording, rule_used = _auto(stems)
  elif rule == "folder":
    recording, rule_used = [os.path.dirname(name) or "." for name in names], "files of one folder"
  elif rule == "name":
    recording, rule_used = [os.path.basename(stem) for stem in stems], "files of one name"
  else:
    recording, rule_used = _matches(names, rule), f"files of one match of {rule!r}"
  sizes = defaultdict(int)
  for label in recording:
    sizes[label] += bool(label)
  recording = [label if sizes[label] > 1 else "" for label in recording]
  recordings = set(recording) - {""}
  if len(names) > 1 and len(recordings) == 1 and "" not in recording:
    if rule != "auto":
      raise errors.UserError(
        f"source option group={rule!r} puts all {len(names)} videos into one group, which leaves "
        "none to validate with: use 'none', or a rule that tells recordings apart"
      )
    return [""] * len(
      names
    ), f"all {len(names)} videos look like views of one recording ({rule_used}): not grouped"
  if not recordings:
    return recording, ""
  grouped = sum(bool(label) for label in recording)
  return (
    recording,
    (
      f"{grouped} videos are taken as views of {len(recordings)} recordings ({rule_used}; source "
      "option group)"
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
  matches = (pattern.search(name) for name in names)
  return [(match.group(1) or "") if match else "" for match in matches]


def _auto(stems: Sequence[str]) -> tuple[list[str], str]:
  recording, rules = [""] * len(stems), []
  children = _children(stems)
  # 1: from the top down
  for parent in sorted(children, key=lambda folder: (folder.count("/") if folder else -1, folder)):
    below = children[parent]
    if len(below) > 1 and all(_like_camera(os.path.basename(child)) for child in below):
      _by_name(parent, below, stems, recording)
      rules.append("folders named like cameras")
  # 2 and 3: direct files of sibling folders
  for parent in sorted(children, key=lambda folder: -folder.count("/")):
    below = {
      child: {
        os.path.basename(stems[i]): i
        for i in rows
        if os.path.dirname(stems[i]) == child and not recording[i]
      }
      for child, rows in children[parent].items()
    }
    below = {child: files for child, files in below.items() if files}
    rules += _siblings(parent, below, recording)
  return recording, ", ".join(dict.fromkeys(rules))


def _children(stems: Sequence[str]) -> dict[str, dict[str, list[int]]]:
  """Folder -> child folder -> indices of the files at any depth below it."""
  children: dict[str, dict[str, list[int]]] = {}
  for i, stem in enumerate(stems):
    parts = stem.split("/")
    for depth in range(len(parts) - 1):
      below = children.setdefault("/".join(parts[:depth]), {})
      below.setdefault("/".join(parts[: depth + 1]), []).append(i)
  return children


def _by_name(
  parent: str, below: dict[str, list[int]], stems: Sequence[str], recording: list[str]
) -> None:
  for child, rows in below.items():
    for i in rows:
      recording[i] = recording[i] or f"{parent}/*{stems[i][len(child) :]}".lstrip("/")


def _siblings(parent: str, below: dict[str, dict[str, int]], recording: list[str]) -> list[str]:
  """Applies rules 2 and 3 of `groups` to the files that are directly in sibling folders.

  Args:
    parent: the parent of the folders.
    below: folder -> name -> index of the file.
    recording: of each file; it is changed.

  Returns:
    Texts that describe the rules used.
  """
  counts = defaultdict(int)
  for files in below.values():
    for name in files:
      counts[name] += 1
  shared = {name for name, count in counts.items() if count > 1}
  cameras = len(shared) > 1 and all(map(_like_camera, shared))
  same_names = len(counts) == len(shared) and all(
    len(files) == len(counts) for files in below.values()
  )
  if cameras or (same_names and 1 < len(counts) < len(below)):
    for child, files in below.items():
      for name, i in files.items():
        recording[i] = child if name in shared else ""
    return ["files named like cameras" if cameras else "the same few file names in every folder"]
  if not shared or (same_names and len(counts) == 1):  # video.mp4 in every folder: no evidence
    return []
  for files in below.values():
    for name, i in files.items():
      recording[i] = f"{parent}/*/{name}".lstrip("/") if name in shared else ""
  return ["the same file names in sibling folders"]


def _like_camera(name: str) -> bool:
  """Whether a name has a usual word for a camera, and no word for an episode (ep, clip, ...)."""
  words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
  return any(_CAMERA.fullmatch(word) for word in words) and not any(
    re.fullmatch(r"(ep|episode|clip|demo|traj|trajectory|take|run|session|trial)\d*", word)
    for word in words
  )
