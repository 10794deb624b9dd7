"""An old key is refused with its new name."""

import pytest

from como_jax import config as config_lib
from como_jax import errors


@pytest.mark.parametrize(
  "words, expected",
  [
    (
      ["motion:debug", "--config.model.idm.heads=4"],
      "config key --config.model.idm.heads is unknown: config.model.idm has no 'heads': it was "
      "renamed to 'num_heads'",
    ),
    (
      ["policy:debug", "--config.policy={'guidance': 2.0}"],
      "--config.policy: it has no 'guidance': it was renamed to 'guidance_scale'",
    ),
    (
      ["motion:debug", "--config.model.bottleneck={'kind': 'vq', 'dims': 4}"],
      "config key config.model.bottleneck.dims is unknown: config.model.bottleneck has no 'dims': "
      "it was renamed to 'latent_dim'",
    ),
    (
      ["rollout:debug", "--config.sample_steps=4"],
      "config key --config.sample_steps is unknown: config has no 'sample_steps': it was renamed "
      "to 'num_sampling_steps'",
    ),
    (
      ["serve:debug", "--config.steps=4"],
      "config key --config.steps is unknown: config has no 'steps': it was renamed to "
      "'num_sampling_steps'",
    ),
  ],
)
def test_an_old_key_on_the_command_line_is_refused_with_its_new_name(words, expected):
  with pytest.raises(errors.UserError) as caught:
    config_lib.parse(["main", f"--config={words[0]}", *words[1:]])
  assert str(caught.value) == expected
