"""Training of the motion model (CoMo stage 1): data, model and objectives become a job."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from como_jax import config as config_lib
from como_jax import errors, models, objectives
from como_jax.assembly import motion_data
from como_jax.data.batching import Batching
from como_jax.inference import motion_evaluator, token_cache
from como_jax.models.motion import component_init, inputs
from como_jax.train import encoder_weights, fit, reading
from como_jax.train.job import TrainJob

# key of images in a batch -> key of their tokens
TOKENS = {"frames": "frame_tokens", "jittered": "jittered_tokens"}


def run(command: config_lib.CommandLine) -> int:
  """Trains; leaves the weights in the run directory."""
  return fit.fit(command, lambda: job(command.config))


def job(config) -> TrainJob:
  """Model, loss, batches and the evaluation during training, from the config."""
  model = models.build(config.model.to_dict())
  objective = objectives.build(objectives.active(config.objectives))
  start = encoder_weights.load(config.encoder_weights, model=model)
  frames = config.data.frames
  jitter = "contrastive" in objective.functions  # Tcl needs a frame near each second one
  data = motion_data.MotionData(config)
  data.check(image_size=config.model.image_size, frames=frames, jitter=jitter)
  for remark in remarks(config, objective):
    print(remark)
  options = data.choose_read_options(
    model.inputs_spec(reading.local_rows(config.train.batch_size), frames, jittered=jitter)
  )
  tokens = None
  if config.train.cache_tokens:
    check_cache(config, model, start, data.augment)
    tokens = fill_cache(model, start, data)

  def batches(step):
    batching = reading.batching(config, step)
    images = data.batches(batching, options, kind="motion", jitter=jitter)
    return tokens.over(images) if tokens else images

  def begin(params):
    # Every process reads the whole global batches, so that all start from the same components.
    batching = Batching(config.train.batch_size, config.seed)
    without_workers = dataclasses.replace(options, workers=0)
    with data.batches(batching, without_workers, kind="motion", jitter=False) as whole_batches:
      return component_init.start(model, params, whole_batches)

  batch = model.inputs_spec(config.train.batch_size, frames, jittered=jitter)
  return TrainJob(
    model=model,
    loss=objectives.model_loss(model, objective),
    weights=objective.weights,
    constants=objective.constants,
    start=start,
    loading=options,
    batch=tokens.spec(batch) if tokens else batch,
    data=[(path, "") for path in data.mixture.paths],  # "" = no labels
    batches=batches,
    begin=begin if model.components is not None else None,
    evaluate=held_out_metrics(config, model, data),
    examples_per_step=config.train.batch_size * (frames - 1),
    unit="pairs",
  )


def held_out_metrics(
  config, model: Any, data: motion_data.MotionData
) -> Callable[[Any], dict[str, float]] | None:
  """`params -> metrics` on held-out windows; None where nothing is held out."""
  if not config.data.validation_fraction > 0:
    return None
  section = config.evaluation
  # triples: the evaluation also compares z(0, 1) + z(1, 2) with z(0, 2)
  held_out = data.windows(
    "validation", frames=3, batch_size=section.batch_size, max_windows=section.windows
  )
  measure = motion_evaluator.MotionEvaluator(model)
  return lambda params: measure(params, held_out).scalars()


def remarks(config, objective: Any) -> list[str]:
  """What the config leaves out of the method, a line each."""
  lines = []
  if not config.encoder_weights:
    lines.append(
      'encoder: random and frozen, which is not CoMo; set config.encoder_weights ("bundled", or '
      "a converted or pretrained MAE)"
    )
  if "perceptual" not in objective.functions:
    lines.append("perceptual loss: off (config.objectives.perceptual.weights_path is empty)")
  return lines


def fill_cache(
  model: Any, start: Mapping[str, Any], data: motion_data.MotionData
) -> token_cache.TokenCache:
  """The tokens of every training frame, encoded once."""
  # optical flow is computed from pixels, so both kinds of images stay beside their tokens
  flow = model.components is not None and model.components.source == "flow"
  kept = ("frames", "jittered") if flow else ("frames",)
  walk = data.windows("train", frames=1, batch_size=64, max_windows=None)
  tokens = token_cache.TokenCache(model, start, names=TOKENS, kept=kept, dtype="float16").fill(walk)
  print(f"image tokens: {len(tokens)} images encoded, once")
  return tokens


def check_cache(
  config, model: Any, start: Mapping[str, Any], augment: tuple[Callable, ...]
) -> None:
  """Refuses to keep tokens that change during training, or that the model does not use.

  Raises:
    errors.UserError: naming what to change.
  """
  if inputs.INPUTS[model.qformer.inputs].pixel_difference:
    raise errors.UserError(
      "config.train.cache_tokens needs a model that encodes frames, "
      f"config.model.idm.inputs={model.qformer.inputs} encodes their differences"
    )
  token_cache.check("train.cache_tokens", config, model, start, augment)
