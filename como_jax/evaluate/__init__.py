"""Metrics of a motion model: pure functions of arrays, results as dataclasses.

| name | question | good | useless |
| --- | --- | --- | --- |
| linear_probe, mlp_probe | can the true action be read from z? | towards 0 | 1 |
| s_pcfc | does z depend on where the motion came from? | below 1, with a low probe error | 1 |
| effective_rank | how many directions does z use? | well above 1 | 1 |
| reconstruction | does z help to draw the next frame? | ratio below 1 | ratio 1 (copying) |
| matrix, contrast, retrieval | is a motion similar in other scenes? | motion contrast above 0 | 0 |
| identity | can the camera or the task be read from z? | towards chance | 1 |
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
  "retrieval": similarity.retrieval,
  "identity": appearance.identity,
}


def scalars(result: Any, prefix: str = "") -> dict[str, float]:
  """The plain numbers of a result, {prefix + field: value}, for logs; arrays, text and absent
  values are left out.
  """
  values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
  return {
    prefix + name: float(value)
    for name, value in values.items()
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
  }
