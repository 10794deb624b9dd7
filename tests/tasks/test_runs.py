"""What a training task does around its loop, with a toy for a model: resuming, refusing,
exporting.
"""

import json
import sys
import types

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, main, tasks, weights
from como_jax.data import read_options
from como_jax.train import data_identity, memory, rundir
from como_jax.train import fit as fit_lib
from como_jax.train import job as job_lib
from tests import toy


class Model:
  """Of a few parameters; hashable, as all models are."""

  frozen, config = toy.FROZEN, {}

  def init(self, key):
    del key
    return toy.params(width=8)


MODEL = Model()
BATCH = {
  name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in toy.batch(0).items()
}


def shards(folder, *, episodes=3, source="aa", bytes_=5):
  """A folder that is described as shards."""
  folder.mkdir(exist_ok=True)
  (folder / "shard-0").write_bytes(b"x" * bytes_)
  (folder / "manifest.json").write_text(
    json.dumps(
      {
        "source": {"fingerprint": source},
        "counts": {"episodes": episodes, "frames": 10 * episodes},
        "shards": [{"file": "shard-0"}],
      }
    )
  )
  return folder


@pytest.fixture(name="fit")
def fit_fixture(tmp_path, monkeypatch):
  """Runs the toy task through `tasks.run`; returns its exit code."""
  shards(tmp_path / "data")

  def fit(
    *words, steps, batches=toy.batches, evaluate=None, init_from_data=None, path="", **changes
  ):
    config = config_lib.ConfigDict(
      {"task": "toy", "seed": 0, "data": {"path": path or str(tmp_path / "data"), "mixture": ()}}
    )
    changes = {
      "checkpoint_every": 2,
      "keep_checkpoints": 9,
      "log_every": 1,
      "tensorboard": False,
      **changes,
    }
    config.train = config_lib.train(batch_size=16, steps=steps, mesh__data=1, **changes)
    command = config_lib.CommandLine(
      config, "toy", tmp_path / "run", resume="--resume" in words, overwrite="--overwrite" in words
    )

    def job():
      return job_lib.TrainJob(
        model=MODEL,
        loss=toy.loss,
        weights=toy.WEIGHTS,
        batches=batches,
        evaluate=evaluate,
        examples_per_step=16,
        unit="pairs",
        init_from_data=init_from_data,
        read_options=read_options.ReadOptions(0, 1, 1, "here"),
        batch=BATCH,
        data=[(str(tmp_path / "data"), "")],
      )

    with monkeypatch.context() as patch:
      make = fit_lib.mesh_lib.make
      patch.setattr(
        fit_lib.mesh_lib, "make", lambda **shape: make(**shape, devices=jax.devices()[:1])
      )
      patch.setattr(tasks, "TASKS", ("toy",))
      patch.setitem(
        sys.modules,
        "como_jax.tasks.toy",
        types.SimpleNamespace(run=lambda command: fit_lib.fit(command, job)),
      )
      return tasks.run(command)

  return fit


def step_of(run):
  return weights.read_step(run / "weights")


def test_fewer_steps_than_done_change_nothing(fit, tmp_path, capsys):
  run = tmp_path / "run"
  assert fit(steps=4) == 0 and step_of(run) == 4
  devices = jax.devices()
  assert (
    f"trainable; devices {len(devices)} x {devices[0].device_kind} ({devices[0].platform}), mesh {{"
    in capsys.readouterr().out
  )
  before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
  assert fit("--resume", steps=3) == 0
  assert (
    capsys.readouterr().out
    == f"already at step 4 of 3 asked: nothing to do; {run / 'weights'} holds its weights\n"
  )
  assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
  weights.save(run / "weights", {"a": np.zeros(1)}, {}, step=2, overwrite=True)
  assert fit("--resume", steps=3) == 0
  assert (
    f"{run / 'weights'} is of step 2, the checkpoint of step 4 is what other tasks use; "
    "--config.train.steps=4 exports it"
  ) in capsys.readouterr().out
  assert fit("--resume", steps=4) == 0 and step_of(run) == 4


def test_what_a_job_measures_is_where_its_weights_begin_and_is_not_measured_again(fit, tmp_path):
  seen = []

  def init_from_data(params):
    seen.append(jax.tree.map(np.asarray, params))
    return {"head": {"bias": np.arange(8)}}

  fit(steps=2, init_from_data=init_from_data, ema=0.5, optimizer__learning_rate=0.0)
  (given,) = seen
  fit("--resume", steps=4, init_from_data=init_from_data, ema=0.5, optimizer__learning_rate=0.0)
  assert len(seen) == 1
  found, _ = weights.load(tmp_path / "run" / "weights")
  # these are the averaged weights
  np.testing.assert_array_equal(found["head"]["bias"], np.arange(8, dtype=np.float32))
  np.testing.assert_array_equal(found["head"]["kernel"], given["head"]["kernel"])
  np.testing.assert_array_equal(found["encoder"]["kernel"], given["encoder"]["kernel"])
  assert step_of(tmp_path / "run") == 4 and not given["head"]["bias"].any()


def test_steps_and_learning_rate_changed_on_resume_are_shown(fit, capsys):
  fit(steps=4)
  capsys.readouterr()
  assert fit("--resume", steps=8, optimizer__clip_norm=0.25) == 0
  out = capsys.readouterr().out
  assert (
    "resume: train.steps: 4 before, 8 now" in out
    and "resume: train.optimizer.clip_norm: 0.5 before, 0.25 now" in out
  )
  # linear to a tenth
  assert "resume: the learning rate of step 4 was 1e-05 and is now 5.5e-05 (" in out
  assert fit("--resume", steps=8) == 0 and "learning rate" not in capsys.readouterr().out


def test_what_is_advised_after_a_loss_that_is_not_finite_works(fit, tmp_path):
  run = tmp_path / "run"
  with pytest.raises(
    errors.NonFiniteError,
    match=r"--resume goes on from step 0.*lower --config.train.optimizer.learning_rate",
  ):
    fit(steps=6, checkpoint_every=1, optimizer__learning_rate=3e38)
  assert (run / "checkpoints" / "damaged-1").is_dir() and not (run / "weights").exists()
  assert fit("--resume", steps=6, optimizer__learning_rate=1e-3) == 0 and step_of(run) == 6


def test_weights_that_are_not_finite_are_not_exported(fit, tmp_path, monkeypatch):
  monkeypatch.setattr(
    fit_lib.distributed, "gather", lambda tree, keep: {"a": np.float32([1, np.inf])}
  )
  with pytest.raises(
    errors.NonFiniteError,
    match="step 1: the weights are infinite or not a number and are not exported",
  ):
    fit(steps=1)
  assert not (tmp_path / "run" / "weights").exists()


@pytest.mark.parametrize(
  "change, says",
  [
    (
      dict(episodes=4, source="bb"),
      (
        "the source's files, the manifest of the shards changed (3 episodes, 30 frames before and "
        "4 episodes, 40 frames now)"
      ),
    ),
    (dict(bytes_=6), "the shard files changed"),
  ],
  ids=["a video more", "another shard"],
)
def test_changed_data_are_refused_on_resume_unless_accepted(fit, tmp_path, capsys, change, says):
  run = tmp_path / "run"
  fit(steps=2)
  before = (run / data_identity.FILE).read_text()
  shards(tmp_path / "data", **change)
  with pytest.raises(errors.UserError) as caught:
    fit("--resume", steps=4)
  assert f"{run} was started with: {tmp_path / 'data'}: {says}" in str(
    caught.value
  ) and "--config.train.accept_changed_data=True" in str(caught.value)
  assert (run / data_identity.FILE).read_text() == before and json.loads(
    (run / rundir.CONFIG).read_text()
  )["train"]["steps"] == 2
  capsys.readouterr()
  assert fit("--resume", steps=4, accept_changed_data=True) == 0 and step_of(run) == 4
  assert f"resume: {tmp_path / 'data'}: {says}" in capsys.readouterr().out
  assert fit("--resume", steps=6) == 0  # what was accepted is what it goes on with


def test_a_run_begun_before_data_were_recorded_is_resumed(fit, tmp_path):
  fit(steps=2)
  (tmp_path / "run" / data_identity.FILE).unlink()
  assert fit("--resume", steps=4) == 0 and (tmp_path / "run" / data_identity.FILE).exists()


def test_a_run_that_cannot_fit_into_memory_leaves_nothing_behind(fit, tmp_path, monkeypatch):
  monkeypatch.setattr(memory, "host", lambda: 100)
  with pytest.raises(
    errors.UserError,
    match="the state of the run .* alone needs .*batch_size=16.*configs/compile.py",
  ):
    fit(steps=2)
  state = memory.size(toy.fresh(toy.make_optimizer()[0], width=8))
  monkeypatch.setattr(memory, "host", lambda: state)
  with pytest.raises(
    errors.UserError, match="a train step needs .*batch_size=16, accumulate=1.*configs/compile.py"
  ):
    fit(steps=2)
  assert not (tmp_path / "run").exists()


def test_running_out_of_memory_is_one_line(fit):
  def greedy(start):
    raise jax.errors.JaxRuntimeError(
      "RESOURCE_EXHAUSTED: Out of memory allocating 60426030968 bytes.\nmore"
    )
    yield

  with pytest.raises(
    errors.OutOfMemoryError,
    match=(
      r"^out of memory when it asked for 56\.3 GiB "
      r".*train.batch_size.*accumulate.*configs/compile.py"
    ),
  ):
    fit(steps=2, batches=greedy)


def test_a_failed_validation_is_told_at_the_end_and_the_weights_are_there(fit, tmp_path, capsys):
  def evaluate(params):
    raise errors.UserError("record 3 of shard 0 cannot be read")

  assert fit(steps=2, evaluate=evaluate, evaluate_every=1) == 0 and step_of(tmp_path / "run") == 2
  assert "the validation failed at step 1, 2 (see above)" in capsys.readouterr().out


def test_a_full_disk_anywhere_is_one_line_and_what_a_kill_left_is_removed(
  fit, tmp_path, monkeypatch
):
  write = rundir.atomic.write

  def full(path, text):
    if path.name == "speed.json":
      raise OSError(28, "No space left on device", str(path))
    write(path, text)

  monkeypatch.setattr(rundir.atomic, "write", full)
  with pytest.raises(
    errors.StorageError,
    match=(
      r"^cannot write .*run/speed.json: No space left on device: make room, then give " r"--resume$"
    ),
  ):
    fit(steps=1)
  monkeypatch.setattr(rundir.atomic, "write", write)
  (tmp_path / "run" / ".weights.new-12345678").mkdir()
  assert fit("--resume", steps=1) == 0 and step_of(tmp_path / "run") == 1
  assert not list((tmp_path / "run").glob(".weights*"))


def test_the_first_step_finds_its_program_compiled(fit, monkeypatch):
  """The estimate of memory must not cost a second compilation, whatever a sample says beside what
  the loss reads.
  """
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **more: compiled.append(name)
  )

  def more(start):
    return ({**batch, "seconds": np.ones(16, np.float32)} for batch in toy.batches(start))

  fit(steps=2, batches=more)
  count = sum("backend_compile" in name for name in compiled)
  del compiled[:]
  monkeypatch.setattr(fit_lib.job, "check_memory", lambda *args: None)
  fit("--overwrite", steps=2, batches=more)
  assert sum("backend_compile" in name for name in compiled) == count > 0


def test_the_exit_codes_are_those_of_the_program(capsys, monkeypatch):
  for error, code in (
    (errors.OutOfMemoryError("no room"), 1),
    (errors.StorageError("full"), 1),
    (errors.NonFiniteError("nan"), 3),
  ):

    def run(command, error=error):
      raise error

    monkeypatch.setattr(tasks, "run", run)
    assert main.main(["main", "--config=configs/motion.py:debug", "--workdir=unused"]) == code
    assert capsys.readouterr().err == f"error: {error}\n"
