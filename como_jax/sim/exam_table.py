"""The arrays of an exam set that its design decides: views, targets, poses, places, limits.

Legend: V views of a tier, P = 2V pairs, A target dimensions.
"""

import numpy as np

from como_jax.sim import exam_design, exam_draws

# Views are sorted by these columns, the last one first.
_SORTED_BY = ("chain", "palette", "objects", "camera", "scene", "part")


def table(design: exam_design.Design, tier: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """The arrays of a tier, view after view in the order of its pictures.

  Args:
    design: design of the exam.
    tier: index into `exam_design.TIERS`.

  Returns:
    (indices of the views in the design int [V], arrays). Arrays are named as in `exam.npz`: columns
    of the views [V], "target" and "state/first" [P, A], "place" [V, 3, 2], "limit" [A] and others.
  """
  chosen, camera_targets, robot_targets = exam_design.targets(design, tier)
  views = {name: values[chosen] for name, values in design.views.items()}
  order = np.lexsort([views[name] for name in _SORTED_BY])
  pairs = np.stack([2 * order, 2 * order + 1], axis=1).reshape(-1)
  name = exam_design.TIERS[tier]
  arrays = {column: values[order] for column, values in views.items()}
  arrays |= {
    "camera_speed": design.camera_speed[chosen][order],
    "target": camera_targets[pairs],
    "target_robot": robot_targets[pairs],
    "names": np.array(exam_design.NAMES[name]),
    "names_robot": np.array(exam_design.ROBOT_NAMES[name]),
  }
  for picture, side in enumerate(("first", "second")):
    arrays |= {
      f"state{frame}/{side}": exam_design.states(design, tier, picture, camera=not frame)[pairs]
      for frame in ("", "_robot")
    }
  arrays["limit"] = exam_draws.closed_form(tier)["conditional"]
  arrays["place"] = exam_design.places(design, tier)[order].astype(np.float16)
  return chosen[order], arrays
