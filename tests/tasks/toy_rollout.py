"""The command line of a rollout over the toy simulator."""

import pathlib

from como_jax import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent.parent


def command(workdir, *, resume=False, overwrite=False, **changes):
  settings = (
    dict(simulator="toy", tasks=("line",), cameras=("side",), image_size=8, episodes=3, seed=90)
    | changes
  )
  words = [
    f"--config={ROOT}/configs/rollout.py",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in settings.items()),
  ]
  return config_lib.parse(["main", *words, *["--resume"] * resume, *["--overwrite"] * overwrite])
