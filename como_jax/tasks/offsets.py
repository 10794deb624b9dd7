"""At which offset a trained motion model is used: the one it was trained with."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from como_jax import errors
from como_jax.tasks import motion_data


@dataclasses.dataclass(frozen=True)
class Offset:
  """Seconds between the frames of a pair, and why it is so many, in words."""

  seconds: float
  why: str

  def __str__(self) -> str:
    return f"offset {self.seconds:g} s ({self.why})"


def choose(
  path: str, trained_on: Mapping[str, Any], *, given: float | None, option: str, checkpoint: str
) -> Offset:
  """The offset to use on a data set.

  What is given counts; else the offset that the model was trained with on this data set; else, for
  data it was not trained on, the one offset of its training.

  Args:
    path: of the data set, as given or resolved.
    trained_on: the data section of the model's training run.
    given: what the user says, None = nothing.
    option: the key the user says it with, "--config.offset_seconds" say.
    checkpoint: the model, in messages.

  Raises:
    errors.UserError: the training had several offsets and this data set was not among them, or is
      there with several of them, or the checkpoint does not know.
  """
  if given is not None:
    return Offset(float(given), f"given with {option}")
  trained = trained_offsets(trained_on)
  if not trained:
    raise errors.UserError(
      f"{option} is missing: the checkpoint {checkpoint!r} does not say at which offset it was "
      "trained"
    )
  own = sorted({seconds for name, seconds in trained if _same(name, path)})
  if len(own) == 1:
    return Offset(own[0], "as the model was trained on this data set")
  every = sorted({seconds for _, seconds in trained})
  if not own and len(every) == 1:
    return Offset(
      every[0],
      f"as the model was trained, on {trained[0][0]}" + (" and others" if len(trained) > 1 else ""),
    )
  listed = ", ".join(f"{seconds:g} s on {name}" for name, seconds in trained)
  why = (
    f"was trained on {path} at several offsets"
    if own
    else f"was not trained on {path} and was trained at several offsets"
  )
  raise errors.UserError(
    f"the model {checkpoint} {why} ({listed}): say which with {option}={every[0]:g}"
  )


def trained_offsets(trained_on: Mapping[str, Any]) -> list[tuple[str, float]]:
  """(path, offset in seconds) of each data set that a model was trained on, [] when its config does
  not say.
  """
  default = trained_on.get("offset_seconds")
  entries = [dict(entry) for entry in trained_on.get("mixture") or ()] or [
    {"path": trained_on.get("path") or "unknown data"}
  ]
  found = [(str(entry["path"]), entry.get("offset_seconds", default)) for entry in entries]
  return [(path, float(seconds)) for path, seconds in found if seconds is not None]


def _same(one: str, other: str) -> bool:
  """Whether two data paths mean one folder."""
  return _real(one) == _real(other)


def _real(path: str) -> str:
  return os.path.realpath(motion_data.BUNDLED if path == "bundled" else path)
