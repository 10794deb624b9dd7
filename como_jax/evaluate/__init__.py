"""Metrics of a motion model: pure functions of arrays that return dataclasses.

| name | question | good | useless |
| --- | --- | --- | --- |
| linear_probe, mlp_probe | does z predict the true action? | near 0 | 1 |
| s_pcfc | does z depend on where the motion came from? | below 1, with a low probe error | 1 |
| effective_rank | how many directions does z use? | well above 1 | 1 |
| reconstruction | does z help to predict the next frame? | ratio below 1 | ratio 1 (copying) |
| matrix, contrast, retrieval | is z of a motion similar in other scenes? | contrast above 0 | 0 |
| identity | does z predict the camera or the task? | near chance | 1 |
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from como_jax.evaluate import (
  appearance,
  consistency,
  linear_probe,
  mlp_probe,
  reconstruction,
  retrieval,
  similarity,
)

METRICS: dict[str, Callable[..., Any]] = {
  "linear_probe": linear_probe.probe,
  "linear_probe_folds": linear_probe.cross_validate,
  "mlp_probe": mlp_probe.probe,
  "s_pcfc": consistency.s_pcfc,
  "effective_rank": consistency.effective_rank,
  "reconstruction": reconstruction.compare,
  "similarity": similarity.matrix,
  "contrast": similarity.contrast,
  "retrieval": retrieval.across_views,
  "identity": appearance.identity,
}


def scalars(result: Any, prefix: str = "") -> dict[str, float]:
  """The numbers of a result for logs: {prefix + field: value}.

  Arrays, text, bools and None are left out.

  Args:
    result: a dataclass.
    prefix: start of each name.
  """
  values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
  return {
    prefix + name: float(value)
    for name, value in values.items()
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
  }
