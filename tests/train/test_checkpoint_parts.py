"""Checkpoints piece by piece: what is written and kept, and each message."""

import json
import logging
import threading
import time
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from como_jax import errors
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import checkpoint, checkpointer, integrity
from tests.train.step_folders import message, raises

STATE = {"params": {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, "step": np.int32(3)}


def manager(**methods):
  """A manager of paper that has saved nothing."""
  return types.SimpleNamespace(
    **{
      "all_steps": list,
      "save": lambda *a, **k: None,
      "wait_until_finished": lambda: None,
      "close": lambda: None,
      **methods,
    }
  )


@pytest.fixture(name="paper")
def _paper(tmp_path):
  """A checkpointer whose manager writes nothing."""
  made = checkpointer.Checkpointer(tmp_path / "run", keep=2)
  made._manager.close()
  made._manager = manager()
  return made


def test_a_step_is_saved_once_the_newest_are_kept_and_what_a_kill_left_is_removed(tmp_path):
  left = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp"
  left.mkdir(parents=True)
  saved = checkpointer.Checkpointer(tmp_path, keep=2)
  assert saved.latest() is None
  for step in (2, 4, 6):
    saved.save(step, {"a": jnp.asarray([1.0, step])})
  saved.wait()
  assert not left.exists()
  spec = tmp_path / checkpointer.SPEC
  assert spec.read_text() == '{\n"a": [\n[\n2\n],\n"float32"\n]\n}'
  spec.write_text(json.dumps({"a": [[2], "float32"]}))
  saved.save(6, {"a": jnp.zeros(2)})  # again: nothing
  saved.save(8, {"a": jnp.asarray([1.0, 8.0])})
  saved.close()
  assert (
    integrity.steps(tmp_path / "checkpoints") == [8, 6]
    and spec.read_text() == '{"a": [[2], "float32"]}'
  ), "written once"
  assert all((tmp_path / "checkpoints" / step / integrity.CHECKSUMS).is_file() for step in "68")
  assert json.loads((tmp_path / "checkpoints" / "8" / "data" / "metadata").read_text()) == {
    "position": 8,
    "version": integrity.VERSION,
  }
  read = checkpoint.read_state(tmp_path / "checkpoints" / "6" / "state")
  assert isinstance(read["a"], np.ndarray) and read["a"].tolist() == [1.0, 6.0]
  mesh = mesh_lib.make(data=2, fsdp=2, devices=jax.devices()[:4])
  again = checkpointer.Checkpointer(tmp_path, keep=2)
  restored = again.restore({"a": jnp.zeros(2)}, mesh)["a"]
  again.close()
  assert (
    restored.tolist() == [1.0, 8.0]
    and restored.sharding == rules.shardings({"a": jnp.zeros(2)}, mesh)["a"]
  )


def test_nothing_saved_is_nothing_restored(tmp_path):
  made = checkpointer.Checkpointer(tmp_path, keep=2)
  assert made.restore(STATE, mesh_lib.make(data=1, devices=jax.devices()[:1])) is None
  made.close()


def test_the_checksums_of_a_step_are_there_before_the_next_save_and_the_end(paper, monkeypatch):
  sealed = []
  monkeypatch.setattr(
    integrity, "seal", lambda folder: time.sleep(0.05) or sealed.append(folder.name)
  )
  for end in (lambda: paper.save(9, STATE), paper.wait, paper.close):
    (paper._folder / "3").mkdir(parents=True, exist_ok=True)
    del sealed[:]
    paper.save(3, STATE)
    end()
    assert sealed[:1] == ["3"]
    paper.wait()


def test_a_step_is_sealed_when_it_is_there_and_one_that_never_comes_is_given_up(
  paper, monkeypatch, capsys
):
  sealed = []
  monkeypatch.setattr(integrity, "seal", lambda folder: sealed.append(folder))
  (paper._folder / "4").mkdir(parents=True)
  paper._run_seal(4, threading.Event())
  over = threading.Event()
  over.set()
  paper._run_seal(5, over)
  assert sealed == [paper._folder / "4", paper._folder / "5"] and not capsys.readouterr().out
  for error, text in (
    (OSError(28, "No space left on device"), "No space left on device"),
    (OSError("odd"), "odd"),
  ):
    monkeypatch.setattr(integrity, "seal", raises(error))
    paper._run_seal(4, over)
    assert capsys.readouterr().out == f"checkpoint {paper._folder / '4'} has no checksums: {text}\n"


def test_a_save_that_does_not_fit_names_the_last_good_step_and_is_said_once(paper):
  full = OSError(28, "No space left on device")
  asyncio = logging.getLogger("asyncio")
  before = asyncio.level
  try:
    paper._manager = manager(
      save=raises(full), wait_until_finished=raises(full), close=raises(full)
    )
    start = f"cannot write a checkpoint into {paper._folder}: No space left on device; "
    end = ": make room, then give --resume"
    assert message(errors.StorageError, paper.close) == f"{start}there is no earlier one{end}"
    asyncio.setLevel(logging.WARNING)
    paper.close()  # once is enough
    paper._failed = False
    assert (
      message(errors.StorageError, lambda: paper.save(4, STATE))
      == f"{start}there is no earlier one{end}"
    )
    assert asyncio.level == logging.CRITICAL
    for step in ("2", "4"):
      (paper._folder / step).mkdir(parents=True)
    assert (
      message(errors.StorageError, lambda: paper.save(4, STATE))
      == f"{start}the last one is of step 2{end}"
    )
    assert message(errors.StorageError, paper.wait) == f"{start}the last one is of step 4{end}"
    (paper._folder / "0").mkdir()
    assert (
      message(errors.StorageError, lambda: paper.save(6, STATE))
      == f"{start}the last one is of step 4{end}"
    )
  finally:
    asyncio.setLevel(before)
  paper._failed, paper._manager = False, manager(close=raises(ValueError("else")))
  assert message(ValueError, paper.close) == "else"
  assert not paper._failed


@pytest.mark.parametrize(
  "error, sealed, count, refused",
  [
    (ValueError("torn\nmore"), False, 1, False),
    (ValueError("torn\nmore"), True, 1, True),
    (ValueError("torn\nmore"), False, 2, True),
    (MemoryError("torn"), False, 1, True),
    (PermissionError("torn"), False, 1, True),
    (ValueError("torn RESOURCE_EXHAUSTED"), False, 1, True),
  ],
)
def test_what_has_its_checksums_is_not_taken_for_damaged(
  paper, monkeypatch, error, sealed, count, refused
):
  (paper._folder / "4").mkdir(parents=True)
  if sealed:
    (paper._folder / "4" / integrity.CHECKSUMS).write_text("{}")
  paper._manager = manager(restore=raises(error))
  monkeypatch.setattr(jax, "process_count", lambda: count)
  line = str(error).partition("\n")[0]
  if refused:
    assert (
      message(errors.UserError, lambda: paper._restore(4, {}))
      == f"checkpoint {paper._folder / '4'} cannot be read: {line}"
    )
  else:
    assert paper._restore(4, {}) == (None, line)


def test_several_processes_share_the_files_and_find_the_same(paper, monkeypatch):
  asked = []
  monkeypatch.setattr(checkpointer.distributed, "run_on_all_processes", lambda function: function())
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  monkeypatch.setattr(integrity, "check", lambda folder, **part: asked.append((folder, part)))
  assert paper._problem(paper._folder) == "" and asked == [
    (paper._folder, {"index": 1, "count": 3})
  ]
  for error in (integrity.Damaged("torn"), errors.SharedUserError("torn")):
    monkeypatch.setattr(integrity, "check", raises(error))
    assert paper._problem(paper._folder) == "torn"


def test_the_other_processes_set_nothing_aside_and_say_nothing(paper, monkeypatch, capsys):
  steps = iter([4, None])
  monkeypatch.setattr(paper, "latest", lambda: next(steps))
  monkeypatch.setattr(paper, "_problem", lambda folder: "torn")
  monkeypatch.setattr(checkpointer.distributed, "is_primary", lambda: False)
  monkeypatch.setattr(
    checkpointer.distributed, "broadcast_from_primary", lambda text: "what process 0 has set aside"
  )
  reloaded = []
  paper._manager = manager(reload=lambda: reloaded.append(True))
  assert message(errors.SharedUserError, lambda: paper.restore({}, None)) == (
    f"--resume: no good checkpoint is left in {paper._folder} (damaged and set aside: all): "
    "--resume once more starts from step 0"
  )
  assert reloaded == [True] and not capsys.readouterr().out
  (paper._folder / "4").mkdir(parents=True)
  monkeypatch.setattr(checkpointer.distributed, "broadcast_from_primary", lambda text: text)
  assert (
    paper.restart_point(4) is None
    and (paper._folder / "4").is_dir()
    and not capsys.readouterr().out
  )
  paper.save(8, STATE)
  assert paper._seal is None and not paper._spec.exists()


def test_the_point_to_go_on_from_after_a_bad_loss(paper, monkeypatch, capsys):
  waited = []
  monkeypatch.setattr(paper, "wait", lambda: waited.append(True))
  for step in ("2", "4", "6", "7"):
    (paper._folder / step).mkdir(parents=True)
  held = {"2": {"a": np.zeros(2)}, "4": {"a": np.array([0, np.inf])}, "6": {"a": np.zeros(2)}}
  monkeypatch.setattr(checkpoint, "read_state", lambda item: held[item.parent.name])
  assert paper.restart_point(8) == 6 and waited == [True]

  def aside(step):
    return (
      f"checkpoint {paper._folder / step} is set aside as {paper._folder / f'damaged-{step}'}: "
    )

  assert capsys.readouterr().out == aside("7") + "its weights lead there at once\n"
  del held["2"]
  assert paper.restart_point(7) is None
  assert capsys.readouterr().out.splitlines() == [
    aside("6") + "its weights lead there at once",
    aside("4") + "it holds numbers that are not finite",
    aside("2") + "it cannot be read: '2'",
  ]


@pytest.mark.parametrize(
  "error",
  [MemoryError("x"), PermissionError("x"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x")],
)
def test_a_machine_without_memory_or_permission_damages_nothing(paper, monkeypatch, error):
  (paper._folder / "4").mkdir(parents=True)
  monkeypatch.setattr(checkpoint, "read_state", raises(error))
  with pytest.raises(type(error)):
    paper.restart_point(9)
  assert integrity.steps(paper._folder) == [4]


def test_finite_and_described():
  assert checkpoint.all_finite({"a": np.ones(2), "b": np.int32(3), "c": np.array([True])})
  for bad in (np.array([1, np.nan]), np.array([[np.inf]], ml_dtypes.bfloat16)):
    assert not checkpoint.all_finite({"a": np.ones(2), "b": [bad]})
  assert checkpointer.describe(STATE) == {"params/a": [[2, 3], "float32"], "step": [[], "int32"]}


def test_a_checkpoint_of_another_model_names_three_leaves_of_each_kind():
  saved = {
    "kept": [[1], "float32"],
    **{f"old{i}": [[1], "float32"] for i in range(4)},
    "other": [[2], "float32"],
  }
  expected = {
    "kept": [[1], "float32"],
    **{f"new{i}": [[1], "float32"] for i in range(5)},
    "other": [[3], "int32"],
  }
  checkpointer.check_spec(saved, dict(saved), what="it")
  assert message(errors.UserError, lambda: checkpointer.check_spec(saved, expected, what="it")) == (
    "checkpoint it is of another model: 5 missing: new0; new1; new2 | 4 surplus: old0; old1; old2 "
    "| 1 of another shape or type: other is float32[2], expected int32[3]"
  )
  for one, other, line in (
    (saved, {**saved, "a": [[], "int32"]}, "1 missing: a"),
    ({**saved, "a": [[], "int32"]}, saved, "1 surplus: a"),
    (
      {"a": [[2], "int32"]},
      {"a": [[2], "int8"]},
      "1 of another shape or type: a is int32[2], expected int8[2]",
    ),
  ):
    assert message(
      errors.UserError, lambda one=one, other=other: checkpointer.check_spec(one, other, what="it")
    ) == (f"checkpoint it is of another model: {line}")
