"""Which weights a path means, and how they are read."""

import pathlib

import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.train import checkpoint, checkpointer
from tests.train.step_folders import exported, message, raises, step_folder


def test_what_a_run_directory_means(tmp_path):
  run = tmp_path / "run"
  step_folder(run, 2), step_folder(run, 4)
  (run / "config.json").write_text("{}")
  config, state = run / "config.json", run / "checkpoints" / "4" / "state"
  assert checkpoint.find(str(run)) == checkpoint.WeightsLocation(None, state, config, 4, ())
  folder = exported(run / "weights", 2)
  note = (
    f"{folder} is of step 2, the newest checkpoint of step 4: the checkpoint is used (give "
    f"{folder} to use that folder)"
  )
  assert checkpoint.find(run) == checkpoint.WeightsLocation(None, state, config, 4, (note,))
  exported(folder, None)
  assert checkpoint.find(run).notes == (note.replace("step 2", "step unknown"),)
  for step in (4, 5):
    exported(folder, step)
    assert checkpoint.find(run) == checkpoint.WeightsLocation(
      folder, None, folder / "config.json", step, ()
    )
  exported(folder, 2)
  (run / "checkpoints" / "4" / "state" / "manifest.ocdbt").unlink()
  damaged = (
    f"checkpoint {run / 'checkpoints' / '4'} is damaged (state/manifest.ocdbt is missing or "
    "empty) and is not used"
  )
  assert checkpoint.find(run) == checkpoint.WeightsLocation(
    folder, None, folder / "config.json", 2, (damaged,)
  ), "as new as what is whole"
  exported(folder, 1)
  assert (
    checkpoint.find(run).step == 2
    and checkpoint.find(run).notes[0] == damaged
    and len(checkpoint.find(run).notes) == 2
  )
  (run / "checkpoints" / "4" / "data" / "metadata").write_text('{"version": 99}')
  assert "has format version 99" in message(errors.UserError, lambda: checkpoint.find(run))


def test_what_holds_no_weights_is_named(tmp_path, monkeypatch):
  run = tmp_path / "run1"
  run.mkdir()
  neither = (
    f"{str(run)!r} is neither a run directory (config.json, checkpoints/) nor a weights folder "
    "(params.safetensors, config.json)"
  )
  assert message(errors.UserError, lambda: checkpoint.find(run)) == neither
  (run / "config.json").write_text("{}")
  assert message(errors.UserError, lambda: checkpoint.find(run)) == neither
  (run / "checkpoints").mkdir()
  assert (
    message(errors.UserError, lambda: checkpoint.find(run))
    == f"{str(run / 'checkpoints')!r} holds no committed checkpoint yet"
  )
  (run / "config.json").unlink()
  assert message(errors.UserError, lambda: checkpoint.find(run)) == neither
  wrong = tmp_path / "rum1"
  assert message(errors.UserError, lambda: checkpoint.find(wrong)).startswith(
    f"checkpoint {str(wrong)!r} does not exist: did you mean {str(run)!r}?"
  )
  away = tmp_path / "no" / "run"
  assert (
    message(errors.UserError, lambda: checkpoint.find(away))
    == f"checkpoint {str(away)!r} does not exist: there are none"
  )
  for step in (2, 4):
    step_folder(run, step, position=9)
  (run / "config.json").write_text("{}")
  assert message(errors.UserError, lambda: checkpoint.find(run)) == "; ".join(
    (
      f"checkpoint {run / 'checkpoints' / str(step)} is damaged (data/metadata gives the data "
      "position 9) and is not used"
    )
    for step in (4, 2)
  )
  monkeypatch.chdir(run)
  step_folder(run, 6)
  assert checkpoint.find(".").state == run / "checkpoints" / "6" / "state"


def test_a_weights_folder_that_is_named_is_used_and_a_newer_checkpoint_said(tmp_path, monkeypatch):
  run = tmp_path / "run"
  folder = exported(run / "weights", 2)
  assert checkpoint.find(folder) == checkpoint.WeightsLocation(
    folder, None, folder / "config.json", 2, ()
  )
  step_folder(run, 2)
  assert checkpoint.find(folder).notes == (), "as new"
  step_folder(run, 4)
  note = (
    f"{folder} is of step 2, its run has a checkpoint of step 4: the folder is used, as given "
    f"(give {run} to use the checkpoint)"
  )
  assert checkpoint.find(folder).notes == (note,)
  exported(folder, None)
  assert checkpoint.find(folder) == checkpoint.WeightsLocation(
    folder, None, folder / "config.json", None, (note.replace("step 2", "step unknown"),)
  )
  assert checkpoint.find(exported(run / "elsewhere", 2)).notes == (), "not the folder of the run"
  monkeypatch.chdir(folder)
  assert len(checkpoint.find(".").notes) == 1


def test_a_state_that_cannot_be_read_is_one_line(tmp_path, monkeypatch, capsys):
  found = checkpoint.WeightsLocation(
    None, tmp_path / "state", tmp_path / "config.json", 4, ("a note", "another")
  )
  monkeypatch.setattr(checkpoint, "find", lambda path: found)
  (tmp_path / "config.json").write_text('{"task": "toy"}')
  for error in (ValueError, KeyError, OSError, AttributeError):
    monkeypatch.setattr(checkpoint, "read_state", raises(error("torn\nmore")))
    line = "'torn\\nmore'" if error is KeyError else "torn"
    assert (
      message(errors.UserError, lambda: checkpoint.load("run"))
      == f"checkpoint {str(tmp_path / 'state')!r} cannot be read: {line}"
    )
  capsys.readouterr()
  params = {"encoder": {"a": 1}, "head": {"a": 2, "b": 3}}
  for ema, expected in (
    (None, params),
    ({}, params),
    ({"head": {"a": 4, "b": 5}}, {"encoder": {"a": 1}, "head": {"a": 4, "b": 5}}),
  ):
    monkeypatch.setattr(
      checkpoint,
      "read_state",
      lambda item, ema=ema: {"params": params, "ema": ema} if item == tmp_path / "state" else None,
    )
    assert checkpoint.load("run") == (expected, {"task": "toy"})
  assert capsys.readouterr().out == "note: a note\nnote: another\n" * 3


def test_a_state_is_read_where_jax_has_no_cpu(tmp_path, monkeypatch):
  made = checkpointer.Checkpointer(tmp_path, keep=1)
  made.save(1, {"a": jnp.arange(3)})
  made.close()
  devices = jax.local_devices
  monkeypatch.setattr(
    jax,
    "local_devices",
    lambda backend=None: raises(RuntimeError("no cpu"))() if backend else devices(),
  )
  assert checkpoint.read_state(pathlib.Path(tmp_path, "checkpoints", "1", "state"))[
    "a"
  ].tolist() == [0, 1, 2]


def test_the_line_of_an_error():
  assert (
    checkpoint.first_line(ValueError("one\ntwo")) == "one"
    and checkpoint.first_line(ValueError()) == "ValueError"
  )
  assert checkpoint.first_line(ValueError("x" * 400)) == "x" * 300
