"""Masked-autoencoder pretraining of the frozen image encoder, on any source.

It adapts an encoder to your own video.

python -m como_jax.main --config=configs/mae.py --config.data.path=DIR
    ViT-L/16, 224 px (accelerators)
python -m como_jax.main --config=configs/mae.py:debug
    3 steps of the tiny encoder, bundled data, a minute
python -m como_jax.main --config=configs/mae.py:tiny --config.data.path=DIR
    the shipped encoder's recipe (its card has the curves)
"""

from como_jax import config as config_lib
from como_jax import model_presets


def get_config(arg=None):
  """Variants: L (default), B, S, tiny, debug."""
  name = config_lib.variant(arg, ("L", "B", "S", "tiny", "debug"), default="L")
  size = {"L": "L/16", "B": "B/16", "S": "S/16", "tiny": "debug/8", "debug": "debug/8"}[name]
  small = name in ("tiny", "debug")
  model = model_presets.preset("mae", "debug" if small else "published")
  model["encoder"]["size"] = size
  config = config_lib.ConfigDict(
    dict(
      task="mae",
      seed=0,
      model=model,
      objectives=dict(mae=dict(weight=1.0)),
      encoder_weights="",  # start from another encoder: a folder, or "bundled"
    )
  )
  config.data = config_lib.data(
    image_size=config.model.image_size,
    frames=1,
    augment__shift__on=False,
    augment__crop__on=True,
    augment__crop__scale=(0.4, 1.0),
    augment__flip__on=True,
  )
  # He et al. 2022: AdamW, betas (0.9, 0.95), base rate 1.5e-4 for 256 images, cosine, weight decay
  # 0.05.
  config.train = config_lib.train(
    batch_size=4096,
    steps=100_000,
    optimizer__name="adamw",
    optimizer__learning_rate=2.4e-3,
    optimizer__b2=0.95,
    optimizer__weight_decay=0.05,
    optimizer__clip_norm=0.0,
    optimizer__schedule="cosine",
    optimizer__floor=0.0,
    optimizer__warmup_steps=5_000,
  )
  if small:
    # as the small motion configs: what they hold out, the encoder has not seen either
    config.data.validation_fraction = 0.2
    config_lib.changed(
      config.train,
      dict(
        batch_size=192,
        steps=4_000,
        optimizer__learning_rate=1.5e-3,
        optimizer__warmup_steps=200,
        evaluate_every=500,
        checkpoint_every=500,
      ),
    )
  if name == "debug":
    config_lib.changed(
      config.train, dict(batch_size=16, steps=3, log_every=1, optimizer__warmup_steps=1)
    )
  return config
