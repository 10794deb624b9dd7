"""The policy server as its config says."""

import pathlib
import types

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.tasks import serve
from tests.refusals import text_of

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_a_server_needs_a_checkpoint():
  with pytest.raises(errors.UserError, match="config.checkpoint is empty"):
    serve.run(config_lib.parse(["main", f"--config={ROOT}/configs/serve.py"]))


def test_a_server_is_made_as_the_config_says(monkeypatch):
  from como_jax.serve import policy as serving

  asked, served = [], []
  policy = types.SimpleNamespace(history=1, step_seconds=0.25)
  monkeypatch.setattr(
    serving.Policy, "load", lambda path, **more: asked.append((path, more)) or policy
  )
  monkeypatch.setattr(
    serve.server,
    "Server",
    lambda loaded, settings: types.SimpleNamespace(run=lambda: served.append((loaded, settings))),
  )

  def command(*words):
    return config_lib.parse(["main", "--config=serve", "--config.checkpoint=C", *words])

  words = [
    "--config.robot=arm",
    "--config.num_sampling_steps=7",
    "--config.guidance_scale=2.0",
    "--config.batch_size=3",
    "--config.port=0",
    "--config.seed=5",
  ]
  assert serve.run(command(*words)) == 0
  assert asked == [("C", dict(robot="arm", num_sampling_steps=7, guidance_scale=2.0, batch_size=3))]
  ((loaded, settings),) = served
  assert loaded is policy and (settings.batch_size, settings.port, settings.seed) == (3, 0, 5)
  policy.history = 2
  assert text_of(lambda: serve.run(command())) == (
    "the policy looks at 2 observations, 0.25 s apart, and the server can only give it a client's "
    "last requests: set --config.every_step=True if every client asks at every policy step (not "
    "once a chunk)"
  )
  assert serve.run(command("--config.every_step=True")) == 0 and len(served) == 2
  assert (
    text_of(lambda: serve.run(command("--config.checkpoint=")))
    == "config.checkpoint is empty: give the run directory or weights folder of a policy"
  )
  with pytest.raises(errors.UserError, match="batch_size"):
    serve.run(command("--config.batch_size=0"))
  assert len(served) == 2
