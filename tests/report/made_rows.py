"""Rows of metrics of a good model, and the verdict on changes of them."""

from como_jax.report import verdict

GOOD = {
  "trained": {
    "lp_mse": (0.4, 0.03),
    "lp_half": 0.42,
    "lp_r2": 0.6,
    "lp_gain": (0.5, 0.03),
    "lp_gain_difference": (0.2, 0.03),
    "motion_score": (0.6, 0.1),
    "camera_excess": (0.04, 0.03),
    "retrieval_gain": (0.3, 0.05),
    "copy_ratio": 0.95,
    "copy_ratio_moving": 0.6,
    "effective_rank": 7.0,
  },
  "untrained": {"lp_mse": (0.9, 0.03), "camera_excess": (0.9, 0.02), "effective_rank": 4.0},
  "difference": {"lp_mse": (0.6, 0.03)},
  "both-pictures": {"motion_gain": (0.3, 0.02)},
}


def judge(*, drop=(), rows=(), **changes):
  table = {row: dict(of) for row, of in GOOD.items() if row not in rows}
  table["trained"] |= changes
  for name in drop:
    table["trained"].pop(name)
  return verdict.judge(table)
