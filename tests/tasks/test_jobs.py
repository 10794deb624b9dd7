"""The jobs of mae and motion, ingest and serve, on paper: what each hands on, and what it says."""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import motion_data
from como_jax.data import ingest_settings, read_options
from como_jax.data import sources as formats
from como_jax.data.batching import Batching
from como_jax.tasks import ingest, mae, motion, serve
from como_jax.train import encoder_weights, fit, reading
from tests.assembly.test_motion_data import text_of


@pytest.fixture(name="paper")
def _paper(monkeypatch):
  """A model, an objective and data of paper: what was asked of them."""
  told = types.SimpleNamespace(
    checked=[],
    windows=[],
    sampled=[],
    batches=[],
    fitted=[],
    objectives=[],
    reading=None,
    functions=("reconstruction", "contrastive", "perceptual"),
  )
  model = types.SimpleNamespace(
    components=None,
    forward=lambda params, batch, *, key: ("out", params, batch, key),
    inputs_spec=lambda size, frames=0, jittered=None: {"frames": (size, frames, jittered)},
  )

  class Objective:
    weights, constants = {"mae": 1.0}, {"net": "NET"}
    functions = property(lambda self: told.functions)

    def __call__(self, *given):
      return {"loss": given}

  for module in (mae, motion):
    monkeypatch.setattr(
      module.models, "build", lambda section: model if section["kind"] == "toy" else None
    )
    monkeypatch.setattr(
      module.objectives, "build", lambda section: told.objectives.append(section) or Objective()
    )
  monkeypatch.setattr(encoder_weights, "load", lambda path, *, model: {"encoder": (path, model)})
  monkeypatch.setattr(fit, "fit", lambda command, make: told.fitted.append((command, make())) or 4)

  class Data:
    mixture = types.SimpleNamespace(paths=["one", "two"])
    augment = ("AUGMENT",)

    def __init__(self, given):
      assert given.data.frames == 3

    def check(self, **more):
      told.checked.append(more)

    def windows(self, split, **more):
      told.windows.append((split, more))
      return "WINDOWS"

    def sample_frames(self, split, *, count):
      told.sampled.append((split, count))
      return np.full((2, 1), 5.0, np.float32)

    def choose_read_options(self, batch):
      return told.reading or ("READING", batch)

    def batches(self, batching, reading, **more):
      told.batches.append((batching, reading, more))
      return contextlib.nullcontext("BATCHES") if told.reading else "BATCHES"

  monkeypatch.setattr(motion_data, "MotionData", Data)
  monkeypatch.setattr(reading, "local_rows", lambda batch_size: batch_size // 2)
  monkeypatch.setattr(reading, "batching", lambda config, step: ("FROM", step))
  told.model = model
  return told


def config(*, fraction=0.25, weights="bundled", objectives=None):
  return config_lib.ConfigDict(
    {
      "model": {"kind": "toy", "image_size": 16},
      "seed": 7,
      "encoder_weights": weights,
      "objectives": objectives or {"mae": {"weight": 1.0}},
      "train": {"batch_size": 8, "cache_tokens": False},
      "data": {"validation_fraction": fraction, "frames": 3},
      "evaluation": {"batch_size": 6, "windows": 50},
    }
  )


def test_the_job_of_a_masked_autoencoder(paper, monkeypatch):
  command = types.SimpleNamespace(config=config())
  assert mae.run(command) == 4 and paper.fitted[0][0] is command
  job = paper.fitted[0][1]
  assert (
    paper.objectives == [{"mae": {"weight": 1.0}}]
    and job.model is paper.model
    and job.weights == {"mae": 1.0}
    and job.constants == {}
  )
  assert job.start == {"encoder": ("bundled", paper.model)}
  assert job.loss("P", "B", "K") == {"loss": (("out", "P", "B", "K"), "B", None)}
  assert paper.checked == [dict(image_size=16, frames=1, jitter=False)]
  assert paper.sampled == [("validation", 64)]
  assert job.loading == ("READING", {"frames": (4, 0, None)}) and job.batch == {
    "frames": (8, 0, None)
  }
  assert (job.examples_per_step, job.unit, job.data) == (8, "images", [("one", ""), ("two", "")])
  assert job.batches(9) == "BATCHES" and paper.batches == [
    (("FROM", 9), job.loading, dict(kind="mae", jitter=False))
  ]
  mae.job(config(fraction=0.0))
  assert paper.sampled[1] == ("train", 64)
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

  def __call__(self, out, batch, constants):
    return {"mse": (out[0].sum(), jnp.float32(out[0].size)), "noise": (2 * out[1], jnp.float32(2))}


def test_the_job_of_a_motion_model(paper, monkeypatch, capsys):
  monkeypatch.setattr(
    motion.motion_evaluator,
    "MotionEvaluator",
    lambda model: (
      lambda params, windows: types.SimpleNamespace(scalars=lambda: (params, windows, model))
    ),
  )
  command = types.SimpleNamespace(
    config=config(
      objectives={"a": {"weight": 0.5, "b": 1}, "off": {"weight": 0}, "zero": {"weight": 0.0}}
    )
  )
  assert motion.run(command) == 4 and not capsys.readouterr().out
  job = paper.fitted[0][1]
  assert paper.objectives == [{"a": {"weight": 0.5, "b": 1}}] and (job.weights, job.constants) == (
    {"mae": 1.0},
    {"net": "NET"},
  )
  assert job.start == {"encoder": ("bundled", paper.model)} and job.model is paper.model
  assert (
    job.loss("P", "B", "K", "C") == {"loss": (("out", "P", "B", "K"), "B", "C")}
    and job.loss("P", "B", "K")["loss"][2] is None
  )
  assert paper.checked == [dict(image_size=16, frames=3, jitter=True)]
  assert paper.windows == [("validation", dict(frames=3, batch_size=6, max_windows=50))]
  assert job.loading == ("READING", {"frames": (4, 3, True)}) and job.batch == {
    "frames": (8, 3, True)
  }
  assert (job.examples_per_step, job.unit, job.data) == (16, "pairs", [("one", ""), ("two", "")])
  assert job.evaluate("P") == ("P", "WINDOWS", paper.model)
  assert job.batches(9) == "BATCHES" and paper.batches == [
    (("FROM", 9), job.loading, dict(kind="motion", jitter=True))
  ]
  paper.functions = ("reconstruction",)
  job = motion.job(config(fraction=0.0, weights=""))
  assert job.evaluate is None and len(paper.windows) == 1 and job.batch == {"frames": (8, 3, False)}
  assert capsys.readouterr().out.splitlines() == [
    (
      'encoder: random and frozen, which is not CoMo; set config.encoder_weights ("bundled", or a '
      "converted or pretrained MAE)"
    ),
    "perceptual loss: off (config.objectives.perceptual.weights_path is empty)",
  ]


def test_a_linear_path_begins_with_whole_batches_of_its_training_data(paper, monkeypatch):
  assert motion.job(config()).begin is None
  paper.reading = read_options.ReadOptions(3, 2, 1, "here")
  monkeypatch.setattr(motion.component_init, "start", lambda *given: given)
  paper.model.components = "ON"
  assert motion.job(config()).begin("P") == (paper.model, "P", "BATCHES")
  alone = read_options.ReadOptions(0, 2, 1, "here")
  assert paper.batches == [(Batching(8, seed=7), alone, dict(kind="motion", jitter=False))]


def test_ingesting_hands_on_what_the_config_says(monkeypatch, tmp_path, capsys):
  asked = []
  summary = types.SimpleNamespace(
    episodes=3, clips=4, frames=50, seconds=1.26, path="OUT", manifest="MANIFEST"
  )
  monkeypatch.setattr(ingest.data_folders, "resolve", lambda path: f"resolved {path}")
  monkeypatch.setattr(
    ingest.ingest, "run", lambda *given, **more: asked.append((given, more)) or summary
  )
  monkeypatch.setattr(
    ingest.ingest_manifest, "remarks", lambda manifest: [f"a remark on {manifest}", "another"]
  )
  for output, expected in (("", str(tmp_path)), ("elsewhere", "elsewhere")):
    section = {"path": "raw", "format": "lerobot", "cameras": ("a",), "action_key": "act"}
    config = config_lib.ConfigDict(
      {"source": section, "output": output, "workers": 3, "shards": {"image_size": 32}}
    )
    assert ingest.run(types.SimpleNamespace(config=config, workdir=tmp_path)) == 0
    assert asked.pop() == (
      ("resolved raw", expected, ingest_settings.StorageOptions(image_size=32, cameras=("a",))),
      dict(format="lerobot", options=formats.SourceOptions(action_key="act"), workers=3),
    )
    assert (
      capsys.readouterr().out
      == "3 episodes, 4 clips, 50 frames in 1.3 s -> OUT\na remark on MANIFEST\nanother\n"
    )


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
