r"""A trained policy behind a websocket.

openpi's clients and como_jax/serve/client.py connect to it.

python -m como_jax.main --config=configs/serve.py --config.checkpoint=RUN_DIR
    on this machine, port 8000
python -m como_jax.main --config=configs/serve.py --config.checkpoint=RUN_DIR \
    --config.host=0.0.0.0 --config.preset=libero
    for robots on the network (there is no password: a trusted network only), with the keys of
    openpi's LIBERO client
python -m como_jax.main --config=configs/serve.py:debug --config.checkpoint=RUN_DIR
    2 sampling steps, any free port
Prints "serving on ws://..." once every batch size is compiled, then a line for each client; SIGTERM
ends it with code 0 after the requests in flight. Check: curl http://127.0.0.1:8000/healthz, or
python benchmarks/openpi_client.py --port 8000 --preset libero.
"""

import ml_collections

from como_jax import config as config_lib


def get_config(arg=None):
  """Variants: default, debug."""
  name = config_lib.variant(arg, ("default", "debug"), default="default")
  debug = name == "debug"
  placeholder = ml_collections.config_dict.placeholder
  config = config_lib.ConfigDict(
    dict(
      task="serve",
      seed=0,
      checkpoint="",  # run directory or weights folder of a policy
      robot="",  # which of the checkpoint's robots; "" = the only one
      num_sampling_steps=placeholder(int),  # of the sampler; None: as configured in the checkpoint
      # weight of the instruction; None: as configured in the checkpoint
      guidance_scale=placeholder(float),
      host="127.0.0.1",  # 0.0.0.0 = every interface
      port=0 if debug else 8000,  # 0 = any free one, printed
      preset="como",  # keys that clients send: como | libero | droid | aloha
      cameras=(),  # the preset's image keys for the policy's cameras, in order; () = the first ones
      prompt="",  # instruction for clients that send none (as openpi's ALOHA simulation)
      # clients ask at every policy step: a policy that looks at several observations needs it
      every_step=False,
      batch_size=2 if debug else 8,  # requests of several clients in one call of the model
      batch_wait_ms=5.0,  # the first waits this long for others; a lone client never waits
      max_connections=4 if debug else 16,
      max_frame_bytes=32 * 2**20,  # of one message
      max_bad_messages=10,  # in a row, before a connection is closed
    )
  )
  if debug:
    config.num_sampling_steps = 2
  return config
