"""Frozen weights are written once, whole or not at all, and no step is lost with their file."""

import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from como_jax import errors, trees, weights
from como_jax.inference import fingerprints
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpoint, checkpointer, frozen_weights, integrity
from tests import toy

WIDTH = 8
ROOT = pathlib.Path(__file__).parent.parent.parent


def at(step, *, seed=0):
  """The toy state of a step; its frozen kernel has a -0.0, whose sign is a bit like any other."""
  params = toy.params(seed=seed, width=WIDTH)
  params["encoder"]["kernel"] = params["encoder"]["kernel"].at[0, 0].set(-0.0)
  fresh = toy.fresh(toy.make_optimizer()[0], width=WIDTH)
  return dataclasses.replace(fresh, step=jnp.asarray(step, jnp.int32), params=params)


def opened(workdir):
  return checkpointer.Checkpointer(workdir, keep=5, frozen=toy.FROZEN)


def save(workdir, *states):
  saving = opened(workdir)
  for now in states:
    saving.save(int(now.step), now)
  saving.close()


def restore(workdir, start=None, *, devices=1):
  restoring = opened(workdir)
  try:
    mesh = mesh_lib.make(data=devices, devices=jax.devices()[:devices])
    return restoring.restore(at(0) if start is None else start, mesh)
  finally:
    restoring.close()


def bits(tree):
  return {
    name: np.asarray(leaf).tobytes() for name, leaf in trees.flatten(jax.device_get(tree)).items()
  }


@pytest.fixture(name="saved", scope="module")
def _saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("saved") / "run"
  workdir.mkdir()
  (workdir / "config.json").write_text('{"task": "toy"}')
  save(workdir, at(2), at(4))
  return workdir


@pytest.fixture(name="run")
def _run(saved, tmp_path):
  return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def the_file(run):
  (found,) = (run / frozen_weights.FOLDER).iterdir()
  return found


def test_steps_have_the_checksum_and_the_weights_are_written_once(run):
  for step in (2, 4):
    folder = run / "checkpoints" / str(step)
    assert set(checkpoint.read_state(folder / "state")["params"]) == {"head"}
    assert frozen_weights.checksum_of(folder) == the_file(run).stem == weights.digest(the_file(run))
    assert frozen_weights.problem_of(folder) == "" and integrity.check(folder)
  spec = json.loads((run / checkpointer.SPEC).read_text())
  assert spec["params/encoder/kernel"] == [[8, WIDTH], "float32", the_file(run).stem]
  assert spec["params/head/kernel"] == [[WIDTH, WIDTH], "float32"]
  written = the_file(run).stat().st_mtime_ns
  going_on = opened(run)
  now = going_on.restore(at(0), mesh_lib.make(data=1, devices=jax.devices()[:1]))
  going_on.save(6, dataclasses.replace(now, step=jnp.asarray(6, jnp.int32)))
  going_on.close()
  assert the_file(run).stat().st_mtime_ns == written
  assert frozen_weights.checksum_of(run / "checkpoints" / "6") == the_file(run).stem


@pytest.mark.parametrize("devices", [1, 8])
def test_every_bit_comes_back(run, devices):
  start = at(0, seed=1)  # other weights: those of the run are taken
  restored = restore(run, start, devices=devices)
  chex.assert_trees_all_equal(jax.device_get(restored), jax.device_get(at(4)))
  assert bits(restored.params) == bits(at(4).params)
  params, _ = checkpoint.load(run)
  assert bits(params) == bits(at(4).params)


def test_weights_keep_their_type(tmp_path):
  half = {"a": {"b": np.array([1.5, -0.0], ml_dtypes.bfloat16)}, "c": np.float32(3)}
  checksum = frozen_weights.write(tmp_path, half)
  found = weights.read_safetensors(frozen_weights.file(tmp_path, checksum))
  assert bits(found) == bits(half) and found["a/b"].dtype == ml_dtypes.bfloat16
  target = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=mesh_lib.replicated(mesh_lib.make(data=8))
    ),
    half,
  )
  placed = frozen_weights.place(found, target)
  assert bits(placed) == bits(half) and len(placed["c"].sharding.device_set) == 8
  assert frozen_weights.differences(found, target) == ""
  del found["c"]
  assert frozen_weights.differences(found, target) == "c is missing or of another shape or type"
  found["c"] = np.float64(3)
  assert frozen_weights.differences(found, target) == "c is missing or of another shape or type"


DAMAGES = {
  "is missing": lambda path: path.unlink(),
  "holds other bytes than were written": lambda path: path.write_bytes(
    path.read_bytes()[:-1] + b"?"
  ),
}


@pytest.mark.parametrize("text", DAMAGES)
def test_a_lost_file_is_written_again_from_what_the_run_began_with(run, capsys, text):
  path = the_file(run)
  before = path.read_bytes()
  DAMAGES[text](path)
  folder = run / "checkpoints" / "4"
  assert frozen_weights.problem_of(folder) == f"frozen/{path.name} {text}"
  with pytest.raises(
    errors.UserError, match=f"checkpoints/4 is damaged .frozen/{path.name} {text}"
  ):
    checkpoint.load(run)
  assert bits(restore(run).params) == bits(at(4).params)
  assert capsys.readouterr().out == (
    f"frozen weights: frozen/{path.name} {text}: written again from those that the run began with\n"
  )
  assert the_file(run).read_bytes() == before and integrity.steps(run / "checkpoints") == [4, 2]


@pytest.mark.parametrize("text", DAMAGES)
def test_a_lost_file_that_nobody_has_is_named_and_no_step_is_set_aside(run, text):
  path = the_file(run)
  DAMAGES[text](path)
  there = path.exists()
  for _ in range(2):
    with pytest.raises(errors.UserError) as caught:
      restore(run, at(0, seed=1))
    assert str(caught.value) == (
      f"--resume: the frozen weights of the run cannot be used (frozen/{path.name} {text}), and "
      f"those of the config are others: put {path} back"
    )
  assert integrity.steps(run / "checkpoints") == [4, 2] and path.exists() == there
  assert len(list(path.parent.iterdir())) == there, "nothing of the others is left"


def test_a_file_of_another_model_is_refused(run):
  step = run / "checkpoints" / "4"
  other = frozen_weights.write(run, {"encoder": {"bias": np.zeros(3, np.float32)}})
  (step / integrity.CHECKSUMS).unlink()
  (step / "data" / "metadata").write_text(json.dumps({"position": 4, "frozen": other}))
  with pytest.raises(errors.UserError) as caught:
    restore(run)
  assert str(caught.value) == (
    f"{frozen_weights.file(run, other)}: encoder/bias, encoder/kernel is missing or of another "
    "shape or type"
  )


KILLED = """
import os, signal, sys
import orbax.checkpoint as ocp
from como_jax import weights
from tests.train import test_frozen_weights as here

def die(*args, **more):
  os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "step":
  ocp.CheckpointManager.save = die
else:
  write = weights.write_safetensors
  def half(path, flat):
    write(path, flat)
    os.truncate(path, 100)
    die()
  weights.write_safetensors = half
here.save(here.pathlib.Path(sys.argv[1]), here.at(2))
"""


@pytest.mark.parametrize("when", ["step", "file"])
def test_a_kill_before_the_first_step_is_there_loses_nothing(tmp_path, when):
  """After the file of frozen weights, or within it."""
  killed = subprocess.run(
    [sys.executable, "-c", KILLED, str(tmp_path), when], cwd=ROOT, capture_output=True, text=True
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  left = [path.name for path in (tmp_path / frozen_weights.FOLDER).iterdir()]
  assert len(left) == 1 and (left[0] == ".params.safetensors.new") == (when == "file")
  assert restore(tmp_path) is None, "nothing was saved: the run begins again"
  save(tmp_path, at(2), at(4))
  assert the_file(tmp_path).stem == weights.digest(the_file(tmp_path))
  assert bits(restore(tmp_path, at(0, seed=1)).params) == bits(at(4).params)


def test_nothing_frozen_leaves_no_file(tmp_path):
  saving = checkpointer.Checkpointer(tmp_path, keep=2)
  saving.save(2, at(2))
  saving.close()
  assert not (tmp_path / frozen_weights.FOLDER).exists()
  assert frozen_weights.checksum_of(tmp_path / "checkpoints" / "2") == ""
  assert bits(checkpoint.read_state(tmp_path / "checkpoints" / "2" / "state")["params"]) == bits(
    at(2).params
  )


def test_a_file_that_may_not_be_read_is_not_damaged(run, monkeypatch):
  def refused(path):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(weights, "digest", refused)
  with pytest.raises(
    errors.StorageError, match=f"^cannot read {the_file(run)}: Permission denied$"
  ):
    frozen_weights.problem(run, the_file(run).stem)


def test_the_identity_of_a_policy_depends_on_its_frozen_weights(run):
  before = fingerprints.of_policy(str(run))["xxh64"]
  other = frozen_weights.write(run, {"encoder": {"kernel": np.ones((8, WIDTH), np.float32)}})
  assert fingerprints.of_policy(str(run))["xxh64"] == before
  metadata = run / "checkpoints" / "4" / "data" / "metadata"
  (run / "checkpoints" / "4" / integrity.CHECKSUMS).unlink()
  metadata.write_text(json.dumps({"position": 4, "version": 2, "frozen": other}))
  assert fingerprints.of_policy(str(run))["xxh64"] != before
