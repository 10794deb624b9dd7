"""Values as they are plainly meant."""

from como_jax import config as config_lib


def test_what_is_plainly_meant_is_taken(ends):
  def parse(*words):
    return config_lib.parse(["main", *words]).config

  config = parse(
    "--config=policy:debug",
    "--config.data.mixture=({'path': 'bundled', 'robot': 'r', 'cameras': "
    "'observation.images.top', 'tasks': 'wave', 'weight': 2},)",
    "--config.data.cameras=observation.images.wrist",
    "--config.train.ema=0",
    "--config.data.augment.crop.scale=(1, 1)",
  )
  assert dict(config.data.mixture[0]) == {
    "path": "bundled",
    "robot": "r",
    "cameras": ("top",),
    "tasks": ("wave",),
    "weight": 2.0,
  }
  assert (
    config.data.cameras == ("wrist",)
    and config.data.augment.crop.scale == (1.0, 1.0)
    and type(config.train.ema) is float
  )
  assert (
    ends(
      "--config=policy:debug",
      "--config.data.mixture=({'path': 'bundled', 'robot': 'r', 'cameras': 'corner', "
      "'episodes': [0, 2]},)",
    )
    is None
  )
  assert (
    parse(
      "--config=extract", "--config.data.path=None", "--config.offset_seconds=0.2"
    ).offset_seconds
    == 0.2
  )
  assert (
    parse(
      "--config=motion:debug", "--config.model.remat=none", "--config.train.frozen=()"
    ).train.frozen
    == ()
  )
