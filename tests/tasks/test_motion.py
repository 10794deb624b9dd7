"""The job of a motion model, on paper: what it hands on, and what it says."""

import types

from como_jax.data import read_options
from como_jax.data.batching import Batching
from como_jax.tasks import motion
from tests.tasks.paper import _paper as _paper  # a fixture
from tests.tasks.paper import config


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
