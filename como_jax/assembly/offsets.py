"""The frame offset at which a trained motion model is used: the offset of its training."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from como_jax import errors
from como_jax.assembly import data_folders


@dataclasses.dataclass(frozen=True)
class Offset:
  """Offset between the frames of a pair.

  Attributes:
    seconds: the offset.
    why: reason for this offset, for messages.
  """

  seconds: float
  why: str

  def __str__(self) -> str:
    return f"offset {self.seconds:g} s ({self.why})"


def choose(
  path: str, trained_on: Mapping[str, Any], *, given: float | None, option: str, checkpoint: str
) -> Offset:
  """Chooses the offset for a data set.

  The user's setting comes first, then the offset of the training on this data set. For other data,
  it is the offset of the training if there was only one.

  Args:
    path: of the data set, as in the config or resolved.
    trained_on: the data section of the model's training run.
    given: the user's setting; None = not set.
    option: name of that setting, for example "--config.offset_seconds".
    checkpoint: path of the model, for messages.

  Raises:
    errors.UserError: the model was trained at several offsets, on other data or on this data set;
      or the checkpoint does not contain an offset.
  """
  if given is not None:
    return Offset(float(given), f"given with {option}")
  trained = trained_offsets(trained_on)
  if not trained:
    raise errors.UserError(
      f"{option} is missing: the checkpoint {checkpoint!r} does not say at which offset it was "
      "trained"
    )
  matching = sorted({seconds for name, seconds in trained if _same_folder(name, path)})
  if len(matching) == 1:
    return Offset(matching[0], "as the model was trained on this data set")
  offsets = sorted({seconds for _, seconds in trained})
  if not matching and len(offsets) == 1:
    return Offset(
      offsets[0],
      f"as the model was trained, on {trained[0][0]}" + (" and others" if len(trained) > 1 else ""),
    )
  details = ", ".join(f"{seconds:g} s on {name}" for name, seconds in trained)
  why = (
    f"was trained on {path} at several offsets"
    if matching
    else f"was not trained on {path} and was trained at several offsets"
  )
  raise errors.UserError(
    f"the model {checkpoint} {why} ({details}): say which with {option}={offsets[0]:g}"
  )


def choose_data(
  path: str | None, trained_on: Mapping[str, Any], *, offset_seconds: float | None, checkpoint: str
) -> tuple[str, Offset]:
  """Chooses the data to label and their offset.

  Args:
    path: config.data.path; None = the data on which the model was trained.
    trained_on: the data section of the model's training run.
    offset_seconds: config.offset_seconds; None = see `choose`.
    checkpoint: path of the model, for messages.

  Returns:
    (data path, offset).

  Raises:
    errors.UserError: the data or the offset is not given, and the training does not say it.
  """
  data = _trained_path(trained_on) if path is None else path
  offset = choose(
    data, trained_on, given=offset_seconds, option="--config.offset_seconds", checkpoint=checkpoint
  )
  return data, offset


def _trained_path(trained_on: Mapping[str, Any]) -> str:
  """The one data set on which a model was trained.

  Raises:
    errors.UserError: it was trained on several, or the config does not say on what.
  """
  known = list(dict.fromkeys(entry["path"] for entry in trained_on.get("mixture") or ())) or [
    trained_on.get("path") or ""
  ]
  if len(known) != 1 or not known[0]:
    raise errors.UserError(
      "config.data.path is missing: the model was trained on "
      + (", ".join(known) if known[0] else "unknown data")
    )
  return known[0]


def trained_offsets(trained_on: Mapping[str, Any]) -> list[tuple[str, float]]:
  """Lists (path, offset in seconds) of each data set that a model was trained on.

  The list is empty when the config contains no offset.

  Args:
    trained_on: the data section of the model's training run.
  """
  default = trained_on.get("offset_seconds")
  entries = [dict(entry) for entry in trained_on.get("mixture") or ()] or [
    {"path": trained_on.get("path") or "unknown data"}
  ]
  offsets = [(str(entry["path"]), entry.get("offset_seconds", default)) for entry in entries]
  return [(path, float(seconds)) for path, seconds in offsets if seconds is not None]


def _same_folder(first: str, second: str) -> bool:
  """Whether two data paths are the same folder."""
  return _resolved(first) == _resolved(second)


def _resolved(path: str) -> str:
  return os.path.realpath(data_folders.BUNDLED if path == "bundled" else path)
