"""Is it motion?

Measures LP-MSE, S-PCFC, reconstruction against copying, effective rank and transfer across views,
and writes a report page.

python -m como_jax.main --config=configs/probe.py --config.checkpoint=RUN_DIR
    on the data it was trained on
python -m como_jax.main --config=configs/probe.py --config.checkpoint=RUN_DIR --config.data.path=DIR
    on any other
python -m como_jax.main --config=configs/probe.py:exam --config.checkpoint=RUN_DIR
    on pairs whose move no single picture tells
python -m como_jax.main --config=configs/probe.py:exam --config.exam.latents=FILE.npz
    the same for latents of any other model (z [P, Z])
python -m como_jax.main --config=configs/probe.py:exam --config.exam.pairs=True
    the pictures of those pairs, as an .npz

About half a minute on 2 CPU cores for the small model. The untrained model's row is always beside
the trained one's.
"""

import ml_collections

from como_jax import config as config_lib


def get_config(arg=None):
  """Variants: default, exam, debug (few windows)."""
  name = config_lib.variant(arg, ("default", "exam", "debug"), default="default")
  placeholder = ml_collections.config_dict.placeholder
  return config_lib.ConfigDict(
    dict(
      task="probe",
      seed=0,
      checkpoint="",  # run directory or weights folder
      # at most, spread evenly over the held-out episodes of the training run
      windows=64 if name == "debug" else 1_000,
      # at most, of its training episodes: what the probes are fitted on
      fit_windows=96 if name == "debug" else 2_500,
      batch_size=64,
      pictures=8,
      exam=dict(
        on=name == "exam",
        set="bundled",  # or a folder made by configs/exam_set.py
        tier="hand",  # "pushed": the move of an object
        # .npz with "z" [P, Z] of another model, for the pairs in the order of `pairs`
        latents="",
        pairs=False,  # write the pictures of the pairs
      ),
      data=dict(  # None: as in the training run
        path=placeholder(str),
        offset_seconds=placeholder(float),
        cameras=placeholder(tuple),
        validation_fraction=placeholder(float),
        resize=placeholder(str),
        cache=placeholder(str),
        threads=placeholder(int),
      ),
    )
  )
