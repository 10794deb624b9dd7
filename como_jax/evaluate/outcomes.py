"""Results of a rollout: success by task and over tasks, and LeRobot's eval_info.json.

An episode is a dict, one line of episodes.jsonl, with the keys:
  "task" (str), "episode", "seed", "scene" (int).
  "initial_state" (int): -1: sampled from the seed.
  "success" (bool).
  "steps": control steps, at most "max_steps".
  "plans": requests to the policy.
  "seconds": time of the simulator.
  "wall": seconds since the end of the previous episode.
  "video": path or "".
  "error": text or "".

Episodes with an error have no result: they are counted, but they are in no average.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from como_jax.evaluate import success

Episode = Mapping[str, Any]


def ordered(episodes: Sequence[Episode], tasks: Sequence[str]) -> list[Episode]:
  """Sorts episodes by task, then by number.

  If an episode was played twice (again after an error), the later one is used.
  """
  latest = {(episode["task"], episode["episode"]): episode for episode in episodes}
  return sorted(
    latest.values(), key=lambda episode: (tasks.index(episode["task"]), episode["episode"])
  )


def counts(episodes: Sequence[Episode], tasks: Sequence[str]) -> dict[str, tuple[int, int]]:
  """Task -> (successes, episodes with a result); tasks without a result are left out."""
  valid = [episode for episode in episodes if not episode["error"]]
  by_task = {
    task: [episode["success"] for episode in valid if episode["task"] == task] for task in tasks
  }
  return {task: (sum(values), len(values)) for task, values in by_task.items() if values}


def summary(episodes: Sequence[Episode], tasks: Sequence[str]) -> dict[str, Any]:
  """Summarizes the episodes of a rollout.

  Returns:
    A dict with the keys
      "tasks": task -> success rate, Wilson limits, mean steps of the successful episodes.
      "overall": mean over tasks with its stratified interval, and the rate over all episodes;
        None without results.
      "errors": the episodes without a result.
  """
  counts_by_task = counts(episodes, tasks)
  rows = {}
  for task, (successes, number) in counts_by_task.items():
    steps = [
      episode["steps"]
      for episode in episodes
      if episode["task"] == task and episode["success"] and not episode["error"]
    ]
    rows[task] = {
      "successes": successes,
      **success.rate(successes, number).to_json(),
      "steps_to_success": sum(steps) / len(steps) if steps else None,
    }
  overall = None
  if counts_by_task:
    pooled = success.rate(
      sum(a for a, _ in counts_by_task.values()), sum(n for _, n in counts_by_task.values())
    )
    overall = {
      "mean_over_tasks": success.mean_over_tasks(counts_by_task).to_json(),
      "pooled": pooled.to_json(),
    }
  errors = [
    {key: episode[key] for key in ("task", "episode", "seed", "error")}
    for episode in episodes
    if episode["error"]
  ]
  return {"tasks": rows, "overall": overall, "errors": errors}


def place(task: str, simulator: str, tasks: Sequence[str]) -> tuple[str, int]:
  """The (group, number in the group) of a task.

  For example, "libero_10/3" is number 3 of group "libero_10". Tasks without a group have the
  simulator as group, and are numbered by their order in it.

  Args:
    task: a task of the simulator.
    simulator: name of the simulator.
    tasks: all tasks of the simulator, in order.
  """
  group, slash, number = task.rpartition("/")
  return (
    (group, int(number)) if slash and number.isdigit() else (simulator, list(tasks).index(task))
  )


def eval_info(episodes: Sequence[Episode], places: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
  """The content of LeRobot's eval_info.json.

  The simulators have no reward, so the reward of an episode is 1 for success and 0 otherwise.

  Args:
    episodes: in order.
    places: task -> (group, number), in order.
  """
  per_task = []
  for task, (group, number) in places.items():
    task_episodes = [
      episode for episode in episodes if episode["task"] == task and not episode["error"]
    ]
    rewards = [float(episode["success"]) for episode in task_episodes]
    per_task.append(
      {
        "task_group": group,
        "task_id": number,
        "task": task,
        "metrics": {
          "sum_rewards": rewards,
          "max_rewards": rewards,
          "successes": [bool(episode["success"]) for episode in task_episodes],
          "seeds": [episode["seed"] for episode in task_episodes],
          "video_paths": [episode["video"] for episode in task_episodes if episode["video"]],
        },
      }
    )
  # "wall" is the time between the ends of episodes, so the sum is right for resumed runs and for
  # any number of workers.
  seconds = sum(episode["wall"] for episode in episodes)
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
    "pc_success": None if mean is None else 100 * mean,
    "n_episodes": len(rewards),
    "video_paths": [path for row in per_task for path in row["metrics"]["video_paths"]],
  }
