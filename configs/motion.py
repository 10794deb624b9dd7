r"""The motion model (CoMo stage 1).

An inverse dynamics model turns two frames into a continuous latent motion z; a forward dynamics
model predicts the second frame from the first and z.

python -m como_jax.main --config=configs/motion.py --config.data.path=DIR \
    --config.encoder_weights=MAE_DIR
    ViT-L/16 at 224 px, batch 256, 50k steps (arXiv 2505.17006): accelerators; convert
    facebook/vit-mae-large first.
python -m como_jax.main --config=configs/motion.py:fast --config.data.path=DIR \
    --config.encoder_weights=MAE_DIR
    the same model and number of pairs in clips of 8 frames, whose pairs share encoded frames; Tcl
    reads one drawn pair of each clip: 341 instead of 655 GFLOP a pair
python -m como_jax.main --config=configs/motion.py:small
    64 px, the shipped encoder, bundled data: minutes on 2 CPU cores
python -m como_jax.main --config=configs/motion.py:debug
    3 steps of that model, with a smaller batch and without the linear path: under a minute

Beside its size, `small` has one part that CoMo has not, the linear path: z starts as principal
components of the optical flow between the frames (path=flow; small's default) or of the feature
difference (path=features), and the Q-former adds to it. path=none leaves it out.

Options, after the variant, as in --config=configs/motion.py:small,inputs=none,tcl=off,path=none
    inputs      what the Q-former reads of a pair: feature_diff (default), rgb_diff,
                none (no difference: both frames), future (the second frame alone)
    bottleneck  continuous (default), vq, pre_vq, kl
    tcl         temporal contrastive loss: on (default), off
    path        none, features, flow
The linear path in another size; with large encoders also pool their patches, which saves memory:
    --config.model.idm.components=32 --config.model.idm.components_pool=2
The linear path frozen:
    --config.train.frozen="('encoder/.*','idm/components/.*')"
Small data, cheaper steps:
    --config.train.cache_tokens=True --config.data.augment.shift.on=False
Every number can be changed:
    --config.model.bottleneck.latent_dim=32 --config.data.offset_seconds=0.2 \
    --config.train.steps=2000
Train the encoder too (this replaces the default "('encoder/.*',)"):
    --config.train.frozen="('encoder/position',)"
"""

from como_jax import config as config_lib
from como_jax import model_presets

OPTIONS = dict(
  inputs=("feature_diff", "rgb_diff", "none", "future"),
  bottleneck=("continuous", "vq", "pre_vq", "kl"),
  tcl=("on", "off"),
  path=("none", "features", "flow"),
)


def get_config(arg=None):
  """Variants: published (default), fast, small, debug; then options."""
  name, chosen = config_lib.arguments(
    arg, variants=("published", "fast", "small", "debug"), options=OPTIONS
  )
  published = name in ("published", "fast")
  kind = chosen.get("bottleneck", "continuous")
  model = model_presets.preset("motion", name if published else "debug")
  model["idm"]["inputs"] = chosen.get("inputs", "feature_diff")
  if kind != "continuous":
    model["bottleneck"] = dict(kind=kind, latent_dim=32 if published else 8)
  # only these allow a linear path
  allows_path = model["idm"]["inputs"] in ("feature_diff", "none") and kind in ("continuous", "kl")
  path = chosen.get("path", "flow" if name == "small" and allows_path else "none")
  if path != "none":
    model["idm"].update(
      components=model["idm"]["num_queries"] * model["bottleneck"]["latent_dim"], components_of=path
    )
  if kind in ("vq", "pre_vq"):
    model["bottleneck"]["num_codes"] = 128  # as in Moto
  config = config_lib.ConfigDict(
    dict(
      task="motion",
      seed=0,
      model=model,
      # a weights folder or run directory; "" = random, which is not CoMo
      encoder_weights="" if published else "bundled",
      objectives=dict(
        reconstruction=dict(weight=1.0),
        contrastive=dict(
          weight=0.004 if chosen.get("tcl", "on") == "on" else 0.0,
          temperature=0.1,
          # smallest share of pixels that must move in a pair, e.g. 0.001; 0 = every pair counts
          gate=0.0,
          # of the pairs, drawn afresh in every step; 1 = all
          fraction=1.0,
        ),
        # LPIPS; off without a weights file. stop_target: no backward pass into the target's half
        perceptual=dict(
          weight=1.0,
          weights_path="",  # LPIPS; off without a weights file
          dtype="float32",
          stop_target=False,
        ),
        features=dict(weight=0.0),  # needs --config.model.fdm.features=direct or residual
      ),
    )
  )
  if kind in ("vq", "pre_vq"):
    config.objectives.quantization = dict(weight=1.0, weighting="legacy", beta=0.25)
  if kind == "kl":
    config.objectives.kl = dict(weight=2e-4)  # AdaWorld's beta
  config.data = config_lib.data(image_size=config.model.image_size)
  config.train = config_lib.train()  # its defaults are the published values
  # encode every frame once and keep its tokens in memory: small data, a frozen encoder, no
  # augmentation
  config.train.cache_tokens = False
  config.evaluation = dict(windows=512 if published else 256, batch_size=64)
  if not published:
    config_lib.changed(config.data, dict(offset_seconds=0.15, frames=4, validation_fraction=0.2))
    config_lib.changed(
      config.train,
      dict(
        batch_size=16,
        steps=2_000,
        optimizer__learning_rate=1e-3,  # a double underscore stands for a dot
        log_every=10,
        evaluate_every=100,
        checkpoint_every=50,
      ),
    )
  if name == "fast":
    config_lib.changed(config.data, dict(frames=8))
    # 7 pairs of each clip: 224 instead of 256 pairs a step, and as many pairs in all
    config_lib.changed(config.train, dict(batch_size=32, steps=57_143))
    config_lib.changed(
      config.objectives,
      dict(contrastive__fraction=1 / 7, perceptual__dtype="bfloat16", perceptual__stop_target=True),
    )
  if name == "debug":
    config_lib.changed(config.data, dict(frames=3))
    config_lib.changed(config.train, dict(batch_size=8, steps=3, log_every=1))
    config.evaluation = dict(windows=16, batch_size=8)
  return config
