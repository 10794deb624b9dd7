"""Masked-autoencoder pretraining of an image encoder (He et al. 2022), on frames of any source."""

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import models, objectives
from como_jax.assembly import motion_data
from como_jax.train import encoder_weights, fit
from como_jax.train.job import TrainJob


def run(command: config_lib.CommandLine) -> int:
  """Trains; leaves encoder and decoder weights in the run directory."""
  return fit.fit(command, lambda: job(command.config))


def job(config) -> TrainJob:
  """Model, loss and batches from the config."""
  model = models.build(config.model.to_dict())
  objective = objectives.build(config.objectives.to_dict())
  loss = objectives.model_loss(model, objective)
  start = encoder_weights.load(config.encoder_weights, model=model)
  data = motion_data.TrainingData(config, model)
  for remark in data.remarks():
    print(remark)
  held_out = data.sample_frames(64)

  @jax.jit
  def held_out_loss(params, frames):  # an argument: XLA would fold a constant for minutes
    return loss(params, {"frames": frames}, jax.random.key(0))

  def evaluate(params):
    return {
      name: float(np.asarray(value) / np.asarray(count))
      for name, (value, count) in held_out_loss(params, held_out).items()
    }

  return TrainJob(
    model=model,
    loss=loss,
    useful_loss=objectives.model_loss(
      models.build(models.without_repetition(config.model)), objective
    ),
    weights=objective.weights,
    evaluate=evaluate,
    read_options=data.read_options,
    batch=data.batch_spec,
    data=[(path, "") for path in data.mixture.paths],
    batches=data.batches,
    examples_per_step=config.train.batch_size,
    unit="images",
    initial_params=start,
  )
