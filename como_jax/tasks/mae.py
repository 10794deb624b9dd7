"""Masked-autoencoder pretraining of an image encoder (He et al.

2022) on any source, through the shared loop.
"""

import jax
import numpy as np

from como_jax import config as config_lib
from como_jax import models, objectives
from como_jax.tasks import motion_data, training


def run(command: config_lib.CommandLine) -> int:
  """Trains; leaves encoder and decoder weights in the run directory."""
  return training.fit(command, lambda: job(command.config))


def job(config) -> training.TrainJob:
  """Model, loss and batches from the config."""
  model = models.build(config.model.to_dict())
  objective = objectives.build(config.objectives.to_dict())
  given = training.encoder_weights(config.encoder_weights, model=model)
  data = motion_data.MotionData(config)

  def loss(params, batch, key):
    return objective(model.forward(params, batch, key=key), batch)

  data.check(image_size=config.model.image_size, frames=1, jitter=False)
  split = "validation" if config.data.validation_fraction > 0 else "train"
  held_out = data.sample_frames(split, count=64)

  @jax.jit
  def held_out_loss(params, frames):  # an argument: XLA would fold a constant for minutes
    return loss(params, {"frames": frames}, jax.random.key(0))

  def evaluate(params):
    return {
      name: float(np.asarray(value) / np.asarray(count))
      for name, (value, count) in held_out_loss(params, held_out).items()
    }

  reading = data.choose_read_options(model.inputs_spec(motion_data.local_rows(config)))
  return training.TrainJob(
    model=model,
    loss=loss,
    weights=objective.weights,
    evaluate=evaluate,
    loading=reading,
    batch=model.inputs_spec(config.train.batch_size),
    data=[(path, "") for path in data.mixture.paths],
    batches=lambda step: data.batches(
      motion_data.training_batching(config, step), reading, kind="mae", jitter=False
    ),
    examples_per_step=config.train.batch_size,
    unit="images",
    start=given,
  )
