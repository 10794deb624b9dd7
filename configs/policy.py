"""The policy (CoMo stage 2).

One trunk is trained on robot actions and on the latent motion of videos together.

python -m como_jax.main --config=configs/policy.py --config.data.mixture="(
    {'path': ROBOT_DATA, 'robot': 'panda', 'weight': 1.0},
    {'path': VIDEOS, 'labels': LABELS, 'weight': 1.0})"
    DiT, ViT-L/16 at 224 px, two cameras, batch 256: accelerators. LABELS come from
    configs/extract.py.
python -m como_jax.main --config=configs/policy.py:small --config.data.path=SHARDS
    64 px, minutes on 2 CPU cores
python -m como_jax.main --config=configs/policy.py:debug
    3 steps of it: under a minute

After the variant: policy=dit|gpt, objective=flow|ddpm (of DiT), motion=regression|gmm|diffusion
(head of GPT), for example
    --config=configs/policy.py:small,policy=gpt,motion=gmm

An entry of the mixture holds
    path      a data set
    weight    its share of the batches
    robot     a name: its actions are used; "": video only
    labels    a folder written by configs/extract.py
    cameras   those that fill the policy's camera slots
    views     "together", or "each": every camera is an example of its own
    episodes  first, last: a range of episodes within each task
    tasks     instructions; all by default
    name      in messages and metrics
Without a mixture, data.path is one robot's data.

Start from a motion model's encoder with --config.encoder_weights=RUN, from a policy with
--config.init=RUN (a robot that it does not know gets a new head). With --config.train.steps=0 as
well, nothing is trained: the policy is scored on the held-out episodes of the data.
"""

from como_jax import config as config_lib
from como_jax import model_presets

OPTIONS = dict(
  policy=("dit", "gpt"), objective=("flow", "ddpm"), motion=("regression", "gmm", "diffusion")
)


def get_config(arg=None):
  """Variants: published (default), small, debug; then options."""
  name, chosen = config_lib.arguments(
    arg, variants=("published", "small", "debug"), options=OPTIONS
  )
  published = name == "published"
  kind = chosen.get("policy", "dit")
  model = model_presets.preset(
    "policy", ("published" if published else "debug") + ("_gpt" if kind == "gpt" else "")
  )
  if "objective" in chosen and kind == "dit":
    model["dit"]["objective"] = chosen["objective"]
  if "motion" in chosen and kind == "gpt":
    model["gpt"]["motion_head"] = chosen["motion"]
  config = config_lib.ConfigDict(
    dict(
      task="policy",
      seed=0,
      model=model,
      # a policy's run directory or weights folder: everything but heads of new robots starts from
      # it
      init="",
      # a weights folder or run directory; "" = random
      encoder_weights="" if published else "bundled",
      policy=dict(
        robot="robot",  # name of the robot of data.path
        step_seconds=0.0,  # time between two elements of a chunk; 0 = the robot data's own rate
        reduce="mean",  # of the stored actions within a step: mean | first | last
        # names of the camera slots; () = those of the first robot's entry, one for views "each"
        cameras=(),
        normalization="standard",  # or quantile
        # of its rows: those of the examples, or "kept": those of whole data sets, made at ingest
        statistics="examples",
        # Action dimensions that take two values: decoded as one of the two, and classified by
        # policy=gpt. ("auto",) = those that do in the data; () = none; or names or numbers of
        # actions, which are refused where they have more values.
        gripper=("auto",),
        # encode every frame once and keep its tokens in memory: small data, no augmentation, a
        # frozen encoder
        cache_tokens=False,
        guidance_scale=1.0,  # weight of the instruction when acting; 1 = none
        # Each is a mean over the rows of a batch that have such a target: the mixture decides how
        # many those are, only these how much they count. Moto weighs 100 x arm + gripper +
        # motion, as its arm's error is of raw actions in -1..1 and small. Ours is of actions with
        # a variance of 1, where all three terms begin between 0.3 and 1: so 1 : 1 : 1. The
        # published GPT has Moto's 100 in model.gpt.action_weight. "gripper" is a term of
        # policy=gpt alone, where the data have grippers.
        objectives=dict(action=dict(weight=1.0), latent=dict(weight=1.0), gripper=dict(weight=1.0)),
      ),
      language=dict(
        kind="minilm" if name != "debug" else "hash",
        weights="",
        pooled=True,
        num_tokens=16,
        width=64,
        dtype="float32",
      ),
    )
  )
  section = config_lib.data(image_size=model["image_size"])
  for unused in ("frames", "offset_seconds"):
    del section[unused]
  section.labels = ""  # a label folder for data.path
  config.data = section
  config.train = config_lib.train(
    optimizer__name="adamw",
    optimizer__schedule="cosine",
    optimizer__weight_decay=1e-4,
    optimizer__clip_norm=1.0,
    optimizer__warmup_steps=1_000,
    optimizer__b2=0.95,
    ema=0.999,
  )
  config.evaluation = dict(examples=512 if published else 256, batch_size=64)
  if not published:
    config_lib.changed(config.data, dict(validation_fraction=0.1))
    config_lib.changed(
      config.train,
      dict(
        batch_size=64,
        steps=1_000,
        optimizer__learning_rate=1e-3,
        optimizer__warmup_steps=50,
        ema=0.99,
        log_every=10,
        evaluate_every=500,
        checkpoint_every=250,
      ),
    )
  if name == "debug":
    config_lib.changed(config.train, dict(batch_size=8, steps=3, log_every=1))
    config.evaluation = dict(examples=16, batch_size=8)
  return config
