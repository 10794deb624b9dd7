"""Training of a policy (CoMo stage 2).

Robot actions and the latent motion of videos are in one batch, behind one trunk with light heads.
"""

from como_jax import config as config_lib
from como_jax import models
from como_jax.assembly import policy_setup, policy_start
from como_jax.data import policy_spec
from como_jax.inference import token_cache
from como_jax.tasks import policy_scoring
from como_jax.train import fit, reading
from como_jax.train.job import TrainJob


def run(command: config_lib.CommandLine) -> int:
  """Trains; the run directory then holds all that acting needs: weights and `policy.json`.

  With config.train.steps=0 it only scores the policy of config.init.
  """
  if command.config.train.steps == 0:
    return policy_scoring.run(command)
  return fit.fit(command, lambda: job(command))


def job(command: config_lib.CommandLine) -> TrainJob:
  """Model, losses, batches and the offline action error of a command.

  Raises:
    errors.UserError: see `policy_setup.setup`.
  """
  config = command.config
  setup = policy_setup.setup(config, resumed=policy_start.resumed(command))
  data, layout, spec = setup.data, setup.layout, setup.spec
  model = models.build(dict(spec.model))
  start = policy_start.parameters(config, model, setup.start)
  for remark in policy_setup.remarks(setup):
    print(remark)
  read_options = data.choose_read_options(
    model.inputs_spec(reading.local_rows(config.train.batch_size))
  )
  tokens = None
  if config.policy.cache_tokens:
    token_cache.check("policy.cache_tokens", config, model, start)
    walk = data.examples(layout, "train", batch_size=config.evaluation.batch_size)
    tokens = token_cache.TokenCache(model, start).fill(walk)

  def batches(step):
    images = data.batches(layout, reading.batching(config, step), read_options)
    return tokens.over(images) if tokens else images

  batch = model.inputs_spec(config.train.batch_size)
  return TrainJob(
    model=model,
    loss=lambda params, batch, key: model.losses(params, batch, key),
    useful_loss=models.build(models.without_repetition(spec.model)).losses,
    weights=policy_setup.loss_weights(config, model),
    initial_params=start,
    unit="examples",
    examples_per_step=config.train.batch_size,
    batches=batches,
    read_options=read_options,
    batch=tokens.spec(batch) if tokens else batch,
    data=[(opened.entry.path, opened.entry.labels) for opened in data.mixture.sets],
    evaluate=policy_scoring.held_out_score(config, model, setup),
    files={policy_spec.FILE: policy_spec.text(spec)},
  )
