"""Makes the exam that the probe takes (configs/probe.py:exam).

It holds pictures of moves that neither picture of a pair tells. Needs
`pip install -r requirements-sim.txt`.

python -m como_jax.main --config=configs/exam_set.py --workdir=DIR
    the set that ships: 40 minutes on 2 cores
python -m como_jax.main --config=configs/exam_set.py:large --workdir=DIR
    the same with three times the moves to fit on
python -m como_jax.main --config=configs/exam_set.py:debug --workdir=DIR
    a few moves: a minute
"""

from como_jax import config as config_lib


def get_config(arg=None):
  """Variants: default, large, debug."""
  name = config_lib.variant(arg, ("default", "large", "debug"), default="default")
  config = config_lib.ConfigDict(
    dict(
      task="exam_set",
      seed=0,
      # of the network that sees both pictures; como_jax/evaluate/exam_controls.py has the
      # other networks' shares
      control_steps=1_000,
      exam=dict(  # como_jax/sim/exam_design.py: Settings
        seed=0,
        image_size=128,
        quality=(22, 27),  # H.264 of the two tiers
        fit_chains=2_000,
        fit_views=1,
        test_chains=100,
        more_test_chains=200,
        pushed_fit_chains=450,
        pushed_test_chains=50,
        # none of those that the encoder has seen
        fit_scenes=(101, 102, 103, 104, 105, 106),
        test_scenes=(111, 112, 113),
        objects=5,
        palettes=6,
      ),
    )
  )
  if name == "large":
    config.exam.update(fit_chains=6_000, pushed_fit_chains=1_350)
  elif name == "debug":
    config.control_steps = 20
    config.exam.update(
      image_size=64,
      fit_chains=60,
      test_chains=8,
      more_test_chains=4,
      pushed_fit_chains=60,
      pushed_test_chains=8,
    )
  return config
