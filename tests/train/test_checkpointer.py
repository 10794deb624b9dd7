"""Damaged checkpoints are found, set aside and named; the newest good state is what others load."""

import asyncio
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, trees, weights
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpoint, integrity
from como_jax.train import checkpointer as checkpointer_lib
from tests import toy

WIDTH = 8


def at(step, value=None):
  """The toy state of a step; with a value, in every trainable number."""
  now = dataclasses.replace(
    toy.fresh(toy.make_optimizer()[0], width=WIDTH), step=jnp.asarray(step, jnp.int32)
  )
  mark = float(step) if value is None else value
  head = jax.tree.map(lambda leaf: jnp.full_like(leaf, mark), now.params["head"])
  return dataclasses.replace(now, params={**now.params, "head": head})


def save(workdir, *states):
  checkpointer = checkpointer_lib.Checkpointer(workdir, keep=5)
  for now in states:
    checkpointer.save(int(now.step), now)
  checkpointer.close()


@pytest.fixture(name="saved", scope="module")
def saved_fixture(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("saved") / "run"
  workdir.mkdir()
  (workdir / "config.json").write_text('{"task": "toy"}')
  save(workdir, at(2), at(4))
  return workdir


@pytest.fixture(name="run")
def run_fixture(saved, tmp_path):
  return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def restore(workdir):
  checkpointer = checkpointer_lib.Checkpointer(workdir, keep=5)
  try:
    return checkpointer.restore(
      toy.fresh(toy.make_optimizer()[0], width=WIDTH),
      mesh_lib.make(data=1, devices=jax.devices()[:1]),
    )
  finally:
    checkpointer.close()


def largest(step):
  return max(
    (path for path in (step / "state").rglob("*") if path.is_file()),
    key=lambda path: path.stat().st_size,
  )


def cut(path, size):
  os.truncate(path, size)


def half_of_the_files(step):
  for path in [path for path in sorted(step.rglob("*")) if path.is_file()][::2]:
    path.unlink()


def flip(step):
  """One bit of the numbers: in the largest file that is not JSON."""
  file = max(
    (path for path in (step / "state").rglob("d/*") if path.is_file()),
    key=lambda path: path.stat().st_size,
  )
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 4
  file.write_bytes(content)


DAMAGES = {
  "the folder is empty": lambda step: (shutil.rmtree(step), step.mkdir()),
  "largest file of 0 bytes": lambda step: cut(largest(step), 0),
  "largest file cut in half": lambda step: cut(largest(step), largest(step).stat().st_size // 2),
  "largest file deleted": lambda step: largest(step).unlink(),
  "half of the files deleted": half_of_the_files,
  "garbage for _METADATA": lambda step: (step / "state" / "_METADATA").write_text("garbage{"),
  "data position of 0 bytes": lambda step: cut(step / "data" / "metadata", 0),
  "state deleted": lambda step: shutil.rmtree(step / "state"),
  "one bit flipped": flip,
  "checksums cut": lambda step: cut(step / integrity.CHECKSUMS, 20),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_step_is_set_aside_and_the_one_before_it_taken(run, capsys, damage):
  step = run / "checkpoints" / "4"
  DAMAGES[damage](step)
  left = sorted(str(path.relative_to(step)) for path in step.rglob("*"))
  restored = restore(run)
  chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(at(2)))
  said = [line for line in capsys.readouterr().out.splitlines() if "is damaged" in line]
  assert (
    len(said) == 1 and f"checkpoint {step} is damaged (" in said[0] and "set aside as" in said[0]
  )
  aside = run / "checkpoints" / "damaged-4"
  # renamed, nothing is lost
  assert sorted(str(path.relative_to(aside)) for path in aside.rglob("*")) == left
  save(run, at(4))  # its number is free again
  assert integrity.steps(run / "checkpoints") == [4, 2]


@pytest.mark.parametrize(
  "damage",
  ["largest file of 0 bytes", "garbage for _METADATA", "state deleted", "data position of 0 bytes"],
)
def test_a_step_without_checksums_is_taken_for_damaged_when_it_cannot_be_read(run, damage):
  (run / "checkpoints" / "4" / integrity.CHECKSUMS).unlink()
  assert int(restore(run).step) == 4
  DAMAGES[damage](run / "checkpoints" / "4")
  assert int(restore(run).step) == 2 and (run / "checkpoints" / "damaged-4").is_dir()


def test_every_step_damaged_is_refused_once_and_then_begun_anew(run):
  for step in (2, 4):
    flip(run / "checkpoints" / str(step))
  with pytest.raises(
    errors.UserError,
    match="no good checkpoint is left in .*damaged-4, .*damaged-2.*once more starts from step 0",
  ):
    restore(run)
  assert restore(run) is None


def test_a_step_that_is_damaged_twice_keeps_both(run):
  for expected in ("damaged-4", "damaged-4-2"):
    flip(run / "checkpoints" / "4")
    restore(run)
    assert (run / "checkpoints" / expected).is_dir()
    save(run, at(4))


def test_a_garbled_description_of_the_state_is_named(run):
  (run / checkpointer_lib.SPEC).write_text("{")
  with pytest.raises(errors.UserError, match="state_spec.json is not JSON"):
    restore(run)


def kernel(path, capsys):
  params, _ = checkpoint.load(path)
  return float(params["head"]["kernel"][0, 0]), [
    line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")
  ]


def export(run, step):
  params = jax.device_get(at(step, 100.0 + step).params)
  weights.save(run / "weights", params, {"task": "toy"}, step=step, overwrite=True)


def test_the_newest_state_is_loaded_and_the_choice_is_said(run, capsys):
  assert kernel(run, capsys) == (4.0, [])
  export(run, 2)
  value, notes = kernel(run, capsys)
  assert value == 4.0 and len(notes) == 1
  assert (
    f"{run / 'weights'} is of step 2, the newest checkpoint of step 4: the checkpoint is used"
    in notes[0]
  )
  value, notes = kernel(run / "weights", capsys)
  assert value == 102.0 and len(notes) == 1
  assert (
    "is of step 2, its run has a checkpoint of step 4: the folder is used, as given" in notes[0]
  )
  for step in (4, 6):
    export(run, step)
    assert kernel(run, capsys) == kernel(run / "weights", capsys) == (100.0 + step, [])
  shutil.rmtree(run / "checkpoints")
  assert kernel(run, capsys) == (106.0, [])


def test_weights_that_do_not_say_their_step_are_not_taken_for_newer(run, capsys):
  export(run, 6)
  config = json.loads((run / "weights" / "config.json").read_text())
  (run / "weights" / "config.json").write_text(
    json.dumps({key: value for key, value in config.items() if key != "weights_step"})
  )
  value, notes = kernel(run, capsys)
  assert value == 4.0 and "is of step unknown, the newest checkpoint of step 4" in notes[0]


def test_a_damaged_checkpoint_is_not_loaded_and_not_touched(run, capsys):
  flip(run / "checkpoints" / "4")
  value, notes = kernel(run, capsys)
  assert value == 2.0 and len(notes) == 1 and "checkpoints/4 is damaged (state/" in notes[0]
  assert (run / "checkpoints" / "4").is_dir()  # the run may be another's
  export(run, 3)
  assert kernel(run, capsys)[0] == 103.0  # newer than what is whole
  shutil.rmtree(run / "weights")
  flip(run / "checkpoints" / "2")
  with pytest.raises(errors.UserError, match="checkpoints/4 is damaged .*checkpoints/2 is damaged"):
    checkpoint.load(run)


def test_after_a_loss_that_is_not_finite_the_step_before_the_bad_weights_is_left(tmp_path):
  save(tmp_path, at(2), at(4, np.nan), at(6))
  checkpointer = checkpointer_lib.Checkpointer(tmp_path, keep=5)
  assert checkpointer.restart_point(9) == 6
  # 6 is what the loss of step 7 comes from, 4 is not finite
  assert checkpointer.restart_point(7) == 2
  checkpointer.close()
  assert integrity.steps(tmp_path / "checkpoints") == [2] and int(restore(tmp_path).step) == 2


def test_nothing_is_checked_that_was_not_written(saved):
  """Every file of both items has its checksum."""
  step = saved / "checkpoints" / "4"
  listed = set(json.loads((step / integrity.CHECKSUMS).read_text())["files"])
  assert listed == {
    str(path.relative_to(step))
    for item in ("state", "data")
    for path in (step / item).rglob("*")
    if path.is_file()
  }
  assert len(trees.flatten(at(4).params)) > 1 and integrity.check(step)


def test_callbacks_into_a_closed_loop_are_not_printed_and_everything_else_is(tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(sys, "unraisablehook", said.append)
  monkeypatch.setattr(checkpointer_lib, "_unraisable", [])  # as in a new process
  checkpointer_lib.Checkpointer(tmp_path / "run", keep=1).close()
  assert sys.unraisablehook != said.append
  loop = asyncio.new_event_loop()
  loop.close()
  try:
    loop.call_soon_threadsafe(print)
  except RuntimeError as error:
    ours, from_outside = error.__traceback__, error.__traceback__.tb_next
    told = [
      types.SimpleNamespace(exc_value=value, exc_traceback=trace)
      for value, trace in (
        (error, from_outside),
        (error, ours),
        (error, None),
        (RuntimeError("another"), from_outside),
        (OSError("Event loop is closed"), from_outside),
      )
    ]
    for one in told:
      sys.unraisablehook(one)
  assert said == told[1:]
