"""What a rule takes, and how it says so."""

import pytest

from como_jax.settings import rules


@pytest.mark.parametrize(
  "rule, held, refused, words",
  [
    (rules.whole(0, also=-1), (0, 7, -1), (-2, True, 1.5, None), "a whole number of at least 0"),
    (rules.FRACTION, (0, 0.9), (1.0, -0.1, float("nan")), "a number of at least 0 and below 1"),
    (rules.choice("a", "b"), ("a",), ("c", 1), "one of 'a', 'b'"),
    (rules.number(above=0, optional=True), (None, 0.1), (0.0,), "a number above 0, or None"),
    (
      rules.number(0, 1, several=True, count=2),
      ((), (0.2, 0.9), (0, 0)),
      ((0.9, 0.2), (0.1,), (0.1, 2.0), [0.1, 0.2], 0.5),
      "numbers (2 in rising order, () for none), for example (0.5, 1.0); each at least 0 and",
    ),
    (rules.Rule(str, several=True, filled=True), (("a",),), ((), "a"), "texts (at least one)"),
  ],
)
def test_what_holds_and_what_is_expected(rule, held, refused, words):
  assert all(map(rule.holds, held)) and not any(map(rule.holds, refused))
  assert words in str(rule)
