"""Both stages in one go on bundled data.

Motion model, probe, exam, labels, policy, rollouts in a simulator, one served request, report.

launch/quickstart.sh --workdir DIR
    installs first
python -m como_jax.main --config=configs/quickstart.py --workdir=DIR
    on a machine that has the requirements
python -m como_jax.main --config=configs/quickstart.py:debug
    the same path in a few minutes, with nothing learned
"""

from como_jax import config as config_lib


def get_config(arg=None):
  """Variants: default, debug."""
  name = config_lib.variant(arg, ("default", "debug"), default="default")
  debug = name == "debug"
  return config_lib.ConfigDict(
    dict(
      task="quickstart",
      source="bundled",  # a LeRobot directory or a folder of videos works as well
      ingest="configs/ingest.py:small",
      motion="configs/motion.py:debug" if debug else "configs/motion.py:small",
      probe="configs/probe.py:debug" if debug else "configs/probe.py",
      exam="" if debug else "configs/probe.py:exam",  # "" = left out
      extract="configs/extract.py",
      policy="configs/policy.py:debug" if debug else "configs/policy.py:small",
      rollout="configs/rollout.py",
      steps=3 if debug else 350,  # of the motion model
      policy_steps=3 if debug else 800,
      # of the bundled data: encode every frame once; three steps would see few of them
      cache_tokens=not debug,
      step_seconds=0.05,  # of the policy
      camera="corner4",  # what the policy sees; the data's first one where it has no such camera
      labeled=6,  # demonstrations a task with their actions; the others are video only
      tasks=("reach",)
      if debug
      else ("drawer-close", "button-press-topdown", "window-open", "door-open"),
      episodes=1 if debug else 20,  # a task
    )
  )
