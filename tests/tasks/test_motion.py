"""The job of a motion model, on paper: what it hands on, and what it says."""

import types

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
  assert motion.run(command) == 4
  said = ["remark on the data", "remark on 3 objectives"]
  assert capsys.readouterr().out.splitlines() == said
  job = paper.fitted[0][1]
  assert paper.objectives == [{"a": {"weight": 0.5, "b": 1}}] and (job.weights, job.constants) == (
    {"mae": 1.0},
    {"net": "NET"},
  )
  assert job.initial_params == {"encoder": ("bundled", paper.model)} and job.model is paper.model
  assert (
    job.loss("P", "B", "K", "C") == {"loss": (("out", "P", "B", "K"), "B", "C")}
    and job.loss("P", "B", "K")["loss"][2] is None
  )
  assert paper.opened == [(command.config, paper.model, True)]
  assert (job.read_options, job.batch) == ("LOADING", "SHAPES")
  assert (job.examples_per_step, job.unit, job.data) == (16, "pairs", [("one", ""), ("two", "")])
  assert job.evaluate("P") == ("P", "TRIPLES", paper.model)
  assert job.batches(9) == "BATCHES" and paper.steps == [9]
  paper.functions, paper.triples = ("reconstruction",), None
  job = motion.job(config(weights=""))
  assert job.evaluate is None and job.initial_params == {} and paper.opened[1][2] is False
  assert capsys.readouterr().out.splitlines() == [
    said[0],
    (
      'encoder: random and frozen, which is not CoMo; set config.encoder_weights ("bundled", or a '
      "converted or pretrained MAE)"
    ),
    "remark on 1 objectives",
  ]


def test_a_linear_path_begins_with_whole_batches_of_its_training_data(paper, monkeypatch):
  assert motion.job(config()).init_from_data is None
  monkeypatch.setattr(motion.linear_path_init, "init_from_pairs", lambda *given: given)
  paper.model.linear_path = "ON"
  assert motion.job(config()).init_from_data("P") == (paper.model, "P", "FIRST BATCHES")
