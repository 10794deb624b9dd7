"""What a report is made of: plain numpy and Python, every part optional.

Legend: N examples, H W pixels, G groups.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Curve = tuple[Sequence[float], Sequence[float]]  # steps, values


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """Frames in and out of the model, uint8 [N, H, W, 3] each."""

  current: np.ndarray
  target: np.ndarray
  predicted: np.ndarray
  captions: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Transfer:
  """The motion of clip A applied to the first frame of clip B, uint8 [N, H, W, 3] each."""

  a_current: np.ndarray
  a_future: np.ndarray
  b_current: np.ndarray
  b_predicted: np.ndarray
  captions: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Scatter:
  """One target dimension of a probe on held-out samples."""

  true: np.ndarray  # [N]
  predicted: np.ndarray  # [N]
  r2: float
  unit: str = ""


@dataclasses.dataclass(frozen=True)
class Projection:
  """z on two axes, colored by what it should encode."""

  points: np.ndarray  # [N, 2]
  colors: Mapping[str, np.ndarray]  # dimension name (with its unit) -> [N]
  explained: Sequence[float] = ()  # share of the variance along the two axes, in [0, 1]


@dataclasses.dataclass(frozen=True)
class Similarity:
  """Mean cosine similarity of z between groups."""

  values: np.ndarray  # [G, G]
  labels: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Rollouts:
  """Closed-loop success of a policy, and some of its episodes as film strips."""

  # task -> (rate, low, high), in [0, 1], 95 % interval
  rates: Mapping[str, tuple[float, float, float]]
  episodes: int  # of each task
  # caption -> uint8 [F, H, W, 3], all of one F
  films: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


Interval = tuple[float, float, float]  # value, low and high end of its 95 % interval


@dataclasses.dataclass(frozen=True)
class ExamRow:
  """One latent of the exam. What was withheld is None.

  Attributes:
    kind: "model", "baseline" (no training), "control" (trained with labels) or "cheat" (no motion).
    error: of the move read from z alone, in units of its variance.
    score: S.
    leak: excess over chance of the best-read class of appearance.
    read: classes of appearance that are readable.
    gap: error minus that of the components of the untrained difference.
    future: share of the variance of what moves in the second picture that z tells.
  """

  name: str
  kind: str
  error: Interval | None = None
  score: Interval | None = None
  leak: Interval | None = None
  read: Sequence[str] = ()
  gap: Interval | None = None
  future: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Exam:
  """The exam's rows, and what the better single picture and both pictures leave of the move's
  variance.
  """

  rows: Sequence[ExamRow]
  single: float | None = None
  both: float | None = None


@dataclasses.dataclass(frozen=True)
class ReportData:
  """One run. A part that is empty or None is left out of the page."""

  title: str
  summary: str = ""
  # Row -> metric -> value or (value, standard error). Rows "trained" and "untrained" and the metric
  # names of `explain.METRICS` are understood; others are shown as they are.
  metrics: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  metric_notes: Sequence[str] = ()  # how they were measured: splits, scaling
  # "loss" and "validation/loss" share a panel
  curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
  log_curves: Sequence[str] | None = None  # names on a logarithmic axis; None decides by range
  reconstruction: Reconstruction | None = None
  transfer: Transfer | None = None
  s_pcfc: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # row -> cosines
  probes: Mapping[str, Scatter] = dataclasses.field(default_factory=dict)  # dimension -> scatter
  pca: Projection | None = None
  similarity: Similarity | None = None
  rollouts: Rollouts | None = None
  exam: Exam | None = None
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  hardware: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  time: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  commands: Sequence[str] = ()
  # (name, reason) pairs, or {"name", "reason"} as in quarantine.json
  quarantine: Sequence[Any] = ()
  notes: Sequence[str] = ()
