"""Demonstrations from scripted experts of a simulator, as a LeRobot v3.0 data set.

Meta-World needs `pip install -r requirements-sim.txt`; the others requirements-libero.txt,
-fetch.txt, -pusht.txt.

python -m como_jax.main --config=configs/collect.py:mini
    the data set that ships: 10 minutes on one busy core
python -m como_jax.main --config=configs/collect.py:pretrain
    all 50 tasks, 3 of 5 views each, for MAE: 15 minutes
python -m como_jax.main --config=configs/collect.py:libero
    2 tasks of LIBERO-Object, 10 episodes each, 2 cameras: 15 minutes
python -m como_jax.main --config=configs/collect.py:fetch
    3 tasks of another arm, 20 episodes each: 3 minutes
python -m como_jax.main --config=configs/collect.py:pusht
    Push-T, 50 episodes: 8 minutes
python -m como_jax.main --config=configs/collect.py:video
    Fetch seen by 4 cameras, without actions: 6 minutes
python -m como_jax.main --config=configs/collect.py:debug
    2 episodes of 2 tasks: under a minute

The minutes are of one core. Experts are scripted, not human demonstrators, and
meta/collection.json says so. Output: --config.output=DIR (default WORKDIR/dataset). Other tasks:
--config.tasks="('reach','push')", () = all.
"""

from como_jax import config as config_lib

MINI_TASKS = (
  "reach",
  "push",
  "pick-place",
  "drawer-open",
  "drawer-close",
  "button-press-topdown",
  "door-open",
  "window-open",
  "window-close",
  "faucet-open",
)


def get_config(arg=None):
  """Variants: mini (default), pretrain, libero, fetch, pusht, video, debug."""
  name = config_lib.variant(
    arg, ("mini", "pretrain", "libero", "fetch", "pusht", "video", "debug"), default="mini"
  )
  config = config_lib.ConfigDict(
    dict(
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
        actions=True,  # False: video alone
        build={},  # further arguments of the simulator's build
      ),
      video=dict(crf=23, gop=10),
    )
  )
  if name == "pretrain":
    config.tasks = ()
    config.workers = 1
    config.collect.update(
      cameras=("corner", "corner2", "corner3", "topview", "gripperPOV"),
      cameras_per_episode=3,
      scenes=tuple(range(12)),
      repeated=0,
      motions=6,
      stride=4,
      seed=1,
    )
    config.video.crf = 20
  elif name == "libero":
    config.tasks = ("libero_object/0", "libero_object/6")
    config.collect.update(
      simulator="libero",
      cameras=("agentview", "robot0_eye_in_hand"),
      scenes=(0,),
      repeated=0,
      motions=10,
      stride=1,
      tail=4,
      noise=0.1,
      speed=(0.7, 1.0),
      wander=(0, 8),
      max_steps=280,
      # not the initial states that are evaluated
      build=dict(initial="sampled"),
    )
  elif name in ("fetch", "video"):
    config.tasks = ("reach", "push", "pick-and-place")
    config.collect.update(
      simulator="fetch",
      cameras=("front", "side"),
      repeated=0,
      motions=20,
      stride=1,
      tail=6,
      noise=0.05,
      speed=(0.4, 0.9),
      wander=(0, 8),
      max_steps=100,
    )
    if name == "video":
      config.collect.update(
        cameras=("front", "side", "corner", "top"), scenes=tuple(range(8)), actions=False, seed=1
      )
  elif name == "pusht":
    config.tasks = ("pusht",)
    config.workers = 1
    config.collect.update(
      simulator="pusht",
      cameras=("top",),
      image_size=96,
      scenes=(0,),
      repeated=0,
      motions=50,
      # noise: pixels
      stride=1,
      tail=5,
      noise=1.0,
      speed=(1.0, 1.0),
      wander=(0, 6),
      max_steps=300,
    )
  elif name == "debug":
    config.tasks = ("reach", "drawer-close")
    config.workers = 1
    config.collect.update(
      image_size=64, motions=1, repeated=1, noise=0.0, wander=(0, 0), speed=(1.0, 1.0)
    )
  return config
