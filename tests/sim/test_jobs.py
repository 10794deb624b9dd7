"""Episodes to play: what is usual, and the control steps of a policy step."""

from como_jax.sim import vector
from tests.sim.episodes import job

# 20 control steps a second: stride 2
SETTINGS = vector.Settings(cameras=("front", "side"), image_size=8, step_seconds=0.1)


def test_stride_is_the_nearest_number_of_control_steps():
  assert [vector.Settings((), 8, s).stride(80.0) for s in (0.0, 0.025, 0.05, 0.04)] == [1, 2, 4, 3]


def test_what_is_usual():
  assert (SETTINGS.history, SETTINGS.max_steps, SETTINGS.timeout) == (1, 0, 300.0)
  assert (job().scene, job().actor, job().record) == (0, "policy", False)
  assert vector.Outcome(job(), error="x") == vector.Outcome(
    job(), False, 0, 0, 0, 0.0, -1, None, 0.0, "x"
  )
