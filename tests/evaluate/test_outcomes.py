"""Results of a rollout by hand: what counts, what is averaged, in which order, and LeRobot's
layout.
"""

import pytest

from como_jax.evaluate import outcomes, success

TASKS = ("push", "suite/3", "pull")

# an episode that could not be played
DIED = {
  "task": "a",
  "episode": 0,
  "seed": 0,
  "success": False,
  "steps": 0,
  "wall": 1.0,
  "video": "",
  "error": "died",
}


def episode(task, number, won, *, steps=10, error="", video="", wall=2.0):
  return {
    "task": task,
    "episode": number,
    "seed": 70 + number,
    "success": won,
    "steps": steps,
    "error": error,
    "video": video,
    "wall": wall,
  }


EPISODES = [
  episode("push", 0, True, steps=6, video="a.mp4"),
  episode("push", 1, False, steps=50),
  episode("push", 2, True, steps=9),
  episode("push", 3, True, steps=1000, error="unstable"),
  episode("suite/3", 0, False, steps=40, wall=5.5),
]


def test_episodes_with_an_error_are_counted_and_never_averaged():
  assert outcomes.counts(EPISODES, TASKS) == {"push": (2, 3), "suite/3": (0, 1)}
  found = outcomes.summary(EPISODES, TASKS)
  assert list(found["tasks"]) == ["push", "suite/3"]
  assert (
    found["tasks"]["push"]["steps_to_success"] == 7.5
    and found["tasks"]["suite/3"]["steps_to_success"] is None
  )
  assert (found["tasks"]["push"]["successes"], found["tasks"]["push"]["value"]) == (
    2,
    pytest.approx(2 / 3),
  )
  assert found["tasks"]["push"]["low"] == success.rate(2, 3).low
  assert found["overall"]["pooled"] == success.rate(2, 4).to_json()
  assert found["overall"]["mean_over_tasks"]["value"] == pytest.approx((2 / 3 + 0) / 2)
  assert found["errors"] == [{"task": "push", "episode": 3, "seed": 73, "error": "unstable"}]


def test_an_episode_played_again_counts_once_and_tasks_keep_their_order():
  again = episode("push", 3, False)
  found = outcomes.ordered([EPISODES[4], EPISODES[3], EPISODES[1], again, EPISODES[0]], TASKS)
  assert [(one["task"], one["episode"]) for one in found] == [
    ("push", 0),
    ("push", 1),
    ("push", 3),
    ("suite/3", 0),
  ]
  assert found[2] is again


@pytest.mark.parametrize(
  "task, expected",
  [("suite/3", ("suite", 3)), ("a/b/12", ("a/b", 12)), ("pull", ("toy", 2)), ("push", ("toy", 0))],
)
def test_places(task, expected):
  assert outcomes.place(task, "toy", TASKS) == expected


def test_lerobots_layout():
  info = outcomes.eval_info(
    EPISODES, {task: outcomes.place(task, "toy", TASKS) for task in ("push", "suite/3")}
  )
  assert info["per_task"][0] == {
    "task_group": "toy",
    "task_id": 0,
    "task": "push",
    "metrics": {
      "sum_rewards": [1.0, 0.0, 1.0],
      "max_rewards": [1.0, 0.0, 1.0],
      "successes": [True, False, True],
      "seeds": [70, 71, 72],
      "video_paths": ["a.mp4"],
    },
  }
  assert (
    info["per_group"]["toy"]["pc_success"] == pytest.approx(200 / 3)
    and info["per_group"]["suite"]["pc_success"] == 0
  )
  assert info["overall"] == {
    "avg_sum_reward": 0.5,
    "avg_max_reward": 0.5,
    "pc_success": 50.0,
    "n_episodes": 4,
    "video_paths": ["a.mp4"],
    "eval_s": 13.5,
    "eval_ep_s": 13.5 / 5,
  }
  assert outcomes.eval_info([], {"push": ("toy", 0)})["overall"]["pc_success"] is None


def test_rollouts_that_are_odd():
  assert outcomes.place("suite/x", "toy", ["suite/x"]) == ("toy", 0) and outcomes.place(
    "7", "toy", ["a", "7"]
  ) == ("toy", 1)
  empty = outcomes.summary([], ["a"])
  assert empty == {"tasks": {}, "overall": None, "errors": []}
  info = outcomes.eval_info([], {})
  assert info["per_task"] == [] and info["overall"] == {
    "avg_sum_reward": None,
    "avg_max_reward": None,
    "pc_success": None,
    "n_episodes": 0,
    "video_paths": [],
    "eval_s": 0,
    "eval_ep_s": 0,
  }


def test_no_result_at_all_has_no_rate():
  errors = [{"task": "a", "episode": 0, "seed": 0, "error": "died"}]
  assert outcomes.summary([DIED], ["a"]) == {"tasks": {}, "overall": None, "errors": errors}
  assert outcomes.eval_info([DIED], {"a": ("toy", 0)})["overall"]["pc_success"] is None
