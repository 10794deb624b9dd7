"""The log of a run: its lines, the terminal, TensorBoard and Weights & Biases, and what is said
when the disk is full.
"""

import io
import json
import subprocess
import sys
import types

import pytest

from como_jax import errors
from como_jax.train import log
from tests.end_to_end import program


@pytest.fixture(name="clock")
def _clock(monkeypatch):
  """The time, in a list of one number."""
  now = [100.0]
  monkeypatch.setattr(
    log, "time", types.SimpleNamespace(monotonic=lambda: now[0], time=lambda: 7.0)
  )
  return now


def opened(workdir, *, steps=10, start=0, tensorboard=False, **settings):
  return log.Log(workdir, steps=steps, start=start, tensorboard=tensorboard, **settings)


def lines(workdir):
  return [json.loads(line) for line in (workdir / log.FILE).read_text().splitlines()]


def test_a_line_is_a_step_a_kind_and_numbers(tmp_path, capsys):
  writer = opened(tmp_path)
  writer.write(1, {"loss": 2})
  # at once
  assert (tmp_path / log.FILE).read_text() == '{"step": 1, "kind": "train", "loss": 2.0}\n'
  writer.write(1, {"score": 0.5}, kind="validation")
  writer.close()
  assert lines(tmp_path)[1:] == [{"step": 1, "kind": "validation", "score": 0.5}]
  assert (
    not (tmp_path / "tensorboard").exists()
    and not (tmp_path / "wandb_id").exists()
    and not capsys.readouterr().err
  )
  with pytest.raises(ValueError, match="closed file"):
    writer._file.write("")


def test_a_resumed_log_goes_on_behind_its_start(tmp_path):
  text = "".join(
    json.dumps({"step": step, "kind": kind, "loss": 1.0}) + "\n"
    for step, kind in (
      (1, "train"),
      (4, "validation"),
      (2, "validation"),
      (4, "train"),
      (5, "train"),
      (5, "validation"),
    )
  )
  (tmp_path / log.FILE).write_text(text)
  writer = opened(tmp_path, start=4)
  assert [(line["step"], line["kind"]) for line in lines(tmp_path)] == [
    (1, "train"),
    (4, "validation"),
    (2, "validation"),
    (4, "train"),
  ]
  assert writer.validated == [2, 4] and writer.evaluated(4) and not writer.evaluated(5)
  writer.write(5, {"loss": 3.0})
  writer.close()
  assert log.read(tmp_path, kind="train") == {"loss": ([1, 4, 5], [1.0, 1.0, 3.0])}


def test_curves_are_of_one_kind_and_finite(tmp_path):
  assert log.read(tmp_path, kind="train") == {}
  rows = [
    {"step": 1, "kind": "train"},
    {"step": 2, "kind": "train", "a": 1.0, "b": float("nan")},
    {"step": 2, "kind": "validation", "a": 9.0},
    {"step": 3, "kind": "train", "a": float("inf"), "b": 2.0},
    {"step": 4, "kind": "train", "a": 4.0},
  ]
  (tmp_path / log.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
  assert log.read(str(tmp_path), kind="train") == {"a": ([2, 4], [1.0, 4.0]), "b": ([3], [2.0])}
  assert log.read(tmp_path, kind="validation") == {"a": ([2], [9.0])}


@pytest.mark.parametrize(
  "broken", ['{"step": 2, "ki', "[1]", '{"step": 2}', '{"kind": "train"}', "3"]
)
def test_what_follows_a_broken_line_is_dropped(tmp_path, broken):
  good = ['{"step": 1, "kind": "train", "loss": 1.0}', '{"step": 3, "kind": "train", "loss": 3.0}']
  (tmp_path / log.FILE).write_text("\n".join([good[0], broken, good[1]]) + "\n")
  assert log.read(tmp_path, kind="train") == {"loss": ([1], [1.0])}


@pytest.mark.parametrize(
  "error, text",
  [(OSError(28, "No space left on device"), "No space left on device"), (OSError("odd"), "odd")],
)
def test_a_log_that_cannot_be_written_is_one_line_that_names_it(tmp_path, monkeypatch, error, text):
  def full(*unused):
    raise error

  writer = opened(tmp_path)
  writer._file.close()
  writer._file = types.SimpleNamespace(write=full, close=full)
  message = f"^cannot write {tmp_path / log.FILE}: {text}$"
  with pytest.raises(errors.StorageError, match=message):
    writer.write(1, {"loss": 1.0})
  writer.close()  # it has been said
  monkeypatch.setattr(log.atomic, "write", full)
  with pytest.raises(errors.StorageError, match=message):
    opened(tmp_path)


class Board:
  """Stands in for TensorBoard's file; it can be full."""

  path = "BOARD"

  def __init__(self, error=None):
    self.error, self.rows, self.closed = error, [], 0

  def write(self, step, scalars):
    self.rows.append((step, scalars))
    if self.error:
      raise self.error

  def close(self):
    self.closed += 1
    if self.error:
      raise self.error


def test_tensorboard_gets_every_line_until_it_cannot_be_written(tmp_path, capsys):
  writer = opened(tmp_path)
  writer._board = board = Board()
  writer.write(3, {"loss": 1}, kind="validation")
  writer.close()
  assert board.rows == [(3, {"validation/loss": 1.0})] and board.closed == 1
  for error, text in (
    (OSError(28, "No space left on device"), "No space left on device"),
    (OSError("odd"), "odd"),
  ):
    writer = opened(tmp_path)
    writer._board = board = Board(error)
    writer.write(3, {"loss": 1})
    writer.write(4, {"loss": 1})
    assert (
      capsys.readouterr().out
      == f"tensorboard: cannot write BOARD: {text}; metrics.jsonl goes on, tensorboard does not\n"
    )
    assert len(board.rows) == 1 and board.closed == 1
    writer._board = Board(error)
    writer.close()


def test_tensorboard_hides_what_was_written_behind_the_start_of_a_resumed_run(
  tmp_path, monkeypatch
):
  begun = []
  monkeypatch.setattr(
    log, "_Board", lambda folder, *, purge_step: begun.append((folder, purge_step)) or Board()
  )
  log.Log(tmp_path, steps=9, start=3).close()
  assert begun == [(tmp_path / "tensorboard", 3)]


def events(board):
  """What the newest of TensorBoard's files holds."""
  from tensorboardX.proto import event_pb2

  content, at, found = max(board.path.iterdir()).read_bytes(), 0, []
  while at < len(content):  # length, its checksum, the event, its checksum
    size = int.from_bytes(content[at : at + 8], "little")
    found.append(event_pb2.Event.FromString(content[at + 12 : at + 12 + size]))
    at += 16 + size
  return found


def test_events_are_in_the_file_at_once_and_the_first_start_hides_nothing(tmp_path):
  board = log._Board(tmp_path / "a" / "b", purge_step=0)
  board.write(2, {"train/loss": 0.5, "train/rate": 2.0})
  found = events(board)
  # the first is the file's version
  assert [event.HasField("session_log") for event in found] == [False] * 3
  assert [
    (event.step, event.wall_time > 1.6e9, value.tag, value.simple_value)
    for event in found
    for value in event.summary.value
  ] == [(2, True, "train/loss", 0.5), (2, True, "train/rate", 2.0)]
  board.close()


def test_a_later_start_goes_on_in_the_folder_that_is_there(tmp_path):
  (tmp_path / "a").mkdir()
  board = log._Board(tmp_path / "a", purge_step=3)
  board.close()
  assert [
    (event.step, event.wall_time > 1.6e9, event.HasField("session_log"))
    for event in events(board)[1:]
  ] == [(3, True, True)]


def test_torch_is_not_loaded_for_tensorboard_and_can_be_later(tmp_path):
  (tmp_path / "torch.py").write_text("HERE = 1")
  code = (
    f"import pathlib, sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom como_jax.train import log\n"
    f"board = log._Board(pathlib.Path({str(tmp_path)!r}), purge_step=0)\n"
    "board.write(1, {'loss': 0.5})\nassert 'tensorboardX' in sys.modules\n"
    "assert 'torch' not in sys.modules\nimport torch\nassert torch.HERE == 1"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=program.ROOT, capture_output=True)
  assert done.returncode == 0, done.stderr


def test_a_run_keeps_its_name_at_weights_and_biases(tmp_path, monkeypatch):
  begun, logged, finished = [], [], []

  def init(**settings):
    begun.append(settings)
    return types.SimpleNamespace(
      log=lambda scalars, step: logged.append((step, scalars)), finish=lambda: finished.append(True)
    )

  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
  for _ in range(2):
    writer = opened(tmp_path, wandb="project", name="motion", config={"a": 1})
    writer.write(3, {"loss": 1})
    writer.close()
  identity = (tmp_path / "wandb_id").read_text()
  assert len(identity) == 12
  assert (
    begun
    == [
      dict(
        project="project",
        name="motion",
        dir=str(tmp_path),
        config={"a": 1},
        id=identity,
        resume="allow",
      )
    ]
    * 2
  )
  assert logged == [(3, {"train/loss": 1.0})] * 2 and finished == [True] * 2
  (tmp_path / "other").mkdir()
  opened(tmp_path / "other", wandb="project").close()
  assert begun[2]["id"] != identity


def test_wandb_that_is_not_there_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(
    errors.UserError,
    match="^config.train.wandb is set but wandb is not installed: pip install wandb$",
  ):
    log.check_wandb()


@pytest.mark.parametrize(
  "source, words",
  [
    (
      "import a_package_that_wandb_needs",
      "importing it fails (ModuleNotFoundError: No module named 'a_package_that_wandb_needs')",
    ),
    (
      "raise TypeError('Descriptors cannot be created directly')",
      "importing it fails (TypeError: Descriptors cannot be created directly)",
    ),
  ],
)
def test_a_broken_wandb_is_not_called_missing(tmp_path, monkeypatch, source, words):
  (tmp_path / "wandb.py").write_text(source)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, "wandb", raising=False)
  with pytest.raises(errors.UserError) as told:
    log.check_wandb()
  assert words in str(told.value) and "not installed" not in str(told.value)


def test_off_a_terminal_a_line_is_said_when_it_is_due(tmp_path, capsys, clock):
  writer = opened(tmp_path, steps=10, start=2)
  clock[0] = 108.0  # 8 s
  writer.progress(2, {"loss": 0.123456, "pairs/s": 1234.5}, say=True)
  writer.progress(6, {"loss": 2}, say=True)
  writer.progress(7, {"loss": 2}, say=False)
  writer.say("a remark")
  writer.close()
  assert capsys.readouterr() == (
    "step 2/10  loss 0.1235, pairs/s 1234, ETA 1:04\nstep 6/10  loss 2, ETA 0:08\na remark\n",
    "",
  )


class Terminal(io.StringIO):
  """A terminal of 80 columns."""

  def isatty(self):
    return True


def test_on_a_terminal_there_is_a_bar(tmp_path, capsys, monkeypatch):
  terminal = Terminal()
  monkeypatch.setattr(sys, "stderr", terminal)
  writer = opened(tmp_path, steps=1000, start=2)
  for step in range(3, 503):
    writer.progress(step, {"loss": 0.5}, say=True)
  assert writer._bar.n == 502 and terminal.getvalue().count("\r") < 100, (
    "a few times a second, however quick the steps"
  )
  shown = len(terminal.getvalue())
  writer.say("a remark")
  assert "loss 0.5" in terminal.getvalue()[shown:] and "a remark\n" in capsys.readouterr().out, (
    "it makes room for a line and comes again"
  )
  writer.close()
  shown = terminal.getvalue()
  assert "2/1000" in shown and "502/1000" in shown and "step" in shown and shown.endswith("\n")


@pytest.mark.parametrize(
  "seconds, text",
  [
    (0.9, "0:00"),
    (59, "0:59"),
    (61, "1:01"),
    (3599, "59:59"),
    (3600, "1:00:00"),
    (7384.5, "2:03:04"),
  ],
)
def test_times_to_go(seconds, text):
  assert log._clock(seconds) == text


def test_the_other_processes_write_nothing(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  quiet = log.NullLog([2, 4])
  quiet.write(1, {"loss": 1.0}, kind="validation")
  quiet.progress(1, {}, say=True)
  quiet.say("nothing")
  quiet.close()
  assert quiet.evaluated(4) and not quiet.evaluated(3)
  assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())
