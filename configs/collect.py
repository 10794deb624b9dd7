"""Demonstrations from Meta-World's scripted experts, as a LeRobot v3.0 data set.

Needs `pip install -r requirements-sim.txt`.
python -m como_jax.main --config=configs/collect.py:mini       the data set that ships: 10 minutes on one busy core
python -m como_jax.main --config=configs/collect.py:pretrain   all 50 tasks, 3 of 5 views each, for MAE: 15 minutes
python -m como_jax.main --config=configs/collect.py:debug      2 episodes of 2 tasks: under a minute
Output: --config.output=DIR (default WORKDIR/dataset). Other tasks: --config.tasks="('reach','push')", () = all.
"""

from como_jax import config as config_lib

MINI_TASKS = ("reach", "push", "pick-place", "drawer-open", "drawer-close", "button-press-topdown", "door-open",
              "window-open", "window-close", "faucet-open")


def get_config(arg=None):
  """Variants: mini (default), pretrain, debug."""
  name = config_lib.variant(arg, ("mini", "pretrain", "debug"), default="mini")
  config = config_lib.ConfigDict(dict(
      task="collect",
      output="",  # "" = WORKDIR/dataset
      tasks=MINI_TASKS,
      workers=2,  # processes
      collect=dict(  # como_jax/sim/collect.py: Settings
          simulator="metaworld",
          cameras=("corner4", "corner"),
          cameras_per_episode=0,
          image_size=128,
          scenes=(0, 1),
          repeated=3,
          motions=12,
          stride=2,  # 80 control steps a second -> 40 frames a second
          tail=8,
          noise=0.15,
          correlation=0.8,
          speed=(0.5, 1.0),
          wander=(0, 24),
          max_steps=400,
          attempts=4,
          seed=0,
      ),
      video=dict(crf=23, gop=10),
  ))
  if name == "pretrain":
    config.tasks = ()
    config.workers = 1
    config.collect.update(cameras=("corner", "corner2", "corner3", "topview", "gripperPOV"), cameras_per_episode=3,
                          scenes=tuple(range(12)), repeated=0, motions=6, stride=4, seed=1)
    config.video.crf = 20
  elif name == "debug":
    config.tasks = ("reach", "drawer-close")
    config.workers = 1
    config.collect.update(image_size=64, motions=1, repeated=1, noise=0.0, wander=(0, 0), speed=(1.0, 1.0))
  return config
