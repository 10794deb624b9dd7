"""A run that is done already, and the learning rate that a run had."""

import json

import numpy as np

from como_jax.train import resume, rundir
from tests.train.step_folders import exported, step_folder


def test_a_run_that_is_done_already(tmp_path):
  assert resume.done_already(tmp_path, 3) == ""
  step_folder(tmp_path, 2), step_folder(tmp_path, 4), step_folder(tmp_path, 6)

  def begin(step, steps):
    return f"already at step {step} of {steps} asked: nothing to do; "

  used = "the checkpoint of step {0} is what other tasks use; --config.train.steps={0} exports it"
  assert resume.done_already(tmp_path, 6) == resume.done_already(tmp_path, 7) == ""
  assert resume.done_already(tmp_path, 5) == begin(
    6, 5
  ) + "its weights are not exported yet, " + used.format(6)
  (tmp_path / "checkpoints" / "6" / "state" / "manifest.ocdbt").unlink()
  assert resume.done_already(tmp_path, 5) == "" and resume.done_already(tmp_path, 3) == begin(
    4, 3
  ) + "its weights are not exported yet, " + used.format(4)
  folder = exported(tmp_path / "weights", 2)
  assert resume.done_already(tmp_path, 3) == begin(4, 3) + f"{folder} is of step 2, " + used.format(
    4
  )
  exported(tmp_path / "weights", 4)
  assert resume.done_already(tmp_path, 3) == begin(4, 3) + f"{folder} holds its weights"


def test_the_learning_rate_that_a_run_had(tmp_path):
  settings = dict(
    schedule="linear",
    learning_rate=0.5,
    floor=0.5,
    warmup_steps=2,
    warmup_start=0.25,
    clip_norm=1.0,
  )

  def rate(train):
    (tmp_path / rundir.CONFIG).write_text(json.dumps({"train": train} if train is not None else {}))
    return resume.rate_before(tmp_path)

  found = rate({"steps": 12, "optimizer": settings})
  np.testing.assert_allclose(
    [found(step) for step in (0, 2, 7, 12)], [0.125, 0.5, 0.375, 0.25], rtol=1e-6
  )
  assert rate(None) is rate({}) is rate({"optimizer": settings}) is rate({"steps": 12}) is None
  for key in ("schedule", "learning_rate", "floor", "warmup_steps", "warmup_start"):
    assert (
      rate(
        {"steps": 12, "optimizer": {name: value for name, value in settings.items() if name != key}}
      )
      is None
    )
