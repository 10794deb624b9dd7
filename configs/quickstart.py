"""The first ten minutes: ingest the bundled data, train the small motion model on it, probe it, write the report.

launch/quickstart.sh --workdir DIR                                     installs first
python -m como_jax.main --config=configs/quickstart.py --workdir=DIR   on a machine that has the requirements
python -m como_jax.main --config=configs/quickstart.py:debug           the same path in a minute or two, with nothing learnt
"""

from como_jax import config as config_lib


def get_config(arg=None):
  """Variants: default, debug."""
  name = config_lib.variant(arg, ("default", "debug"), default="default")
  debug = name == "debug"
  return config_lib.ConfigDict(dict(
      task="quickstart",
      source="bundled",  # a LeRobot directory or a folder of videos works as well
      motion="configs/motion.py:debug" if debug else "configs/motion.py:small",
      probe="configs/probe.py:debug" if debug else "configs/probe.py",
      ingest="configs/ingest.py:small",
      steps=3 if debug else 350,
  ))
