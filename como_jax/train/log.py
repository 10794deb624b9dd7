"""Log of a run's scalars: metrics.jsonl, terminal, TensorBoard and optionally Weights & Biases."""

import contextlib
import importlib
import json
import math
import pathlib
import sys
import time
import types
import uuid
from collections.abc import Iterable, Iterator

import tqdm

from como_jax import errors
from como_jax.train import atomic

FILE = "metrics.jsonl"
BOARD = "tensorboard"  # folder of its files


class Log:
  """Writes scalars.

  After a resume, the file continues at the restored step. The lines of lost steps are removed.

  Attributes:
    validated: steps that already have a validation, in ascending order.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    steps: int,
    start: int,
    tensorboard: bool = True,
    wandb: str = "",
    name: str = "",
    config: dict | None = None,
  ):
    self._path = workdir / FILE
    kept = [line for line in _lines(self._path) if line["step"] <= start]
    try:
      atomic.write(self._path, "".join(json.dumps(line) + "\n" for line in kept))
    except OSError as error:
      raise errors.StorageError(f"cannot write {self._path}: {error.strerror or error}") from error
    self.validated = sorted({line["step"] for line in kept if line["kind"] == "validation"})
    self._file = self._path.open("a")
    self._board = _Board(workdir / BOARD, purge_step=start) if tensorboard else None
    self._wandb = None
    if wandb:
      identity = workdir / "wandb_id"  # per directory: two directories are two W&B runs
      if not identity.exists():
        atomic.write(identity, uuid.uuid4().hex[:12])
      self._wandb = check_wandb().init(
        project=wandb,
        name=name,
        dir=str(workdir),
        config=config,
        id=identity.read_text(),
        resume="allow",
      )
    self._terminal = sys.stderr.isatty()
    self._bar = tqdm.tqdm(
      total=steps, initial=start, unit="step", disable=not self._terminal, dynamic_ncols=True
    )
    self._steps, self._begin, self._start = steps, time.monotonic(), start

  def write(self, step: int, scalars: dict[str, float], *, kind: str = "train") -> None:
    """Writes one line {"step", "kind", ...}.

    If TensorBoard cannot be written, it is switched off and the run continues.

    Args:
      step: of the scalars.
      scalars: name -> value.
      kind: "train" or "validation".

    Raises:
      errors.StorageError: the line cannot be written.
    """
    line = {"step": step, "kind": kind, **{k: float(v) for k, v in scalars.items()}}
    try:
      self._file.write(json.dumps(line) + "\n")
      self._file.flush()
    except OSError as error:
      raise errors.StorageError(f"cannot write {self._path}: {error.strerror or error}") from error
    if self._board:
      try:
        self._board.write(step, {f"{kind}/{key}": float(value) for key, value in scalars.items()})
      except OSError as error:
        self.say(
          f"tensorboard: cannot write {self._board.path}: {error.strerror or error}; {FILE} "
          "goes on, tensorboard does not"
        )
        with contextlib.suppress(OSError):
          self._board.close()
        self._board = None
    if self._wandb:
      self._wandb.log({f"{kind}/{k}": float(v) for k, v in scalars.items()}, step=step)

  def evaluated(self, step: int) -> bool:
    """Whether this run was already validated at a step, before it was resumed."""
    return step in self.validated

  def progress(self, step: int, scalars: dict[str, float], *, say: bool) -> None:
    """Updates the progress bar; without a terminal, prints a line if `say` is True."""
    text = ", ".join(f"{k} {v:.4g}" for k, v in scalars.items())
    self._bar.set_postfix_str(text, refresh=False)
    self._bar.update(step - self._bar.n)
    if say and not self._terminal:
      done = max(1, step - self._start)
      remaining = (time.monotonic() - self._begin) / done * (self._steps - step)
      print(f"step {step}/{self._steps}  {text}, ETA {_clock(remaining)}")

  def say(self, text: str) -> None:
    """Prints a line without disturbing the progress bar."""
    if self._terminal:
      self._bar.write(text)
    else:
      print(text)

  def close(self) -> None:
    """Flushes and closes all writers."""
    self._bar.close()
    # every line was flushed; a line that could not be written has already raised an error
    with contextlib.suppress(OSError):
      self._file.close()
    if self._board:
      with contextlib.suppress(OSError):
        self._board.close()
    if self._wandb:
      self._wandb.finish()


class _Board:
  """Writes scalars for TensorBoard, without a thread.

  tensorboardX's own writer has a thread that dies with a traceback when the disk is full.
  """

  def __init__(self, folder: pathlib.Path, *, purge_step: int):
    """Creates the event file.

    Args:
      folder: of the event files.
      purge_step: TensorBoard hides the scalars that were written earlier for later steps.
    """
    with _without_torch():
      from tensorboardX import event_file_writer, summary  # an optional package

    # protobuf makes the classes of this module while it is imported
    event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
    folder.mkdir(parents=True, exist_ok=True)
    self.path, self._event, self._scalar = folder, event_pb2.Event, summary.scalar
    self._writer = event_file_writer.EventsWriter(str(folder / "events"))
    if purge_step:
      log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._writer.write_event(self._event(wall_time=time.time(), step=purge_step, session_log=log))

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Writes and flushes scalars; raises OSError."""
    for name, value in scalars.items():
      self._writer.write_event(
        self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value))
      )
    self._writer.flush()

  def close(self) -> None:
    """Closes the file; raises OSError."""
    self._writer.close()


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
  """Hides torch from what is imported here.

  tensorboardX imports it where it is installed, for models and images, which are not written: two
  seconds and 180 MB in every run.
  """
  if "torch" in sys.modules:
    yield
    return
  sys.modules["torch"] = None  # type: ignore[assignment]  # "import torch" is an ImportError
  try:
    yield
  finally:
    del sys.modules["torch"]


class NullLog:
  """Log of the processes other than process 0; it writes nothing."""

  def __init__(self, evaluated: Iterable[int]):
    """Stores the validated steps of process 0's log."""
    self._evaluated = frozenset(evaluated)

  def evaluated(self, step: int) -> bool:
    """Returns the same as the log of process 0."""
    return step in self._evaluated

  def write(self, step: int, scalars: dict[str, float], *, kind: str = "train") -> None:
    """Does nothing."""

  def progress(self, step: int, scalars: dict[str, float], *, say: bool) -> None:
    """Does nothing."""

  def say(self, text: str) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""


def check_wandb() -> types.ModuleType:
  """Imports and returns the module wandb.

  Raises:
    errors.UserError: it is not installed, or its import fails.
  """
  try:
    return importlib.import_module("wandb")
  except Exception as error:  # incompatible dependencies raise many types
    if isinstance(error, ModuleNotFoundError) and error.name == "wandb":
      raise errors.UserError(
        "config.train.wandb is set but wandb is not installed: pip install wandb"
      ) from error
    raise errors.UserError(
      "config.train.wandb is set and wandb is installed, but importing it fails "
      f"({type(error).__name__}: {error}): try pip install --upgrade wandb, or leave "
      "config.train.wandb empty"
    ) from error


def read(workdir: pathlib.Path, *, kind: str) -> dict[str, tuple[list[int], list[float]]]:
  """Reads a run's scalars of one kind; returns {name: (steps, values)}, finite values only."""
  curves: dict[str, tuple[list[int], list[float]]] = {}
  for line in _lines(pathlib.Path(workdir) / FILE):
    if line["kind"] == kind:
      for name, value in line.items():
        if name not in ("step", "kind") and math.isfinite(value):
          steps, values = curves.setdefault(name, ([], []))
          steps.append(line["step"])
          values.append(value)
  return curves


def _lines(path: pathlib.Path) -> list[dict]:
  """Reads the complete lines of a file; a kill may have cut the last one."""
  if not path.exists():
    return []
  lines = []
  for text in path.read_text().splitlines():
    try:
      line = json.loads(text)
    except json.JSONDecodeError:
      break
    if not isinstance(line, dict) or not {"step", "kind"} <= set(line):
      break
    lines.append(line)
  return lines


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
