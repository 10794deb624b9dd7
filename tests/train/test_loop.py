"""Save before drawing, exact resume (also on another mesh), signals, non-finite stop, logs without
lost lines.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest

from como_jax import errors
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import checkpoint, log, loop, meter, step
from como_jax.train import checkpointer as checkpointer_lib
from tests import toy


def train(
  workdir,
  *,
  steps,
  resume=False,
  shape=(1, 1, 1),
  on_step=None,
  batches=toy.batches,
  evaluate=None,
  data_advice="",
):
  workdir.mkdir(exist_ok=True)
  mesh = mesh_lib.make(
    data=shape[0], fsdp=shape[1], tensor=shape[2], devices=jax.devices()[: int(np.prod(shape))]
  )
  tx, rate = toy.make_optimizer()
  now = toy.fresh(tx, ema=True)
  now = jax.device_put(now, rules.shardings(now, mesh))
  checkpointer = checkpointer_lib.Checkpointer(workdir, keep=2)
  if resume:
    now = checkpointer.restore(now, mesh)
  start = int(now.step)
  writer = log.Log(workdir, steps=steps, start=start, tensorboard=False)
  function = step.TrainStep(
    toy.loss,
    tx,
    step.StepOptions(
      weights=toy.WEIGHTS, frozen=toy.FROZEN, seed=0, ema_decay=0.9, lr_schedule=rate
    ),
    mesh=mesh,
    state=now,
  )
  try:
    return loop.TrainLoop(
      function,
      loop.Schedule(steps, log_every=1, checkpoint_every=2, evaluate_every=3),
      loop.Throughput(16, "pairs", data_advice),
      writer,
      checkpointer,
      evaluate,
      on_step,
    ).run(now, batches(start))
  finally:
    writer.close()
    checkpointer.close()


def losses(workdir):
  steps, values = log.read(workdir, kind="train")["loss"]
  assert steps == list(range(1, len(steps) + 1))
  return values


class Killed(Exception):
  pass


def test_resume_is_bitwise(tmp_path):
  whole = train(tmp_path / "whole", steps=7)

  def die(done):
    if done == 5:
      raise Killed

  with pytest.raises(Killed):
    train(tmp_path / "parts", steps=7, on_step=die)
  parts = train(tmp_path / "parts", steps=7, resume=True)
  chex.assert_trees_all_equal(jax.device_get(parts.state), jax.device_get(whole.state))
  assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_resume_on_another_mesh(tmp_path):
  whole = train(tmp_path / "whole", steps=6)
  train(tmp_path / "parts", steps=4)
  parts = train(tmp_path / "parts", steps=6, resume=True, shape=(2, 4, 1))
  np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=1e-5)
  assert int(parts.state.step) == int(whole.state.step) == 6


def test_data_position_is_the_checkpointed_step(tmp_path):
  drawn = []

  def counting(start):
    for i, batch in enumerate(toy.batches(start)):
      drawn.append(start + i)
      yield batch

  train(tmp_path / "run", steps=4, batches=counting)
  assert drawn == [0, 1, 2, 3]  # nothing is drawn beyond the last step
  saved = tmp_path / "run" / "checkpoints" / "4" / "data" / "metadata"
  assert json.loads(saved.read_text())["position"] == 4


def test_sigterm_saves_and_says_so(tmp_path):
  outcome = train(
    tmp_path / "run",
    steps=50,
    on_step=lambda done: os.kill(os.getpid(), signal.SIGTERM) if done == 3 else None,
  )
  assert outcome.stopped and int(outcome.state.step) == 3
  assert checkpointer_lib.Checkpointer(tmp_path / "run", keep=2).latest() == 3


def test_non_finite_loss_stops_and_names_the_step(tmp_path):
  def poisoned(start):
    for i, batch in enumerate(toy.batches(start)):
      if start + i == 4:
        batch["y"] = batch["y"] * np.nan
      yield batch

  with pytest.raises(
    errors.NonFiniteError,
    match=(
      r"step 5: .*error = nan.*--resume goes on from the checkpoint of step 2, whose weights "
      r"are finite"
    ),
  ):
    # step 4 is computed, not what it was computed from: it would be met again
    train(tmp_path / "run", steps=10, batches=poisoned)
  params, _ = _load(tmp_path / "run")
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
  with pytest.raises(
    errors.NonFiniteError,
    match=r"step 1: .*--resume goes on from step 0, there is no checkpoint before it",
  ):
    train(
      tmp_path / "first",
      steps=10,
      batches=lambda start: ({**batch, "y": batch["y"] * np.nan} for batch in toy.batches(start)),
    )


def test_fewer_steps_than_done_end_at_once(tmp_path):
  train(tmp_path / "run", steps=6)

  def drawn(start):
    raise AssertionError("a batch was drawn")
    yield

  outcome = train(tmp_path / "run", steps=4, resume=True, batches=drawn)
  assert int(outcome.state.step) == 6 and not outcome.stopped


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_log_that_cannot_be_written_stops_the_run_with_a_checkpoint_and_names_the_file(
  tmp_path, monkeypatch
):
  kept = log.Log.__init__

  def onto_a_full_disk(self, *args, **settings):
    kept(self, *args, **settings)
    self._file.close()
    self._file = open("/dev/full", "a")  # noqa: SIM115  its owner closes it

  monkeypatch.setattr(log.Log, "__init__", onto_a_full_disk)
  with pytest.raises(
    errors.StorageError,
    match=r"cannot write .*run/metrics.jsonl: No space left on device; step 2 is saved: make room",
  ):
    train(tmp_path / "run", steps=50)
  (tmp_path / "run" / "config.json").write_text("{}")
  assert checkpoint.find(tmp_path / "run").step == 2


def test_a_checkpoint_that_cannot_be_written_is_one_line_with_the_last_good_step(
  tmp_path, monkeypatch
):
  def full(self, *args, **settings):
    self.wait_until_finished()
    raise ValueError(
      "RESOURCE_EXHAUSTED: Failed to write 182 bytes to file 4: No space left on device "
      '[os_error_code="28"]'
    )

  def fill(done):
    if done == 3:
      monkeypatch.setattr(checkpointer_lib.ocp.CheckpointManager, "save", full)

  with pytest.raises(
    errors.StorageError,
    match=(
      "cannot write a checkpoint into .*run/checkpoints: No space left on device; the last one "
      "is of step 2: make"
    ),
  ):
    train(tmp_path / "run", steps=50, on_step=fill)


@pytest.mark.parametrize(
  "error", [errors.UserError("record 3 of shard 0 cannot be read"), ValueError("anything")]
)
def test_an_evaluation_that_fails_does_not_keep_a_run_from_its_end(tmp_path, capsys, error):
  def evaluate(now):
    if int(now.step) == 6:
      return {"score": 1.0}
    raise error

  outcome = train(tmp_path / "run", steps=7, evaluate=evaluate)
  assert int(outcome.state.step) == 7 and outcome.failed_evaluations == (3, 7)
  said = [
    line
    for line in capsys.readouterr().out.splitlines()
    if "the validation failed and is left out" in line
  ]
  assert [line.partition(":")[0] for line in said] == ["step 3", "step 7"] and all(
    str(error) in line for line in said
  )
  assert log.read(tmp_path / "run", kind="validation")["score"] == ([6], [1.0])


def test_what_tensorboard_cannot_write_is_said_once_and_the_run_goes_on(tmp_path, capsys):
  from tensorboardX.proto import event_pb2

  writer = log.Log(tmp_path, steps=9, start=3, tensorboard=True)
  writer.write(4, {"loss": 0.5})
  content = next((tmp_path / "tensorboard").iterdir()).read_bytes()
  events, at = [], 0
  while at < len(content):  # length, its checksum, the event, its checksum
    size = int.from_bytes(content[at : at + 8], "little")
    events.append(event_pb2.Event.FromString(content[at + 12 : at + 12 + size]))
    at += 16 + size
  assert [(event.step, event.session_log.status) for event in events[1:2]] == [
    (3, event_pb2.SessionLog.START)
  ]
  assert [
    (event.step, value.tag, value.simple_value) for event in events for value in event.summary.value
  ] == [(4, "train/loss", 0.5)]

  def full():
    raise OSError(28, "No space left on device")

  writer._board._writer.flush = full
  for number in (5, 6):
    writer.write(number, {"loss": 0.5})
  writer.close()
  assert capsys.readouterr().out.count("tensorboard: cannot write") == 1
  assert log.read(tmp_path, kind="train")["loss"][0] == [4, 5, 6]


def _load(workdir):
  (workdir / "config.json").write_text("{}")
  return checkpoint.load(workdir)


def test_evaluation_inside_training_is_logged(tmp_path):
  train(tmp_path / "run", steps=6, evaluate=lambda now: {"score": float(now.step)})
  assert log.read(tmp_path / "run", kind="validation")["score"] == ([3, 6], [3.0, 6.0])


def test_load_gives_the_averaged_weights_of_a_run(tmp_path):
  outcome = train(tmp_path / "run", steps=2)
  params, _ = _load(tmp_path / "run")
  np.testing.assert_array_equal(params["head"]["kernel"], outcome.state.ema["head"]["kernel"])
  np.testing.assert_array_equal(
    params["encoder"]["kernel"], outcome.state.params["encoder"]["kernel"]
  )


def test_a_sharded_checkpoint_loads_on_one_device_and_a_broken_one_is_named(tmp_path):
  outcome = train(tmp_path / "run", steps=2, shape=(2, 4, 1))
  code = (
    "import sys; from como_jax.train import checkpoint; import numpy as np\nparams, _ = "
    "checkpoint.load(sys.argv[1]); np.save(sys.argv[1] + '/kernel.npy', params['head']['kernel'])"
  )
  (tmp_path / "run" / "config.json").write_text("{}")
  env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
  subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True, env=env)
  np.testing.assert_array_equal(
    np.load(tmp_path / "run" / "kernel.npy"), outcome.state.ema["head"]["kernel"]
  )
  for file in (tmp_path / "run" / "checkpoints" / "2" / "state").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  with pytest.raises(errors.UserError, match="checkpoints/2 is damaged .*0 bytes"):
    checkpoint.load(tmp_path / "run")


def test_resume_does_not_validate_twice(tmp_path):
  train(tmp_path / "run", steps=6, evaluate=lambda now: {"score": 1.0})
  train(tmp_path / "run", steps=8, resume=True, evaluate=lambda now: {"score": 2.0})
  assert log.read(tmp_path / "run", kind="validation")["score"] == ([3, 6, 8], [1.0, 1.0, 2.0])


def test_checkpoint_of_another_model_is_refused_by_name(tmp_path):
  train(tmp_path / "run", steps=2)
  tx, _ = toy.make_optimizer()
  other = toy.fresh(tx, ema=True, width=32)
  mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])
  with pytest.raises(errors.UserError, match="another model.*encoder/kernel is float32"):
    checkpointer_lib.Checkpointer(tmp_path / "run", keep=2).restore(other, mesh)


def test_a_slow_source_is_named_as_the_bottleneck(tmp_path, capsys):
  def slow(start):
    for batch in toy.batches(start):
      time.sleep(0.05)
      yield batch

  outcome = train(
    tmp_path / "run",
    steps=45,
    batches=slow,
    data_advice=meter.advice(workers=0, threads=4, prefetch=8, host="CPU cores 2"),
  )
  said = [
    line for line in capsys.readouterr().out.splitlines() if line.startswith("waiting for data")
  ]
  assert len(said) == 1, said  # once in a while, not at every log line
  pattern = (
    r"waiting for data (\d+)% of the time: raise config.data.workers \(now 0; this process: CPU "
    r"cores 2\) or config.data.threads \(now 4\)"
  )
  share = int(re.match(pattern, said[0])[1])
  assert share >= 20 and outcome.wait_share > 0.2
  train(tmp_path / "fast", steps=45)
  assert "waiting for data" not in capsys.readouterr().out


def test_the_bottleneck_line_comes_again_and_names_the_process():
  now = [0.0]
  bottleneck = meter.Bottleneck("advice", clock=lambda: now[0])
  lines = []
  for _ in range(1400):
    bottleneck.add([0.0, 0.5])
    now[0] += 1.0
    lines.append(bottleneck.line())
  # every ten minutes
  assert [line for line in lines if line] == [
    "waiting for data 50% of the time in process 1: advice"
  ] * 3
  bottleneck = meter.Bottleneck("advice", clock=lambda: now[0])
  for _ in range(10):
    bottleneck.add([0.1])
    now[0] += 1.0
    assert not bottleneck.line()


def test_evaluation_does_not_count_as_training_time():
  speed = meter.Meter(10)
  speed.finished()
  for _ in range(2):
    time.sleep(0.02)
    speed.finished()
  rate = speed.rate
  with speed.paused():
    time.sleep(0.1)
  assert speed.rate == rate  # at the end of a run nothing follows the evaluation
  speed.finished()
  assert speed.seconds < 0.1


def test_a_cut_last_line_of_the_log_is_dropped(tmp_path):
  train(tmp_path / "run", steps=4)
  path = tmp_path / "run" / log.FILE
  path.write_text(path.read_text() + '{"step": 5, "ki')
  train(tmp_path / "run", steps=6, resume=True)
  assert len(losses(tmp_path / "run")) == 6
