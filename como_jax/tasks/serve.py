"""Serves a trained policy to robots until SIGTERM."""

from como_jax import config as config_lib
from como_jax import errors
from como_jax.serve import server, server_settings


def run(command: config_lib.CommandLine) -> int:
  """Loads config.checkpoint, compiles, listens. Writes nothing; the workdir is not used.

  Raises:
    errors.UserError: no checkpoint or no policy in it, settings out of range, cameras that do not
      fill the policy's, address in use, a policy with a history without config.every_step.
  """
  config = command.config
  if not config.checkpoint:
    raise errors.UserError(
      "config.checkpoint is empty: give the run directory or weights folder of a policy"
    )
  options = server_settings.from_config(config)
  from como_jax.serve import policy  # after the cheap checks: this imports every model

  loaded = policy.Policy.load(
    config.checkpoint,
    robot=config.robot,
    num_sampling_steps=config.num_sampling_steps,
    guidance_scale=config.guidance_scale,
    batch_size=config.batch_size,
  )
  if loaded.history > 1 and not config.every_step:
    raise errors.UserError(
      f"the policy looks at {loaded.history} observations, {loaded.step_seconds:g} s apart, and "
      "the server can only give it a client's last requests: set --config.every_step=True if "
      "every client asks at every policy step (not once a chunk)"
    )
  server.Server(loaded, options).run()
  return 0
