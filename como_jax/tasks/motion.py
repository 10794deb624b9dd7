"""Training of the motion model (CoMo stage 1): data, model and objectives become a job."""

from collections.abc import Callable
from typing import Any

from como_jax import config as config_lib
from como_jax import models, objectives
from como_jax.assembly import motion_data
from como_jax.inference import motion_evaluator, token_cache
from como_jax.models.motion import linear_path_init
from como_jax.train import encoder_weights, fit
from como_jax.train.job import TrainJob


def run(command: config_lib.CommandLine) -> int:
  """Trains; leaves the weights in the run directory."""
  return fit.fit(command, lambda: job(command.config))


def job(config) -> TrainJob:
  """Model, loss, batches and the evaluation during training, from the config."""
  model = models.build(config.model.to_dict())
  objective = objectives.build(objectives.active(config.objectives))
  start = encoder_weights.load(config.encoder_weights, model=model)
  # Tcl needs a frame near each second one
  data = motion_data.TrainingData(config, model, jitter="contrastive" in objective.functions)
  for remark in data.remarks() + encoder_weights.remarks(start) + objective.remarks():
    print(remark)
  tokens = None  # of every frame of the data, encoded once
  if config.train.cache_tokens:
    tokens = token_cache.of_motion_data(config, model, start, data)

  def batches(step):
    images = data.batches(step)
    return tokens.over(images) if tokens else images

  def init_from_data(params):
    # the batches are whole in every process, so that all start from the same components
    with data.first_batches() as whole_batches:
      return linear_path_init.init_from_pairs(model, params, whole_batches)

  return TrainJob(
    model=model,
    loss=objectives.model_loss(model, objective),
    useful_loss=objectives.model_loss(
      models.build(models.without_repetition(config.model)), objective
    ),
    weights=objective.weights,
    constants=objective.constants,
    initial_params=start,
    read_options=data.read_options,
    batch=tokens.spec(data.batch_spec) if tokens else data.batch_spec,
    data=[(path, "") for path in data.mixture.paths],  # "" = no labels
    batches=batches,
    init_from_data=init_from_data if model.linear_path is not None else None,
    evaluate=held_out_metrics(model, data),
    evaluate_together=True,
    examples_per_step=config.train.batch_size * (config.data.frames - 1),
    unit="pairs",
  )


def held_out_metrics(
  model: Any, data: motion_data.TrainingData
) -> Callable[[Any], dict[str, float]] | None:
  """`params -> metrics` on held-out windows; None where nothing is held out."""
  # triples: the evaluation also compares z(0, 1) + z(1, 2) with z(0, 2)
  triples = data.held_out()
  if triples is None:
    return None
  measure = motion_evaluator.MotionEvaluator(model)
  return lambda params: measure(params, triples).scalars()
