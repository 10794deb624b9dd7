"""From the episodes of a rollout to its results: success by task and over tasks, and the layout of
LeRobot's eval_info.json.

An episode is a dict, one line of episodes.jsonl:
  "task" str, "episode" int, "seed" int, "scene" int, "initial_state" int (-1: sampled from the
  seed), "success" bool, "steps" control steps of at most "max_steps", "plans" requests to the
  policy, "seconds" of the simulator, "wall" seconds since the episode before it ended, "video" path
  or "", "error" text or "".
Episodes with an error have no result: they are counted and never averaged.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from como_jax.evaluate import success

Episode = Mapping[str, Any]


def ordered(episodes: Sequence[Episode], tasks: Sequence[str]) -> list[Episode]:
  """By task, then by number; of an episode played twice (an error, then again) the later one."""
  latest = {(one["task"], one["episode"]): one for one in episodes}
  return sorted(latest.values(), key=lambda one: (tasks.index(one["task"]), one["episode"]))


def counts(episodes: Sequence[Episode], tasks: Sequence[str]) -> dict[str, tuple[int, int]]:
  """Task -> (successes, episodes with a result), tasks without any left out."""
  valid = [one for one in episodes if not one["error"]]
  found = {task: [one["success"] for one in valid if one["task"] == task] for task in tasks}
  return {task: (sum(values), len(values)) for task, values in found.items() if values}


def summary(episodes: Sequence[Episode], tasks: Sequence[str]) -> dict[str, Any]:
  """{"tasks": task -> rate, Wilson limits, mean steps of the successes; "overall": mean over tasks
  with its stratified interval, and all episodes pooled; "errors": the episodes that have no
  result}.
  """
  found = counts(episodes, tasks)
  rows = {}
  for task, (successes, number) in found.items():
    steps = [
      one["steps"]
      for one in episodes
      if one["task"] == task and one["success"] and not one["error"]
    ]
    rows[task] = {
      "successes": successes,
      **success.rate(successes, number).to_json(),
      "steps_to_success": sum(steps) / len(steps) if steps else None,
    }
  overall = None
  if found:
    pooled = success.rate(sum(a for a, _ in found.values()), sum(n for _, n in found.values()))
    overall = {
      "mean_over_tasks": success.mean_over_tasks(found).to_json(),
      "pooled": pooled.to_json(),
    }
  errors = [
    {key: one[key] for key in ("task", "episode", "seed", "error")}
    for one in episodes
    if one["error"]
  ]
  return {"tasks": rows, "overall": overall, "errors": errors}


def place(task: str, simulator: str, tasks: Sequence[str]) -> tuple[str, int]:
  """(task group, number in it) of a task: "libero_10/3" is number 3 of group libero_10; other tasks
  are numbered in the simulator.

  Args:
    task: of the simulator.
    simulator: its name, the group of tasks that name none.
    tasks: all of the simulator's, in its order.
  """
  group, slash, number = task.rpartition("/")
  return (
    (group, int(number)) if slash and number.isdigit() else (simulator, list(tasks).index(task))
  )


def eval_info(episodes: Sequence[Episode], places: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
  """LeRobot's eval_info.json.

  Our simulators have no reward, so an episode's reward is 1 for success and 0 otherwise.

  Args:
    episodes: in order.
    places: task -> (group, number), in order.
  """
  per_task = []
  for task, (group, number) in places.items():
    mine = [one for one in episodes if one["task"] == task and not one["error"]]
    rewards = [float(one["success"]) for one in mine]
    per_task.append(
      {
        "task_group": group,
        "task_id": number,
        "task": task,
        "metrics": {
          "sum_rewards": rewards,
          "max_rewards": rewards,
          "successes": [bool(one["success"]) for one in mine],
          "seeds": [one["seed"] for one in mine],
          "video_paths": [one["video"] for one in mine if one["video"]],
        },
      }
    )
  # `wall` is the time between ends of episodes, so its sum is right for a resumed run and for any
  # number of workers.
  seconds = sum(one["wall"] for one in episodes)
  groups = {
    group: [row for row in per_task if row["task_group"] == group] for group, _ in places.values()
  }
  return {
    "per_task": per_task,
    "per_group": {group: _aggregate(rows) for group, rows in groups.items()},
    "overall": _aggregate(per_task)
    | {"eval_s": seconds, "eval_ep_s": seconds / max(1, len(episodes))},
  }


def _aggregate(per_task: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  rewards = [value for row in per_task for value in row["metrics"]["sum_rewards"]]
  mean = sum(rewards) / len(rewards) if rewards else None
  return {
    "avg_sum_reward": mean,
    "avg_max_reward": mean,
    "pc_success": 100 * mean if rewards else None,
    "n_episodes": len(rewards),
    "video_paths": [path for row in per_task for path in row["metrics"]["video_paths"]],
  }
