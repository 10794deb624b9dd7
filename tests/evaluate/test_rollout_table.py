"""The table of a rollout's results."""

from como_jax.evaluate import outcomes, rollout_table
from tests.evaluate.test_outcomes import DIED


def test_the_table_of_results():
  def row(value, count, **more):
    return dict(value=value, low=value / 2, high=1.0, count=count, **more)

  result = {
    "tasks": {
      "reach": row(0.5, 4, steps_to_success=41.6),
      "a long name of a task": row(0.0, 12, steps_to_success=None),
    },
    "overall": {"mean_over_tasks": row(0.25, 16)},
    "errors": [],
  }
  info = {"overall": {"eval_s": 61.4, "eval_ep_s": 3.456}}
  assert rollout_table.text(result, info) == (
    "reach                      50.0 % [25.0, 100.0]      4 episodes, 42 control steps to success\n"
    "a long name of a task        0.0 % [0.0, 100.0]     12 episodes\n"
    "mean over tasks            25.0 % [12.5, 100.0]     16 episodes\n"
    "against another trained policy on as many episodes, 50 points are detected (80 % power, 5 % "
    "two-sided); training recipes need several seeds each\n"
    "61 s, 3.46 s an episode"
  )


def test_a_table_without_any_result():
  assert rollout_table.text(
    outcomes.summary([DIED], ["a"]), outcomes.eval_info([DIED], {"a": ("toy", 0)})
  ) == (
    "1 s, 1.00 s an episode\n1 episodes could not be played and are not counted: --resume tries "
    "them again"
  )
