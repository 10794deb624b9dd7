"""Changes of shared sections by config files."""

import pytest

from como_jax import config, errors


def test_a_key_inside_a_section_is_written_with_double_underscores():
  section = config.train(steps=7, optimizer__b2=0.5, frozen=("a",))
  assert (section.steps, section.optimizer.b2, section.frozen) == (7, 0.5, ("a",))


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"stepz": 1}, "^config key 'stepz' is unknown: did you mean 'steps'"),
    ({"optimizer__b3": 1}, "^config key 'optimizer__b3' is unknown: did you mean 'b[12]'"),
    ({"steps__x": 1}, "^config key 'steps__x' is unknown: 'steps' is not a section$"),
  ],
)
def test_a_wrong_key_is_named(changes, message):
  with pytest.raises(errors.UserError, match=message):
    config.train(**changes)
