"""The results of a rollout as a table on the terminal."""

from collections.abc import Mapping
from typing import Any

from como_jax.evaluate import runs, success


def text(result: Mapping[str, Any], info: Mapping[str, Any]) -> str:
  """Lists success by task with its interval, the mean, times and errors.

  Args:
    result: of a rollout, with the keys of `outcomes.summary`.
    info: `outcomes.eval_info` of its episodes.
  """
  width = max(len(task) for task in [*result["tasks"], "mean over tasks"])

  def line(name: str, row: Mapping[str, Any], more: str = "") -> str:
    interval = success.Interval(row["value"], row["low"], row["high"], row["count"])
    return f"{name:{width}}  {interval!s:>24}  {row['count']:>5} episodes{more}"

  lines = [
    line(
      task,
      row,
      f", {row['steps_to_success']:.0f} control steps to success"
      if row["steps_to_success"]
      else "",
    )
    for task, row in result["tasks"].items()
  ]
  if result["overall"]:
    mean = result["overall"]["mean_over_tasks"]
    points = 100 * runs.detectable_episodes(mean["count"])
    lines += [
      line("mean over tasks", mean),
      f"against another trained policy on as many episodes, {points:.0f} points are detected "
      "(80 % power, 5 % two-sided); training recipes need several seeds each",
    ]
  lines.append(
    f"{info['overall']['eval_s']:.0f} s, {info['overall']['eval_ep_s']:.2f} s an episode"
  )
  if result["errors"]:
    lines.append(
      f"{len(result['errors'])} episodes could not be played and are not counted: --resume tries "
      "them again"
    )
  return "\n".join(lines)
