"""Rows that have both the published metrics and the exam: trained runs, and latents without
training that both programs measure.

Legend: P pairs of the exam, Z numbers of a latent.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import variants

from como_jax import errors, model_presets
from como_jax.exam import exam_set, kernel_ridge, motion_score
from como_jax.tasks import exam, exam_pictures, exam_rows
from como_jax.tasks.exam_pictures import Pictures

DIFFERENCE, FLOW = (
  exam.COMPARED
)  # rows of the exam: components of the features' difference, of the optical flow
FIRST, FUTURE = "first picture", "future picture"  # rows of the exam
SAME = 1e-6  # numbers of a file that is read twice
NEAR = 0.01  # of e: a row that is made again, against what is stored of it
NAMES = {"".join(c if c.isalnum() else "-" for c in name): name for name in variants.VARIANTS}


class Left(Exception):
  """Why a folder is left out, in a line."""


@dataclasses.dataclass(frozen=True)
class Measured:
  """What is known of one latent, of one run.

  Attributes:
    lp_mse: LP-MSE of the action and its standard error over held-out motions (inf where it is not
      known).
    e_z: error of the move in the exam.
    s_pcfc: None where it is not known.
    gains: rows without training that the probe compares this one with, window by window: LP-MSE of
      each and the standard error of this row's gain over it. Two latents with an equal LP-MSE there
      were compared with the same row.
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
    found = getattr(self, metric)
    return found[0] if isinstance(found, tuple) else found

  @property
  def has_latents(self) -> bool:
    """Whether the exam's latents are stored, or can be made."""
    return self.folder is None or (self.folder / "exam" / exam.LATENTS).is_file()


@dataclasses.dataclass(frozen=True)
class Row:
  """A latent with its runs by seed; one entry without training."""

  name: str
  runs: Mapping[int, Measured]
  trained: bool = True

  def values(self, metric: str) -> list[float]:
    """Of the runs that have it."""
    return [value for one in self.runs.values() if (value := one.value(metric)) is not None]

  def mean(self, metric: str) -> float | None:
    values = self.values(metric)
    return float(np.mean(values)) if values else None

  @property
  def first(self) -> Measured:
    return self.runs[min(self.runs)]


@dataclasses.dataclass(frozen=True)
class Found:
  """All rows; folders that were left out, with reasons; what each row without training is, or why
  there is none; the windows.
  """

  rows: list[Row]
  left: list[str]
  untrained: list[str]
  windows: str


class Exam:
  """A set, and the errors of its pairs by latent (made when they are asked for)."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self.set = folder, exam_set.load(folder)
    self.stored = json.loads((folder / exam.ROWS).read_text())
    self.chains = self.set.of_pairs("chain")
    self.errors = functools.cache(self._errors)
    self.probe = functools.cache(self._probe)
    self.latents = functools.cache(self._latents)

  def s(self, e_z: float) -> float:
    """S of an error of the move, with the controls that are stored now: a run's own file may be of
    older ones.
    """
    row = self.stored[DIFFERENCE]
    return (row["e_single"] - e_z) / (row["e_single"] - row["e_both"])

  def _latents(self, one: Measured) -> np.ndarray:
    """Z [P, Z]."""
    if one.folder is not None:
      return exam_set.load_latents(one.folder / "exam" / exam.LATENTS, self.set).z
    return components(self.folder, one.stored)

  def _probe(self, one: Measured) -> kernel_ridge.Probe:
    """Of the moves, fitted on the fit part as `como_jax.exam.run` does (each number of the target
    has its own kernel and ridge).

    Raises:
      errors.UserError: its error on the test is not the one that is stored of this row.
    """
    fit, test = self.set.rows(exam_set.FIT), self.set.rows(exam_set.TEST)
    z = self.latents(one)
    probe = kernel_ridge.fit(z[fit], self.set.target[fit], groups=self.chains[fit])
    again = motion_score.e(
      motion_score.pair_errors(probe.predict(z[test]), self.set.target[test], self.set.variance)
    )
    if abs(again - one.e_z) > NEAR:
      raise errors.UserError(
        f"{one.folder or one.stored}: error of the move {again:.3f} read from its latents, "
        f"{one.e_z:.3f} stored: latents and exam.json are of different sets"
      )
    return probe

  def _errors(self, one: Measured) -> np.ndarray:
    """Of the test's pairs, in units of the variance."""
    if one.stored:
      with np.load(self.folder / exam_set.TABLE) as file:
        if f"rows/{one.stored}" in file.files:
          return file[f"rows/{one.stored}"].astype(np.float64)
    test = self.set.rows(exam_set.TEST)
    return motion_score.pair_errors(
      self.probe(one).predict(self.latents(one)[test]), self.set.target[test], self.set.variance
    )


def components(folder: pathlib.Path, name: str) -> np.ndarray:
  """Latents z [P, Z] of a row of components, as `exam_rows.build` makes them.

  The components are of all pairs' change or of one of their pictures. (`exam_rows.build` cannot
  build its rows from the set that ships, which does not hold the true poses.)
  """
  if name == FLOW:  # needs no encoder
    values = exam_pictures.frames(folder, model_presets.preset("motion", "debug")["image_size"])
    change = exam_rows.moved_cells(Pictures.first(values), Pictures.second(values))
  else:
    values = exam_pictures.load(folder).tokens.astype(np.float32)
    first, second = Pictures.first(values), Pictures.second(values)
    change = {DIFFERENCE: lambda: second - first, FIRST: lambda: first, FUTURE: lambda: second}[
      name
    ]()
  change = change.reshape(len(change), -1)
  fit = exam_set.load(folder).rows(exam_set.FIT)
  chosen = fit[:: max(1, len(fit) // 4_000)]
  project = exam_rows.components(
    (first.reshape(change.shape) if name == FUTURE else change)[chosen], exam_rows.COMPONENTS
  )
  return project(change)


def read(folders: Iterable[pathlib.Path], stored: Mapping[str, Mapping[str, Any]]) -> Found:
  """Rows of the folders as benchmarks/variants.py leaves them, and the rows without training that
  can be paired.

  Args:
    folders: NAME-STEPS-SEED, or any other name: a row of one run.
    stored: rows of the exam's set.

  Raises:
    errors.UserError: none of the folders can be used.
  """
  runs: dict[str, dict[int, Measured]] = {}
  left, fixed, windows, told = [], {}, None, []
  for folder in folders:
    name, seed = named(folder)
    try:
      probed, taken, motion, asked = _files(folder, stored)
      if windows not in (None, asked):
        raise Left(f"probed on {asked}, the runs before it on {windows}")
      one = _trained(folder, probed, taken)
    except Left as reason:
      left.append(f"{folder.name}: {reason}")
      continue
    if seed in runs.get(name, {}):
      left.append(f"{folder.name}: seed {seed} of {name!r} is there already")
      continue
    windows = asked
    runs.setdefault(name, {})[seed] = one
    for row, reason, measured in _untrained(probed, taken, motion, stored):
      if measured is not None:
        fixed.setdefault(row, (reason, measured))
      told.append((row, reason))
  if not runs:
    raise errors.UserError(f"--runs: no folder can be used: {'; '.join(left) or 'none given'}")
  rows = [Row(name, dict(sorted(found.items()))) for name, found in runs.items()]
  rows += [
    Row(f"{row} (no training)", {0: measured}, trained=False)
    for row, (_, measured) in fixed.items()
  ]
  untrained = dict(reversed(told)) | {row: reason for row, (reason, _) in fixed.items()}
  return Found(rows, left, [f"{row}: {reason}" for row, reason in untrained.items()], windows)


def named(folder: pathlib.Path) -> tuple[str, int]:
  """(row, seed) of a folder."""
  found = re.fullmatch(r"(.+)-(\d+)-(\d+)", folder.name)
  if not found:
    return folder.name, 0
  name, steps, seed = found.groups()
  return f"{NAMES.get(name, name)}, {steps} step{'s' * (steps != '1')}", int(seed)


def _files(
  folder: pathlib.Path, stored: Mapping[str, Mapping[str, Any]]
) -> tuple[dict, dict, dict, str]:
  """(rows of the probe, rows of the exam, config of the run or {}, the probe's windows).

  Raises:
    Left: a part is missing, or cannot be compared.
  """
  metrics, taken = _json(folder / "probe" / "metrics.json"), _json(folder / "exam" / exam.METRICS)
  probed = metrics.get("rows", {})
  for row, where, key in (("trained", probed, "lp_mse"), ("trained", taken.get("rows", {}), "e_z")):
    if where.get(row, {}).get(key) is None:
      raise Left(
        f"{'probe/metrics.json' if key == 'lp_mse' else 'exam/exam.json'}: row 'trained' has no "
        f"{key!r}"
      )
  same = taken["rows"].get(DIFFERENCE, {}).get("e_z")
  if (
    taken.get("tier") != "hand"
    or same is None
    or not math.isclose(same, stored[DIFFERENCE]["e_z"], rel_tol=SAME)
  ):
    raise Left(
      f"examined on another set (tier {taken.get('tier')!r}, {DIFFERENCE} {same}; here 'hand', "
      f"{stored[DIFFERENCE]['e_z']})"
    )
  fitted = _json(folder / "probe" / "config.json", {}).get("fit_windows", "an unknown number of")
  windows = (
    f"{metrics.get('windows')} held-out windows, {fitted} to fit on, of "
    f"{', '.join(metrics.get('data', ()))} at "
    f"{', '.join(map(str, metrics.get('offset_seconds', ())))} s"
  )
  return probed, taken["rows"], _json(folder / "motion" / "config.json", {}), windows


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


def _trained(folder: pathlib.Path, probed: dict, taken: dict) -> Measured:
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
    taken["trained"]["e_z"],
    _finite(row.get("s_pcfc")),
    tuple(gains),
    variants.appearance(taken["trained"])["appearance"],
    folder,
    _limits(taken["trained"]),
  )


def _untrained(
  probed: dict, taken: dict, motion: dict, stored: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, Measured | None]]:
  """(the exam's row, what the two latents are or why they are not one, its numbers) of what both
  programs measure without training.
  """
  width, idm = int(taken["trained"].get("width", 0)), motion.get("model", {}).get("idm", {})
  difference, start = (probed.get(name, {}) for name in ("difference", "untrained"))
  found = []
  if (
    difference.get("lp_mse") is None
    or motion.get("encoder_weights") != "bundled"
    or width != stored[DIFFERENCE]["width"]
  ):
    found.append(
      (
        DIFFERENCE,
        'no run has the probe\'s row "difference" of the encoder that ships with as many numbers',
        None,
      )
    )
  else:
    value, error = _pair(difference["lp_mse"])
    told = (
      f"{width} principal components of the difference of the shipped encoder's features, in the "
      "probe's row \"difference\" and in the exam's, fitted on each program's own pairs; the "
      "probe's features include the CLS token, the exam's do not; S-PCFC is not known"
    )
    found.append(
      (DIFFERENCE, told, _fixed(DIFFERENCE, stored, (value, error), gains=((value, 0.0),)))
    )
    for name, row, s_pcfc in ((FIRST, "first-only", None), (FUTURE, "second-only", 1.0)):
      if probed.get(row, {}).get("lp_mse") is not None and name in stored:
        value, error = _pair(probed[row]["lp_mse"])
        told = (
          f"{width} principal components of one picture in the shipped encoder's features, in the "
          f"probe's row \"{row}\" and in the exam's, fitted on each program's own pictures; the "
          "probe's features include the CLS token, the exam's do not"
          + ("; S-PCFC is 1, the same picture twice" if s_pcfc else "; S-PCFC is not known")
        )
        found.append(
          (name, told, _fixed(name, stored, (value, error), s_pcfc=s_pcfc, gains=((value, 0.0),)))
        )
  starts = (
    FLOW in stored
    and idm.get("components_of") == "flow"
    and idm.get("components") == width == stored[FLOW]["width"]
  )
  if not starts or start.get("lp_mse") is None:
    found.append(
      (
        FLOW,
        (
          "no run starts as so many components of the flow (configs/motion.py:small without "
          "path=none)"
        ),
        None,
      )
    )
  else:
    value, error = _pair(start["lp_mse"])
    gains = [(value, 0.0)]
    if (
      all(probed["trained"].get(key) is not None for key in ("lp_gain", "lp_gain_difference"))
      and difference.get("lp_mse") is not None
    ):
      # Its gain over "difference" is the trained row's less the trained row's over it: at most the
      # sum of both errors.
      gains.append(
        (
          _pair(difference["lp_mse"])[0],
          sum(_pair(probed["trained"][key])[1] for key in ("lp_gain", "lp_gain_difference")),
        )
      )
    pool = idm.get("components_pool", 1)
    told = (
      f"{width} principal components of the same classical optical flow, the probe's row "
      '"untrained" of a run that starts as them (path=flow) and the exam\'s row; of means over '
      f"{pool} x {pool} patches in the run and over 4 x 4 pixels in the exam, fitted on each "
      "program's own pairs; S-PCFC is of the run's components, scaled to mean square 1"
    )
    found.append(
      (
        FLOW,
        told,
        _fixed(
          FLOW, stored, (value, error), s_pcfc=_finite(start.get("s_pcfc")), gains=tuple(gains)
        ),
      )
    )
  return found


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
  """(value, standard error) as JSON holds it, which may hold None for the error."""
  value, error = values if isinstance(values, list) else (values, None)
  return float(value), math.inf if error is None else float(error)


def _limits(row: Mapping[str, Any]) -> tuple[float, float] | None:
  low, high = (_finite(row.get(f"e_z_{end}")) for end in ("low", "high"))
  return None if low is None or high is None else (low, high)


def _finite(value: float | None) -> float | None:
  return value if value is not None and math.isfinite(value) else None
