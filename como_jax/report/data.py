"""The data of a report: plain numpy and Python; every part is optional.

Legend: N examples, F frames, H W pixels, G groups.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Curve = tuple[Sequence[float], Sequence[float]]  # steps, values


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """Input, target and predicted frames, each uint8 [N, H, W, 3]."""

  current: np.ndarray
  target: np.ndarray
  predicted: np.ndarray
  captions: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Transfer:
  """The motion of clip A applied to the first frame of clip B, each uint8 [N, H, W, 3]."""

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
  """Latents on two axes, colored by quantities that z should encode."""

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
  """Closed-loop success of a policy, with some of its episodes as film strips."""

  # task -> (rate, low, high), in [0, 1], 95 % interval
  rates: Mapping[str, tuple[float, float, float]]
  episodes: int  # of each task
  # caption -> uint8 [F, H, W, 3], all of one F
  films: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


Interval = tuple[float, float, float]  # value, lower and upper end of its 95 % interval


@dataclasses.dataclass(frozen=True)
class ExamRow:
  """One latent of the exam; results that were withheld are None.

  Attributes:
    name: name of the latent.
    kind: "model", "baseline" (no training), "control" (trained with labels) or "cheat" (no motion).
    error: error of the move predicted from z alone, in units of its variance.
    score: S.
    leak: excess over chance of the label of appearance that z predicts best.
    read: labels of appearance that are readable.
    gap: error minus that of the components of the untrained difference.
    future: share of the variance of what moves in the second picture that z predicts.
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
  """The rows of the exam.

  Attributes:
    rows: one for each latent.
    single: error of the move predicted from the better single picture, in units of its variance.
    both: error of the move predicted from both pictures, in the same unit.
  """

  rows: Sequence[ExamRow]
  single: float | None = None
  both: float | None = None


@dataclasses.dataclass(frozen=True)
class Goodput:
  """Where the time of a run went, over all its attempts.

  Attributes:
    wall: seconds from the first start to the last end.
    seconds: category -> seconds.
    unaccounted: seconds that no category has.
    redone_steps: steps that were done again after a restart.
    attempts: for each, when it "began", "from_step", "to_step" and its "seconds".
  """

  wall: float
  seconds: Mapping[str, float]
  unaccounted: float
  redone_steps: int
  attempts: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class ReportData:
  """One run; parts that are empty or None are left out of the page."""

  title: str
  summary: str = ""
  # Row -> metric -> value or (value, standard error). The verdict uses the rows "trained",
  # "untrained" and others. Metrics in `explain.METRICS` are explained; others are only shown.
  metrics: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  metric_notes: Sequence[str] = ()  # how they were measured: splits, scaling
  # "loss" and "validation/loss" are in the same panel.
  curves: Mapping[str, Curve] = dataclasses.field(default_factory=dict)
  log_curves: Sequence[str] | None = None  # curves with a logarithmic axis; None: by their range
  reconstruction: Reconstruction | None = None
  transfer: Transfer | None = None
  s_pcfc: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # row -> cosines
  probes: Mapping[str, Scatter] = dataclasses.field(default_factory=dict)  # dimension -> scatter
  pca: Projection | None = None
  similarity: Similarity | None = None
  rollouts: Rollouts | None = None
  exam: Exam | None = None
  goodput: Goodput | None = None
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  hardware: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  time: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  commands: Sequence[str] = ()
  # (name, reason) pairs, or {"name", "reason"} as in quarantine.json
  quarantine: Sequence[Any] = ()
  notes: Sequence[str] = ()
