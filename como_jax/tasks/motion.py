"""Training of the motion model (CoMo stage 1): data, model and objectives assembled for the shared
loop.
"""

import dataclasses

from como_jax import config as config_lib
from como_jax import errors, models, objectives
from como_jax.inference import motion_evaluator, token_cache
from como_jax.models.motion import inputs
from como_jax.tasks import components, motion_data, training

# images of a batch -> their tokens
TOKENS = {"frames": "frame_tokens", "jittered": "jittered_tokens"}


def run(command: config_lib.CommandLine) -> int:
  """Trains; leaves the weights in the run directory."""
  return training.fit(command, lambda: job(command.config))


def job(config) -> training.TrainJob:
  """Model, loss, batches and the evaluation inside training, from the config."""
  model = models.build(config.model.to_dict())
  objective = objectives.build(active(config.objectives))
  start = training.encoder_weights(config.encoder_weights, model=model)
  data_sets = motion_data.data_sets(config)
  jitter = "contrastive" in objective.functions
  motion_data.check(config, data_sets, frames=config.data.frames, jitter=jitter)
  if not config.encoder_weights:
    print(
      'encoder: random and frozen, which is not CoMo; set config.encoder_weights ("bundled", or '
      "a converted or pretrained MAE)"
    )
  if "perceptual" not in objective.functions:
    print("perceptual loss: off (config.objectives.perceptual.weights_path is empty)")
  held_out = None
  if config.data.validation_fraction > 0:
    held_out = motion_data.windows(
      config,
      data_sets,
      split="validation",
      frames=3,
      batch_size=config.evaluation.batch_size,
      most=config.evaluation.windows,
    )

  def loss(params, batch, key, constants=None):
    return objective(model.forward(params, batch, key=key), batch, constants)

  def begin(params):  # every process looks at the same pairs
    settings = dict(start_step=0, how=dataclasses.replace(how, workers=0), whole=True)
    with motion_data.batches(config, data_sets, kind="motion", jitter=False, **settings) as first:
      return components.start(model, params, first)

  measure = motion_evaluator.MotionEvaluator(model)
  how = motion_data.choose_read_options(
    config.data,
    [one.path for one in data_sets],
    model.inputs_spec(motion_data.local_rows(config), config.data.frames, jittered=jitter),
  )
  known, batch = (
    None,
    model.inputs_spec(config.train.batch_size, config.data.frames, jittered=jitter),
  )
  if config.train.cache_tokens:
    check_cache(config, model, start)
    walk = motion_data.windows(config, data_sets, split="train", frames=1, batch_size=64, most=None)
    # it looks at pictures
    flow = model.components is not None and model.components.source == "flow"
    known = token_cache.TokenCache(
      model,
      start,
      names=TOKENS,
      kept=("frames",) if not flow else ("frames", "jittered"),
      dtype="float16",
    ).fill(walk)
    print(f"image tokens: {len(known)} images encoded, once")
    batch = known.spec(batch)

  def batches(step):
    found = motion_data.batches(
      config, data_sets, kind="motion", jitter=jitter, start_step=step, how=how
    )
    return known.over(found) if known else found

  return training.TrainJob(
    model=model,
    loss=loss,
    weights=objective.weights,
    constants=objective.constants,
    start=start,
    loading=how,
    batch=batch,
    data=[(one.path, "") for one in data_sets],
    batches=batches,
    begin=begin if model.components else None,
    evaluate=held_out and (lambda params: measure(params, held_out).scalars()),
    examples_per_step=config.train.batch_size * (config.data.frames - 1),
    unit="pairs",
  )


def check_cache(config, model, start) -> None:
  """Raises errors.UserError where the tokens of a frame do not stay the same, or are not what the
  model looks at.
  """
  if inputs.INPUTS[model.qformer.inputs].pixel_difference:
    raise errors.UserError(
      "config.train.cache_tokens needs a model that encodes frames, "
      f"config.model.idm.inputs={model.qformer.inputs} encodes their differences"
    )
  token_cache.check(
    "train.cache_tokens", config, model, start, motion_data.augmentation(config.data)
  )


def active(section) -> dict:
  """The objectives with a weight; one with weight 0 is off and costs nothing."""
  return {name: dict(settings) for name, settings in section.items() if settings["weight"] != 0}
