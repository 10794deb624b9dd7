"""Serves a trained policy to robots until SIGTERM."""

from como_jax import config as config_lib
from como_jax import errors
from como_jax.serve import server

SETTINGS = ("host", "port", "preset", "cameras", "batch_size", "batch_wait_ms", "max_connections", "max_frame_bytes", "max_bad_messages",
            "seed")


def run(command: config_lib.CommandLine) -> int:
  """Loads config.checkpoint, compiles, listens. Writes nothing; the workdir is not used.

  Raises:
    errors.UserError: no checkpoint or no policy in it, settings out of range, cameras that do not fill the policy's, address in use.
  """
  config = command.config
  if not config.checkpoint:
    raise errors.UserError("config.checkpoint is empty: give the run directory or weights folder of a policy")
  settings = server.Settings(**{name: config[name] for name in SETTINGS})
  from como_jax.serve import policy  # after the cheap checks: this imports every model
  loaded = policy.Policy.load(config.checkpoint, robot=config.robot, steps=config.steps, guidance=config.guidance,
                              batch_size=config.batch_size)
  server.Server(loaded, settings).run()
  return 0
