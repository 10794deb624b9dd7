"""Metrics and their explanations."""

from como_jax.report import explain


def test_a_value_may_have_a_standard_error():
  assert explain.value_of(3) == (3.0, None)
  assert explain.value_of((1, 2)) == (1.0, 2.0)
  assert explain.value_of([1]) == explain.value_of((1, None)) == (1.0, None)


def test_every_metric_is_explained_for_the_actions_and_for_the_states():
  assert all(metric.title and metric.reading for metric in explain.METRICS.values())
  assert {metric.better for metric in explain.METRICS.values()} == {"lower", "higher", ""}
  assert not any("{" in metric.title + metric.reading for metric in explain.METRICS.values())
  action, state = explain.METRICS["lp_mse"], explain.METRICS["state_lp_mse"]
  assert "action" in action.reading and action.reading != state.reading
