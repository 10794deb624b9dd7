"""What earlier versions have left behind is still read: a tiny artifact of each, written by the
program of its time.
"""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, weights
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpoint, frozen_weights, integrity, state
from como_jax.train import checkpointer as checkpointer_lib
from tests import toy

# With checksums, all weights in the checkpoint, averaged weights: of the end of November 2026.
WHOLE = pathlib.Path(__file__).parent / "run_version_1"
RUN = pathlib.Path(__file__).parent / "run_version_0"  # no version, no checksums: November 2026
PARAMS = {
  "encoder": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7},
  "head": {"bias": np.float32([1.5, -2, 0.25])},
}


@pytest.fixture(name="run")
def run_fixture(tmp_path):
  """A copy: reading a checkpoint may write beside it."""
  return pathlib.Path(shutil.copytree(RUN, tmp_path / "run"))


def same(found):
  np.testing.assert_array_equal(found["encoder"]["kernel"], PARAMS["encoder"]["kernel"])
  np.testing.assert_array_equal(found["head"]["bias"], PARAMS["head"]["bias"])


def test_weights_without_a_version_are_read_and_are_of_the_last_step_of_their_run(run):
  params, config = weights.load(run / "weights")
  same(params)
  assert config == {"task": "motion", "seed": 0, "model": {"kind": "motion"}, "train": {"steps": 5}}
  assert weights.read_step(run / "weights") == 5


def test_a_checkpoint_without_a_version_is_read_and_resumed(run, capsys):
  params, config = checkpoint.load(run)
  same(params)
  assert config["train"]["steps"] == 50  # the run's, not that of the older weights
  assert (
    "is of step 5, the newest checkpoint of step 8: the checkpoint is used"
    in capsys.readouterr().out
  )
  tx, _ = toy.make_optimizer()
  fresh = state.create(jax.tree.map(jnp.zeros_like, PARAMS), tx, frozen=toy.FROZEN, ema=False)
  checkpointer = checkpointer_lib.Checkpointer(run, keep=2)
  restored = checkpointer.restore(fresh, mesh_lib.make(data=1, devices=jax.devices()[:1]))
  checkpointer.close()
  same(restored.params)
  assert int(restored.step) == 8


def test_what_a_later_version_has_written_is_refused_in_one_line(run):
  config = json.loads((run / "weights" / "config.json").read_text())
  (run / "weights" / "config.json").write_text(
    json.dumps({**config, "weights_version": weights.VERSION + 1})
  )
  with pytest.raises(
    errors.UserError,
    match=r"config.json: weights of format version 2, this program reads up to 1: update",
  ):
    weights.load(run / "weights")
  shutil.rmtree(run / "weights")
  (run / "checkpoints" / "8" / "data" / "metadata").write_text(
    json.dumps({"position": 8, "version": integrity.VERSION + 1})
  )
  with pytest.raises(
    errors.UserError,
    match=r"checkpoints/8 has format version 3, this program reads up to 2: update",
  ):
    checkpoint.load(run)
  tx, _ = toy.make_optimizer()
  fresh = state.create(jax.tree.map(jnp.zeros_like, PARAMS), tx, frozen=toy.FROZEN, ema=False)
  with pytest.raises(errors.UserError, match="format version 3"):
    checkpointer_lib.Checkpointer(run, keep=2).restore(
      fresh, mesh_lib.make(data=1, devices=jax.devices()[:1])
    )
  assert (run / "checkpoints" / "8").is_dir()  # nothing is wrong with it


def test_a_checkpoint_with_the_frozen_weights_inside_is_read_resumed_and_saved_without_them(
  tmp_path,
):
  run = pathlib.Path(shutil.copytree(WHOLE, tmp_path / "run"))
  params, _ = checkpoint.load(run)
  np.testing.assert_array_equal(params["encoder"]["kernel"], PARAMS["encoder"]["kernel"])
  np.testing.assert_array_equal(params["head"]["bias"], PARAMS["head"]["bias"] / 2)  # averaged
  tx, _ = toy.make_optimizer()
  fresh = state.create(jax.tree.map(jnp.zeros_like, PARAMS), tx, frozen=toy.FROZEN, ema=True)
  checkpointer = checkpointer_lib.Checkpointer(run, keep=2, frozen=toy.FROZEN)
  mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])
  restored = checkpointer.restore(fresh, mesh)
  same(restored.params)
  assert int(restored.step) == 8 and not (run / frozen_weights.FOLDER).exists()
  checkpointer.save(9, dataclasses.replace(restored, step=jnp.asarray(9, jnp.int32)))
  checkpointer.wait()
  saved = checkpoint.read_state(run / "checkpoints" / "9" / "state")
  assert set(saved["params"]) == {"head"} and set(integrity.steps(run / "checkpoints")) == {8, 9}
  same(checkpointer.restore(fresh, mesh).params)
  checkpointer.close()
  params, _ = checkpoint.load(run)
  np.testing.assert_array_equal(params["encoder"]["kernel"], PARAMS["encoder"]["kernel"])
