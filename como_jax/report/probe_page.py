"""The page of the probe, and its table for the terminal.

Legend: N examples, M held-out windows, H W pixels, A target dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from como_jax.report.data import (
  Curve,
  Goodput,
  Projection,
  Reconstruction,
  ReportData,
  Scatter,
  Similarity,
  Transfer,
)

TIMES = ("time/", "hbm_")  # beginnings of the names of curves that are not drawn
MAX_COLORS = 4  # maximum number of dimensions that color the projection
_WIDTH = 18  # characters of a column of the table

# (first, second) or (first, second, onto), each uint8 [N, H, W, 3] -> predicted frames.
Predict = Callable[..., np.ndarray]


class Probe(Protocol):
  """Result of a probe on held-out samples."""

  @property
  def names(self) -> Sequence[str]:
    """Names of the target dimensions [A]."""
    ...

  @property
  def true(self) -> np.ndarray:
    """Targets [M, A]; nan in the dimensions that the robot of a sample does not have."""
    ...

  @property
  def predicted(self) -> np.ndarray:
    """Predictions of them [M, A]."""
    ...

  @property
  def r2_by_dimension(self) -> np.ndarray:
    """R2 of each dimension [A]."""
    ...


class Robot(Protocol):
  """The windows of a robot that have a target."""

  @property
  def values(self) -> np.ndarray:
    """Targets of all its windows [N + M, A]."""
    ...

  @property
  def held_out(self) -> np.ndarray:
    """Whether each of these windows is held out."""
    ...

  @property
  def scored(self) -> np.ndarray:
    """Indices of its held-out windows among all held-out windows."""
    ...

  @property
  def names(self) -> Sequence[str]:
    """Names of the dimensions [A]."""
    ...


class Target(Protocol):
  """A target of the probes."""

  @property
  def name(self) -> str:
    """Name of the target."""
    ...

  @property
  def robots(self) -> Sequence[Robot]:
    """The robots that have it."""
    ...


class Values(Protocol):
  """A metric of each sample, or of each pair of groups."""

  @property
  def values(self) -> np.ndarray:
    """The values."""
    ...


class Matrix(Values, Protocol):
  """Similarity of z between groups."""

  @property
  def labels(self) -> Sequence[str]:
    """Names of the groups."""
    ...


class Details(Protocol):
  """What a row was computed from."""

  @property
  def probes(self) -> Mapping[str, Probe]:
    """Target -> result of its linear probe."""
    ...

  @property
  def s_pcfc(self) -> Values | None:
    """S-PCFC of each window; None: not measured."""
    ...

  @property
  def matrix(self) -> Matrix | None:
    """Similarity of z between cameras and tasks; None: not measured."""
    ...


class Table(Protocol):
  """All metrics."""

  @property
  def rows(self) -> Mapping[str, Mapping[str, Any]]:
    """Row -> metric -> value or (value, standard error or None)."""
    ...

  @property
  def notes(self) -> Sequence[str]:
    """How they were measured."""
    ...

  @property
  def details(self) -> Mapping[str, Details]:
    """Row of a latent, "trained" among them -> what it was computed from."""
    ...


class TrainingLog(Protocol):
  """What the training run of the model has logged."""

  @property
  def name(self) -> str:
    """Name of the run directory."""
    ...

  @property
  def curves(self) -> Mapping[str, Curve]:
    """Name of a curve ("loss", "validation/loss") -> steps and values."""
    ...

  @property
  def speed(self) -> Mapping[str, Any]:
    """Its speeds and times; {}: it wrote none."""
    ...

  @property
  def goodput(self) -> Mapping[str, Any]:
    """Where its time went (train/goodput.py); {}: it wrote no ledger."""
    ...


def page(
  table: Table,
  targets: Sequence[Target],
  axes: tuple[np.ndarray, np.ndarray],
  drawn: tuple[Reconstruction, Transfer],
  *,
  split: str,
  training: TrainingLog,
  run_config: Mapping[str, Any],
) -> ReportData:
  """What the page shows of the model.

  Args:
    table: all metrics.
    targets: targets of the probes.
    axes: z of the held-out windows on two axes [M, 2], and share of the variance along the axes.
    drawn: see `drawings`.
    split: see `split_note`.
    training: log of the training run.
    run_config: config of the training run.
  """
  trained = table.details["trained"]
  matrix = trained.matrix
  reconstruction, transfer = drawn
  return ReportData(
    title=f"Motion model: {training.name}",
    metrics=table.rows,
    metric_notes=[split, *table.notes],
    curves={name: curve for name, curve in training.curves.items() if not name.startswith(TIMES)},
    reconstruction=reconstruction,
    transfer=transfer,
    s_pcfc={
      name: of_row.s_pcfc.values
      for name, of_row in table.details.items()
      if of_row.s_pcfc is not None
    },
    probes=scatters(trained.probes),
    pca=projection(*axes, targets),
    similarity=Similarity(matrix.values, matrix.labels) if matrix is not None else None,
    config=run_config,
    time={f"training, {key}": value for key, value in training.speed.items()},
    goodput=goodput(training.goodput),
  )


def goodput(summary: Mapping[str, Any]) -> Goodput | None:
  """Where the time of a training run went; None: it wrote no ledger.

  Args:
    summary: of the ledger (train/goodput.py); {}: there is none.
  """
  if not summary:
    return None
  return Goodput(
    summary["wall"],
    summary["seconds"],
    summary["unaccounted"],
    summary["redone_steps"],
    summary["attempts"],
  )


def drawings(pictures: Mapping[str, Any], predict: Predict) -> tuple[Reconstruction, Transfer]:
  """Draws the motion of each example onto its own frame, and onto that of the example before it.

  Args:
    pictures: "frames" t - n, t and t + n, uint8 [N, 3, H, W, 3]; "task", "episode" and "camera",
      names [N].
    predict: predicts frames.
  """
  first, second = pictures["frames"][:, 1], pictures["frames"][:, 2]
  captions = [
    f"{task or episode}, {camera}"
    for task, episode, camera in zip(
      pictures["task"], pictures["episode"], pictures["camera"], strict=False
    )
  ]
  onto = np.roll(np.arange(len(first)), 1)
  return Reconstruction(first, second, predict(first, second), captions), Transfer(
    first,
    second,
    first[onto],
    predict(first, second, first[onto]),
    [f"{captions[i]} → {captions[j]}" for i, j in enumerate(onto)],
  )


def split_note(data: Mapping[str, Any], trained_on: Mapping[str, Any]) -> str:
  """A note about the episodes of the probe and whether the model was trained on them.

  Args:
    data: the data section of the probe.
    trained_on: that of the training run.
  """
  if all(data[key] == trained_on[key] for key in ("path", "mixture", "validation_fraction")):
    return (
      "Measured on the validation episodes of the training run; probes are fitted on its training "
      "episodes, whose actions the model has never seen. Episodes of the same motion stand on one "
      "side."
    )
  return (
    "Measured on the validation episodes of this data (not the split of the training run); probes "
    "are fitted on its other episodes. Episodes of the same motion stand on one side."
  )


def left_out(manifests: Sequence[Mapping[str, Any]]) -> list[Any]:
  """The files that were left out of data sets, with reasons.

  Args:
    manifests: of the data sets.
  """
  keys = ("quarantine", "skipped")
  return [entry for manifest in manifests for key in keys for entry in manifest[key]]


def scatters(results: Mapping[str, Probe]) -> dict[str, Scatter]:
  """True and predicted values of each dimension of each target: "target: dimension" -> scatter.

  With several robots, these are the windows of the robot that has this dimension.
  """
  result = {}
  for target, probe in results.items():
    for d, name in enumerate(probe.names):
      known = np.isfinite(probe.true[:, d])
      result[f"{target}: {name}"] = Scatter(
        probe.true[known, d], probe.predicted[known, d], float(probe.r2_by_dimension[d])
      )
  return result


def projection(
  points: np.ndarray, explained: np.ndarray, targets: Sequence[Target]
) -> Projection | None:
  """The projection of z, colored by the first robot of the first probed target; None: no target.

  Args:
    points: z of the held-out windows on two axes [M, 2].
    explained: share of the variance along the axes.
    targets: targets of the probes.
  """
  for target in targets:
    for robot in target.robots[:1]:
      values = robot.values[robot.held_out]
      colors = {
        f"{target.name}: {name}": values[:, d] for d, name in enumerate(robot.names[:MAX_COLORS])
      }
      return Projection(points[robot.scored], colors, tuple(float(share) for share in explained))
  return None


def table(rows: Mapping[str, Mapping[str, Any]], notes: Sequence[str]) -> str:
  """The metrics and the notes as text, for the terminal.

  Args:
    rows: row -> metric -> value or (value, standard error or None).
    notes: how they were measured.
  """
  keys = list(dict.fromkeys(key for row in rows.values() for key in row))
  width = max(len(key) for key in keys)
  lines = [f"{'':{width}}  " + "  ".join(f"{name:>{_WIDTH}}" for name in rows)]
  for key in keys:
    cells = (_cell(row.get(key)) for row in rows.values())
    lines.append(f"{key:{width}}  " + "  ".join(f"{cell:>{_WIDTH}}" for cell in cells))
  return "\n".join([*lines, *(f"  {note}" for note in notes)])


def _cell(metric: Any) -> str:
  """A metric as text; "" if the row does not have it."""
  value, error = metric if isinstance(metric, tuple) else (metric, None)
  if value is None:
    return ""
  return f"{value:.4f}" + (f" ± {error:.4f}" if error else "")
