"""A result as text and as JSON."""

import json

import numpy as np

from como_jax.exam import run, table, verdict
from tests.exam import worlds


def test_the_future_picture_is_flagged_and_a_displacement_is_not(made, results):
  exam, pictures, _ = made
  flat = pictures.reshape(-1, pictures.shape[2])
  z = worlds.components(pictures[:, 1:], flat, 24).reshape(-1, 24)
  future = run.evaluate(exam, z, resamples=300)
  assert (
    future.flagged[-1] == verdict.FUTURE and f"{verdict.FUTURE}: z tells 0.9" in future.sentence
  )
  row = future.row()
  assert (
    row["future/second"] > 0.9 and row["future/gap_low"] > 0.1 and row["future/first_high"] < 0.9
  )
  assert f"{future.future.gap}  READABLE" in table.text(future) and "picture told" in table.text(
    future
  )
  assert results["motion"].future.second.total.value < 0.4 and not results["motion"].flagged
  assert results["first"].future.gap.high < 0 and verdict.FUTURE not in results["first"].flagged
  assert (
    results["both"].future.first.total.low > 0.7 and verdict.FUTURE not in results["both"].flagged
  )


def test_constant_latents_get_nothing(made):
  exam, _, _ = made
  result = run.evaluate(exam, np.ones((exam.pairs, 3)), resamples=300)
  assert (
    result.verdict == verdict.NOTHING and 0.9 < result.score.z.value <= 1 and not result.flagged
  )
  assert json.dumps(table.to_json(result), allow_nan=False) and table.text(result)
