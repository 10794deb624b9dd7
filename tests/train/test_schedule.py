"""The steps at which a run saves and evaluates."""

from como_jax.train import schedule


def due(when):
  return [step for step in range(10) if when(step)]


def test_steps_of_checkpoints_and_evaluations():
  both = schedule.Schedule(steps=8, log_every=1, checkpoint_every=3, evaluate_every=5)
  assert due(both.saves_at) == [3, 6, 9]
  assert due(both.evaluates_at) == [5, 8, 9]
  neither = schedule.Schedule(steps=8, log_every=1, checkpoint_every=0)
  assert (due(neither.saves_at), due(neither.evaluates_at)) == ([], [8, 9])
