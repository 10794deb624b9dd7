"""The table of benchmarks/gripper.py."""

import argparse
from collections.abc import Mapping
from typing import Any

from como_jax.evaluate import runs, success


def text(options: argparse.Namespace, rows: Mapping[str, Mapping[str, Any]], *, width: int) -> str:
  """The table and its notes.

  Args:
    options: of the command line.
    rows: name -> numbers of a policy.
    width: of the policies.
  """
  columns = (
    "task, policy, normalization, code",
    "success",
    "object held",
    "closes near it",
    "closes away from it",
    "gripper accuracy",
    "when closed",
    "when open",
    "one of its two values",
    "gripper loss, first and last",
    "action error",
  )
  lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
  for name, row in rows.items():
    played, cells = row["episodes"], [name]
    for key in ("success", "held"):
      won = sum(one[key] for one in played)
      cells.append(f"{won} of {len(played)}: {success.rate(won, len(played))}" if played else "")
    for key in ("near", "far"):
      closed, count = (sum(one[key][i] for one in played) for i in (0, 1))
      cells.append(f"{100 * closed / count:.0f} % of {count}" if count else "")
    cells += [
      f"{100 * row[key]:.1f} %" for key in ("accuracy", "when_closed", "when_open", "exact")
    ]
    cells += [
      "{:.3f}, {:.3f}".format(*row["gripper_loss"]) if row["gripper_loss"] else "",
      f"{row['action_mse']:.3f}" if row["action_mse"] is not None else "",
    ]
    lines.append("| " + " | ".join(cells) + " |")
  closed = {name.split(",")[0]: row["closed"] for name, row in rows.items()}
  notes = "; ".join(f"{task}: {100 * share:.0f} % closed" for task, share in closed.items())
  half, tenth = (100 * runs.detectable_episodes(options.episodes, rate=rate) for rate in (0.5, 0.1))
  return "\n".join(lines) + (
    f"\n\n{options.demonstrations} demonstrations of each task, a tenth held out ({notes}), "
    f"{options.used or 'all'} of the others used; policies {width} wide, {options.steps} steps of "
    f"32 examples, one seed. Success: {options.episodes} episodes of at most {options.max_steps} "
    "control steps, Wilson's interval. The action error is of the version's own units and "
    "dimensions (before: with the gripper), so it compares within a version only.\n\nn = 1 run a "
    "row: the intervals are about these trained policies, not about what trained them. Two "
    f"policies of {options.episodes} episodes each differ detectably from {half:.0f} points on "
    f"where success is about a half, from {tenth:.0f} where it is about 10 % (80 % power, 5 % "
    "two-sided, one comparison).\n"
  )
