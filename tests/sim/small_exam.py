"""A small exam that is only drawn."""

from como_jax.sim import exam_design, exam_draws

SETTINGS = exam_design.Settings(
  seed=3,
  image_size=64,
  quality=(24, 24),
  fit_chains=1_500,
  fit_views=1,
  test_chains=20,
  more_test_chains=6,
  pushed_fit_chains=800,
  pushed_test_chains=5,
  fit_scenes=(101, 102, 103),
  test_scenes=(111, 112),
  objects=4,
  palettes=3,
)
DESIGN = exam_draws.draw(SETTINGS)
