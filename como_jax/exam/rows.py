"""A table of latents: their results as numbers, next to the rows that are stored with the set."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax.exam import exam_set, motion_score
from como_jax.exam.run import Result

ROWS = "rows.json"
TRAINED, UNTRAINED = "trained", "untrained"  # rows of a model
# Rows without training with which every model is compared, move by move.
COMPARED = {
  "components of the difference": "minus_components",
  "components of the optical flow": "minus_flow",
}
MINUS_UNTRAINED = "minus_untrained"

Row = dict[str, Any]


def table(folder: pathlib.Path, results: Mapping[str, Result]) -> dict[str, Row]:
  """The rows of the results and those stored with the set.

  Args:
    folder: folder of the tier.
    results: name -> result.

  Returns:
    name -> numbers, "kind" and "verdict"; rows of results also have the paired differences of e_z
    from the rows in `COMPARED`.
  """
  stored = json.loads((folder / ROWS).read_text()) if (folder / ROWS).is_file() else {}
  with np.load(folder / exam_set.TABLE) as file:
    compared = {
      key: file[f"rows/{name}"] for name, key in COMPARED.items() if f"rows/{name}" in file.files
    }
  rows = {}
  for name, result in results.items():
    rows[name] = as_row(result, "baseline" if name == UNTRAINED else "model")
    baselines = dict(compared)
    if name == TRAINED and UNTRAINED in results:
      baselines[MINUS_UNTRAINED] = results[UNTRAINED].errors
    for key, errors in baselines.items():
      gap = motion_score.difference(result.errors, errors, result.moves)
      rows[name] |= {key: gap.value, f"{key}_low": gap.low, f"{key}_high": gap.high}
  return rows | stored


def as_row(result: Result, kind: str) -> Row:
  """A result as it is stored in JSON: numbers, and None for what was withheld.

  Args:
    result: the result.
    kind: "model", "baseline", "control" or "cheat".
  """
  values = {key: value if np.isfinite(value) else None for key, value in result.row().items()}
  return {"kind": kind, "verdict": result.verdict, "flags": list(result.flagged), **values}


def stored_row(result: Result, kind: str) -> Row:
  """A row as a set stores it (`ROWS`): four digits, without seconds and the controls' errors.

  The controls are the same for all rows of a set.

  Args:
    result: the result.
    kind: as for `as_row`.
  """
  return {
    key: float(f"{value:.4g}") if isinstance(value, float) else value
    for key, value in as_row(result, kind).items()
    if key != "seconds" and not key.startswith("e_control/")
  }
