"""A small policy, by its command line."""

import jax

from como_jax import config as config_lib
from como_jax import models
from como_jax.assembly import policy_setup
from como_jax.serve import policy as serving
from como_jax.serve import policy_checkpoint

TINY = (
  "--config.model.image_size=32",
  "--config.data.image_size=32",
  "--config.model.encoder.size=16x1x2/16",
  "--config.encoder_weights=",
  "--config.model.trunk.width=16",
  "--config.model.trunk.depth=1",
  "--config.model.trunk.num_heads=2",
  "--config.model.trunk.mlp_dim=32",
  "--config.model.dit.width=16",
  "--config.model.dit.depth=1",
  "--config.model.dit.num_heads=2",
  "--config.model.dit.mlp_dim=32",
  "--config.model.dit.num_sampling_steps=2",
  "--config.model.pool=1",
  "--config.model.action_horizon=3",
  "--config.language.width=8",
  "--config.train.batch_size=8",
  "--config.train.tensorboard=False",
  "--config.data.validation_fraction=0.3",
  "--config.model.history=2",
)


GPT = [word for word in TINY if "model.dit" not in word] + [
  f"--config.model.gpt.{word}" for word in ("width=16", "depth=1", "num_heads=2", "mlp_dim=32")
]


def parse(workdir, *words):
  return config_lib.parse(
    ["main", "--config=configs/policy.py:debug", f"--workdir={workdir}", *TINY, *words]
  )


def command_of(workdir, path, kind, *words):
  words = [f"--config.data.path={path}", *(GPT if kind == "gpt" else TINY), *words]
  return config_lib.parse(
    ["main", f"--config=configs/policy.py:debug,policy={kind}", f"--workdir={workdir}", *words]
  )


def untrained(workdir, *words):
  """(a policy with random weights that was made for some data, what its config comes to)."""
  found = policy_setup.setup(parse(workdir, *words).config)
  params = jax.jit(models.build(dict(found.spec.model)).init)(jax.random.key(0))
  return serving.Policy(policy_checkpoint.restore(params, found.spec)), found
