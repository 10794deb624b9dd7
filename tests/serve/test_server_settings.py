"""Settings of the policy server: their ranges, and those of the config."""

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.serve import server, server_settings
from tests.serve import fake, test_server


@pytest.mark.parametrize(
  "settings, message",
  [
    ({"port": 70_000}, "config.port=70000"),
    ({"batch_size": 0}, "config.batch_size=0"),
    ({"batch_wait_ms": -1.0}, "batch_wait_ms"),
    ({"max_connections": 0}, "max_connections"),
    ({"preset": "libreo"}, "did you mean 'libero'"),
    ({"cameras": ("image",)}, "2 camera"),
    ({"host": "no.such.host.invalid"}, "config.host"),
  ],
)
def test_settings_out_of_range(settings, message):
  with pytest.raises(errors.UserError, match=message), fake.serving(fake.Policy(), **settings):
    pass


@pytest.mark.parametrize(
  "name, least, most",
  [
    ("port", 0, 65_535),
    ("batch_size", 1, 1024),
    ("batch_wait_ms", 0, 10_000),
    ("max_connections", 1, 10_000),
    ("max_frame_bytes", 1024, 2**30),
    ("max_bad_messages", 1, 10_000),
    ("seed", 0, 2**31 - 1),
  ],
)
def test_the_ends_of_the_ranges_belong_to_them(name, least, most):
  for value in (least, most):
    assert getattr(server.Settings(**{"preset": "libero", name: value}), name) == value
  for value in (least - 1, most + 1):
    with pytest.raises(
      errors.UserError, match=f"^config.{name}={value}, expected {least} to {most}$"
    ):
      server.Settings(**{"preset": "libero", name: value})


def test_settings_are_those_of_the_config_unless_given():
  config = config_lib.parse(["main", f"--config={test_server.ROOT}/configs/serve.py"]).config
  assert server.Settings() == server_settings.from_config(config)
  words = ["main", "--config=serve:debug", "--config.cameras=('wrist_image','image')"]
  settings = server_settings.from_config(config_lib.parse(words).config)
  assert settings.port == 0 and settings.cameras == ("wrist_image", "image")
