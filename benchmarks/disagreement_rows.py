"""Rows with the published metrics and the exam: trained runs, and latents without training."""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import variants

from como_jax import errors
from como_jax.exam import rows as rows_lib
from como_jax.tasks import exam

# rows of the exam: components of the features' difference, of the optical flow
DIFFERENCE, FLOW = rows_lib.COMPARED
FIRST, FUTURE = "first picture", "future picture"  # rows of the exam
SAME = 1e-6  # relative tolerance for equal values of two files
NAMES = {"".join(c if c.isalnum() else "-" for c in name): name for name in variants.VARIANTS}


class Left(Exception):
  """Reason why a folder is left out, in one line."""


@dataclasses.dataclass(frozen=True)
class Measured:
  """Results of one latent of one run.

  Attributes:
    lp_mse: LP-MSE of the action and its standard error over held-out motions (inf if unknown).
    e_z: error of the move in the exam.
    s_pcfc: None if unknown.
    gains: of the rows without training that the probe compares this row with, window by window:
      (LP-MSE, standard error of this row's gain). Latents with an equal LP-MSE here were compared
      with the same row.
    appearance: excess of the class that is read best.
    folder: of the run; None for a row without training.
    limits: of e_z's 95 % interval over test chains.
    stored: name of the exam's row, for a row without training.
  """

  lp_mse: tuple[float, float]
  e_z: float
  s_pcfc: float | None = None
  gains: tuple[tuple[float, float], ...] = ()
  appearance: float | None = None
  folder: pathlib.Path | None = None
  limits: tuple[float, float] | None = None
  stored: str = ""

  def value(self, metric: str) -> float | None:
    """Value of a metric; None if unknown."""
    value = getattr(self, metric)
    return value[0] if isinstance(value, tuple) else value

  @property
  def has_latents(self) -> bool:
    """Whether the exam's latents are stored or can be computed."""
    return self.folder is None or (self.folder / "exam" / exam.LATENTS).is_file()


@dataclasses.dataclass(frozen=True)
class Row:
  """A latent with its runs by seed; one run for a latent without training."""

  name: str
  runs: Mapping[int, Measured]
  trained: bool = True

  def values(self, metric: str) -> list[float]:
    """Values of the runs that have the metric."""
    return [value for run in self.runs.values() if (value := run.value(metric)) is not None]

  def mean(self, metric: str) -> float | None:
    """Mean over the runs that have the metric; None without one."""
    values = self.values(metric)
    return float(np.mean(values)) if values else None

  @property
  def first(self) -> Measured:
    """The run with the lowest seed."""
    return self.runs[min(self.runs)]


@dataclasses.dataclass(frozen=True)
class Found:
  """All rows of a set of folders.

  Attributes:
    rows: the rows.
    left: folders that were left out, with reasons.
    untrained: description of each row without training, or why there is none.
    windows: description of the probe's windows.
  """

  rows: list[Row]
  left: list[str]
  untrained: list[str]
  windows: str


def read(folders: Iterable[pathlib.Path], stored: Mapping[str, Mapping[str, Any]]) -> Found:
  """Reads the folders of benchmarks/variants.py, and the rows without training.

  Args:
    folders: NAME-STEPS-SEED; any other name is a row of one run.
    stored: rows of the exam's set.

  Raises:
    errors.UserError: none of the folders can be used.
  """
  runs: dict[str, dict[int, Measured]] = {}
  left, fixed, windows, descriptions = [], {}, None, []
  for folder in folders:
    name, seed = named(folder)
    try:
      probed, examined, motion, run_windows = _files(folder, stored)
      if windows not in (None, run_windows):
        raise Left(f"probed on {run_windows}, the runs before it on {windows}")
      run = _trained(folder, probed, examined)
    except Left as reason:
      left.append(f"{folder.name}: {reason}")
      continue
    if seed in runs.get(name, {}):
      left.append(f"{folder.name}: seed {seed} of {name!r} is there already")
      continue
    windows = run_windows
    runs.setdefault(name, {})[seed] = run
    for row, description, measured in _untrained(probed, examined, motion, stored):
      if measured is not None:
        fixed.setdefault(row, (description, measured))
      descriptions.append((row, description))
  if not runs:
    raise errors.UserError(f"--runs: no folder can be used: {'; '.join(left) or 'none given'}")
  rows = [Row(name, dict(sorted(by_seed.items()))) for name, by_seed in runs.items()]
  rows += [
    Row(f"{row} (no training)", {0: measured}, trained=False)
    for row, (_, measured) in fixed.items()
  ]
  untrained = dict(reversed(descriptions)) | {row: text for row, (text, _) in fixed.items()}
  return Found(rows, left, [f"{row}: {text}" for row, text in untrained.items()], windows)


def named(folder: pathlib.Path) -> tuple[str, int]:
  """Returns (row, seed) of a folder."""
  match = re.fullmatch(r"(.+)-(\d+)-(\d+)", folder.name)
  if not match:
    return folder.name, 0
  name, steps, seed = match.groups()
  return f"{NAMES.get(name, name)}, {steps} step{'s' * (steps != '1')}", int(seed)


def _files(
  folder: pathlib.Path, stored: Mapping[str, Mapping[str, Any]]
) -> tuple[dict, dict, dict, str]:
  """Reads (rows of the probe, rows of the exam, config of the run or {}, the probe's windows).

  Raises:
    Left: a part is missing, or cannot be compared.
  """
  metrics, examined = (
    _json(folder / "probe" / "metrics.json"),
    _json(folder / "exam" / exam.METRICS),
  )
  probed = metrics.get("rows", {})
  for row, where, key in (
    ("trained", probed, "lp_mse"),
    ("trained", examined.get("rows", {}), "e_z"),
  ):
    if where.get(row, {}).get(key) is None:
      raise Left(
        f"{'probe/metrics.json' if key == 'lp_mse' else 'exam/exam.json'}: row 'trained' has no "
        f"{key!r}"
      )
  same = examined["rows"].get(DIFFERENCE, {}).get("e_z")
  if (
    examined.get("tier") != "hand"
    or same is None
    or not math.isclose(same, stored[DIFFERENCE]["e_z"], rel_tol=SAME)
  ):
    raise Left(
      f"examined on another set (tier {examined.get('tier')!r}, {DIFFERENCE} {same}; here 'hand', "
      f"{stored[DIFFERENCE]['e_z']})"
    )
  fitted = _json(folder / "probe" / "config.json", {}).get("fit_windows", "an unknown number of")
  windows = (
    f"{metrics.get('windows')} held-out windows, {fitted} to fit on, of "
    f"{', '.join(metrics.get('data', ()))} at "
    f"{', '.join(map(str, metrics.get('offset_seconds', ())))} s"
  )
  return probed, examined["rows"], _json(folder / "motion" / "config.json", {}), windows


def _json(path: pathlib.Path, default: dict | None = None) -> dict:
  try:
    return json.loads(path.read_text())
  except (OSError, json.JSONDecodeError) as error:
    if default is not None:
      return default
    reason = (
      "is missing"
      if isinstance(error, FileNotFoundError)
      else f"cannot be read ({type(error).__name__})"
    )
    raise Left(f"{path.parent.name}/{path.name} {reason}") from None


def _trained(folder: pathlib.Path, probed: dict, examined: dict) -> Measured:
  row, gains = probed["trained"], []
  for over, key in (
    ("difference", "lp_gain_difference"),
    ("untrained", "lp_gain"),
    ("first-only", "lp_gain_first"),
  ):
    if row.get(key) is not None and probed.get(over, {}).get("lp_mse") is not None:
      gains.append((_pair(probed[over]["lp_mse"])[0], _pair(row[key])[1]))
  return Measured(
    _pair(row["lp_mse"]),
    examined["trained"]["e_z"],
    _finite(row.get("s_pcfc")),
    tuple(gains),
    variants.appearance(examined["trained"])["appearance"],
    folder,
    _limits(examined["trained"]),
  )


def _untrained(
  probed: dict, examined: dict, motion: dict, stored: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, Measured | None]]:
  """Lists the latents without training that both programs measure.

  Returns:
    (the exam's row, description or why there is none, its results or None) for each.
  """
  width, idm = int(examined["trained"].get("width", 0)), motion.get("model", {}).get("idm", {})
  difference, start = (probed.get(name, {}) for name in ("difference", "untrained"))
  rows = []
  if (
    difference.get("lp_mse") is None
    or motion.get("encoder_weights") != "bundled"
    or width != stored[DIFFERENCE]["width"]
  ):
    text = 'no run has the probe\'s row "difference" of the encoder that ships with as many numbers'
    rows.append((DIFFERENCE, text, None))
  else:
    value, error = _pair(difference["lp_mse"])
    text = (
      f"{width} principal components of the difference of the shipped encoder's features, in the "
      "probe's row \"difference\" and in the exam's, fitted on each program's own pairs; the "
      "probe's features include the CLS token, the exam's do not; S-PCFC is not known"
    )
    rows.append(
      (DIFFERENCE, text, _fixed(DIFFERENCE, stored, (value, error), gains=((value, 0.0),)))
    )
    for name, row, s_pcfc in ((FIRST, "first-only", None), (FUTURE, "second-only", 1.0)):
      if probed.get(row, {}).get("lp_mse") is not None and name in stored:
        value, error = _pair(probed[row]["lp_mse"])
        text = (
          f"{width} principal components of one picture in the shipped encoder's features, in the "
          f"probe's row \"{row}\" and in the exam's, fitted on each program's own pictures; the "
          "probe's features include the CLS token, the exam's do not"
          + ("; S-PCFC is 1, the same picture twice" if s_pcfc else "; S-PCFC is not known")
        )
        rows.append(
          (name, text, _fixed(name, stored, (value, error), s_pcfc=s_pcfc, gains=((value, 0.0),)))
        )
  starts = (
    FLOW in stored
    and idm.get("components_of") == "flow"
    and idm.get("components") == width == stored[FLOW]["width"]
  )
  if not starts or start.get("lp_mse") is None:
    text = (
      "no run starts as so many components of the flow (configs/motion.py:small without path=none)"
    )
    rows.append((FLOW, text, None))
  else:
    value, error = _pair(start["lp_mse"])
    gains = [(value, 0.0)]
    if (
      all(probed["trained"].get(key) is not None for key in ("lp_gain", "lp_gain_difference"))
      and difference.get("lp_mse") is not None
    ):
      # Its gain over "difference" is a difference of two gains of the trained row, so its standard
      # error is at most the sum of theirs.
      gains.append(
        (
          _pair(difference["lp_mse"])[0],
          sum(_pair(probed["trained"][key])[1] for key in ("lp_gain", "lp_gain_difference")),
        )
      )
    pool = idm.get("components_pool", 1)
    text = (
      f"{width} principal components of the same classical optical flow, the probe's row "
      '"untrained" of a run that starts as them (path=flow) and the exam\'s row; of means over '
      f"{pool} x {pool} patches in the run and over 4 x 4 pixels in the exam, fitted on each "
      "program's own pairs; S-PCFC is of the run's components, scaled to mean square 1"
    )
    rows.append(
      (
        FLOW,
        text,
        _fixed(
          FLOW, stored, (value, error), s_pcfc=_finite(start.get("s_pcfc")), gains=tuple(gains)
        ),
      )
    )
  return rows


def _fixed(
  name: str, stored: Mapping[str, Mapping[str, Any]], lp_mse: tuple[float, float], **known: Any
) -> Measured:
  return Measured(
    lp_mse,
    stored[name]["e_z"],
    appearance=variants.appearance(stored[name])["appearance"],
    limits=_limits(stored[name]),
    stored=name,
    **known,
  )


def _pair(values: Any) -> tuple[float, float]:
  """(value, standard error) of a JSON value; the error may be None there."""
  value, error = values if isinstance(values, list) else (values, None)
  return float(value), math.inf if error is None else float(error)


def _limits(row: Mapping[str, Any]) -> tuple[float, float] | None:
  low, high = (_finite(row.get(f"e_z_{end}")) for end in ("low", "high"))
  return None if low is None or high is None else (low, high)


def _finite(value: float | None) -> float | None:
  return value if value is not None and math.isfinite(value) else None
