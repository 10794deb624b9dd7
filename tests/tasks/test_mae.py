"""The job of a masked autoencoder, on paper: what it hands on."""

import types

import jax
import jax.numpy as jnp
import pytest

from como_jax.tasks import mae
from tests.tasks.paper import _paper as _paper  # a fixture
from tests.tasks.paper import config


def test_the_job_of_a_masked_autoencoder(paper, monkeypatch, capsys):
  command = types.SimpleNamespace(config=config())
  assert mae.run(command) == 4 and paper.fitted[0][0] is command
  job = paper.fitted[0][1]
  assert (
    paper.objectives == [{"mae": {"weight": 1.0}}]
    and job.model is paper.model
    and job.weights == {"mae": 1.0}
    and job.constants == {}
  )
  assert job.initial_params == {"encoder": ("bundled", paper.model)}
  assert job.loss("P", "B", "K") == {"loss": (("out", "P", "B", "K"), "B", None)}
  assert paper.opened == [(command.config, paper.model, False)] and paper.sampled == [64]
  assert capsys.readouterr().out == "remark on the data\n"
  assert (job.read_options, job.batch) == ("LOADING", "SHAPES")
  assert (job.examples_per_step, job.unit, job.data) == (8, "images", [("one", ""), ("two", "")])
  assert job.batches(9) == "BATCHES" and paper.steps == [9]
  monkeypatch.setattr(
    paper.model,
    "forward",
    lambda params, batch, *, key: (params["a"] * batch["frames"], jax.random.uniform(key)),
  )
  monkeypatch.setattr(mae.objectives, "build", lambda section: Mean())
  found = mae.job(config()).evaluate({"a": jnp.float32(3)})
  assert found == {
    "mse": pytest.approx(15.0),
    "noise": pytest.approx(float(jax.random.uniform(jax.random.key(0)))),
  }
  assert all(isinstance(value, float) for value in found.values())


class Mean:
  """The mean of what the model gives, and its noise."""

  weights = {"mse": 1.0}

  def draw(self, batch, key):
    return batch

  def __call__(self, out, batch, constants):
    return {"mse": (out[0].sum(), jnp.float32(out[0].size)), "noise": (2 * out[1], jnp.float32(2))}
