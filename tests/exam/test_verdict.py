"""The sentence of the verdict says no more than its numbers."""

import numpy as np
import pytest

from como_jax.exam import leakage, motion_score, verdict
from como_jax.exam.resampling import Estimate


def score(low, high, withheld=""):
  at = Estimate(0.5, 0.1, low, high)
  return motion_score.Score(at, at, at, at, at, np.zeros(2), 0, 0, withheld, 9)


def read(low, high):
  at = Estimate((low + high) / 2, 0.1, low, high)
  return leakage.Identity(at, at, 0.5, (0, 1), low > leakage.FLAG, "")


@pytest.mark.parametrize(
  "one, identities, word, said",
  [
    (
      score(0.4, 0.6),
      {"scene": read(0.0, 0.05), "camera": read(0.05, 0.3)},
      verdict.MOTION,
      "upper end 0.300: camera",
    ),
    (
      score(0.4, 0.6),
      {"scene": read(0.3, 0.5), "camera": read(0.0, 0.3)},
      verdict.APPEARANCE,
      "scene 0.400 [0.300, 0.500]",
    ),
    (score(-0.1, 0.6), {"scene": read(0.0, 0.05)}, verdict.NOTHING, "does not lie above 0"),
    (score(0.4, 0.6, "too dark"), {"scene": read(0.3, 0.5)}, verdict.WITHHELD, "too dark"),
    (score(0.4, 0.6), {}, verdict.MOTION, "only this was asked"),
  ],
)
def test_sentences_say_no_more_than_their_intervals(one, identities, word, said):
  found, sentence = verdict.conclude(one, identities)
  assert found == word and sentence.startswith(word) and said in sentence


@pytest.mark.parametrize(
  "low, identities, word, said",
  [
    (
      0.25,
      {"scene": read(0.0, 0.05)},
      verdict.APPEARANCE,
      "future picture: z tells 0.600 [0.500, 0.700] of the",
    ),
    (
      0.25,
      {"scene": read(0.3, 0.5)},
      verdict.APPEARANCE,
      "perfect reading; future picture: z tells",
    ),
    (0.15, {"scene": read(0.0, 0.05)}, verdict.MOTION, "no class of appearance"),
    (
      0.15,
      {},
      verdict.MOTION,
      "tells 0.600 [0.500, 0.700] of the second picture, is not shown to know it better",
    ),
  ],
)
def test_a_future_picture_counts_beside_the_classes(low, identities, word, said):
  r2 = leakage.R2(Estimate(0.6, 0.05, 0.5, 0.7), np.zeros(1))
  found, sentence = verdict.conclude(
    score(0.4, 0.6), identities, leakage.PictureLeakage(r2, r2, Estimate(0.3, 0.1, low, 0.4))
  )
  assert found == word and said in sentence
